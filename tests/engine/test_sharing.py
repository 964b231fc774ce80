"""Requests that share objects, pipelines that share an executor, and modes of torch: none of it changes a bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import (
    DCW,
    Condition,
    Finished,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    StreamPipeline,
    Switches,
    X0Target,
)
from harness.engine.curve import curve
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.parity.compare import assert_identical, difference
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request

KINDS = [EagerExecutor, StaticExecutor]
WEIGHTS = torch.linspace(0.25, 2.0, T)


def latents(ended: list[Finished]) -> list[Tensor]:
    return [each.latent for each in sorted(ended, key=lambda f: str(f.id))]


def ran(*requests: Request, **fields: Any) -> list[Tensor]:
    p = pipeline(**{"depth": max(2, len(requests)), **fields})
    for number, each in enumerate(requests):
        p.submit(replace(each, id=number))
    return latents(p.drain())


def shared() -> list[Request]:
    """Requests with as few objects as there can be: one latent, one condition, one mask, one target, one guidance."""
    latent, prompt, both = fixed(3), condition(1, 4, temporal_weight=WEIGHTS), condition(2, 4)
    mask, target = LatentMask(WEIGHTS / 2, latent), X0Target(latent, WEIGHTS)
    guidance = Guidance(WEIGHTS, [both, prompt], momentum=WEIGHTS, rescale=WEIGHTS)
    context = fixed(7, T, 2 * D)
    made = Request([prompt, both], context, 1, source=latent, denoise=0.7, guidance=guidance, latent_mask=mask)
    return [
        made,
        made,
        Request([prompt, prompt], context, 2, source=latent, sde_curve=WEIGHTS, guidance=guidance),
        Request([both, prompt, both], context, 1, source=latent, x0_target=target, velocity_scale=WEIGHTS),
        Request(
            [prompt], context, 3, guidance=Guidance(2.0, [prompt], "initialize"), latent_mask=mask, x0_target=target
        ),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("switches", [Switches(), Switches(fused_cfg=False, cached_conditioning=False)])
def test_objects_that_requests_share_give_the_bits_of_copies(kind: type[EagerExecutor], switches: Switches) -> None:
    own = [ran(copy.deepcopy(each)) for each in shared()]
    together = ran(*shared(), executor=kind(AffineDecoder(), 8), switches=switches)
    assert_identical(together, [latent for (latent,) in own], "latents")
    assert_identical(together[0], together[1])
    assert all(difference(together[0], other) for other in together[2:])


def test_a_condition_against_itself_guides_nowhere_and_its_weight_is_that_of_its_place() -> None:
    prompt, context = condition(1), fixed(7, T, 2 * D)
    (plain,) = ran(Request([prompt], context, 1))
    assert_identical(ran(Request([prompt], context, 1, guidance=Guidance(4.0, [prompt]))), [plain])
    first, second = condition(1, temporal_weight=0.5), condition(2, temporal_weight=WEIGHTS)
    bare = [Condition(each.encoder_hidden_states) for each in (first, second)]
    weighted = ran(
        Request([first, second], context, 1), Request(bare, context, 1), Request([second, first], context, 1)
    )
    assert difference(weighted[0], weighted[1])
    assert_identical(ran(Request([replace(bare[0], temporal_weight=0.5), second], context, 1)), weighted[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_pipelines_of_one_executor_do_not_see_each_other(kind: type[EagerExecutor]) -> None:
    """Also where their ticks alternate, the shapes differ, one fails, and one is closed in flight."""

    def own(frames: int, steps: int, executor: Any) -> StreamPipeline:
        p = StreamPipeline(executor, PipelineConfig(depth=2, steps=steps, dcw=DCW("high", 0.2 * steps)))
        for seed in (1, 2):
            p.submit(request(seed, frames, guidance=Guidance(2.0, [condition(9)], "initialize")))
        p.set_shared_curve("velocity_scale", steps / 4)
        return p

    sizes = [(T, 3), (T + 1, 4), (T, 5), (1, 2)]
    alone = [latents(own(*size, EagerExecutor(AffineDecoder())).drain()) for size in sizes]
    executor = kind(AffineDecoder(), 2)
    pipelines, ended = [own(*size, executor) for size in sizes], [list[Finished]() for _ in sizes]
    gone = own(T + 2, 9, executor)
    for number in range(6):
        if number < 2:
            gone.tick()
        else:
            gone.close()
        for p, finished in zip(pipelines, ended, strict=True):
            finished += p.tick()
    assert_identical([latents(each) for each in ended], alone, "latents")
    assert [p.stats().finished for p in pipelines] == [2] * 4
    assert [p.stats().submitted for p in (*pipelines, gone)] == [2] * 5


MODES: dict[str, Callable[[], Any]] = {
    "inference": torch.inference_mode,
    "no graph": torch.no_grad,
    "a graph": torch.enable_grad,
    "nothing": nullcontext,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [list(MODES), list(MODES)[::-1], ["inference"], ["nothing", "inference"]], ids=str)
def test_a_tick_may_run_in_any_mode_of_torch(order: list[str], kind: type[EagerExecutor]) -> None:
    plain = ran(*shared(), steps=5)
    p = pipeline(8, 5, kind(AffineDecoder(), 8))
    ended, ticks = [], 0
    with MODES[order[0]]():
        for number, each in enumerate(shared()):
            p.submit(replace(each, id=number))
    while p.stats().in_flight or p.stats().queued:
        with MODES[order[ticks % len(order)]]():
            modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            ended += p.tick()
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes
        ticks += 1
    assert_identical(latents(ended), plain, "latents")


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_has_no_say_in_a_tick(default: torch.dtype) -> None:
    def ended() -> list[Tensor]:
        return ran(*shared(), steps=4, dcw=DCW("double", WEIGHTS, 0.5, "db2"), solver="ode")

    plain, before = ended(), torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        made = ended()
    finally:
        torch.set_default_dtype(before)
    assert_identical(made, plain, "latents")


def test_the_default_device_has_no_say_in_a_tick() -> None:
    """Nobody's tensors are given here: what the ring itself makes of numbers must lie on the host first."""

    def ended(default: torch.device) -> list[Tensor]:
        p = pipeline(steps=4, dcw=DCW("double", 0.1, 0.5, "db2"))
        guided, source = Guidance(2.0, [condition(2, 3)], rescale=0.5), fixed(4)
        asked = {"conditions": [condition(1, 5)], "context_latents": fixed(7, T, 2 * D), "source": source}
        with default:
            p.submit(Request(**asked, seed=1, guidance=guided, denoise=0.7, noise_injection=0.2))
            p.set_shared_curve("velocity_scale", 0.9)
            return latents(p.drain())

    assert_identical(ended(torch.device("meta")), ended(torch.device("cpu")), "latents")


class Breaking(StaticExecutor):
    """Fails within the decoder's call `at`, when its buffers are filled and its output is not."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.left, self.error = at, error

        def decoder(**inputs: Tensor) -> Tensor:
            self.left -= 1
            if self.left == 0:
                raise self.error("broken")
            return AffineDecoder()(**inputs)

        super().__init__(decoder, 2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(1, 7))
def test_a_decoder_that_breaks_off_at_any_call_costs_no_bit(at: int, error: type[BaseException]) -> None:
    made = [request(n, guidance=Guidance(3.0, [condition(9), condition(8)], "initialize")) for n in (1, 2)]
    p, broken, ended = pipeline(executor=Breaking(at, error)), 0, []
    for number, each in enumerate(made):
        p.submit(replace(each, id=number))
    while p.stats().in_flight or p.stats().queued:
        before = p.slots, p.stats()
        try:
            ended += p.tick()
        except (RuntimeError, KeyboardInterrupt):
            broken += 1
            assert (p.slots, p.stats()) == before
    assert broken == 1
    assert_identical(latents(ended), ran(*made), "latents")


@pytest.mark.parametrize("name", ["velocity_scale", "noise_injection"])
@pytest.mark.parametrize("value", [0.5, WEIGHTS, 0.0, 1.0], ids=["number", "curve", "zero", "one"])
def test_a_control_takes_a_curve_that_was_made_before(name: str, value: Any) -> None:
    made = curve("given", value)
    ended = []
    for given in (value, made, made):
        p = pipeline()
        p.submit(request())
        p.set_shared_curve(name, given)
        ended += latents(p.drain())
    ended += ran(request(**{name: made}))
    assert_identical(ended, ended[:1] * 4, "latents")


def test_controls_are_set_and_taken_back_each_for_itself() -> None:
    names = ("velocity_scale", "noise_injection", "guidance_scale", "momentum", "rescale")
    made = request(guidance=Guidance(3.0, [condition(9)]))

    def under(**values: float) -> list[Tensor]:
        p = pipeline()
        p.submit(made)
        for name in values:
            p.set_shared_curve(name, values[name])
        return latents(p.drain())

    values = {name: 0.5 for name in names}
    for kept in names:
        p = pipeline()
        p.submit(made)
        for name in (*names, *names[::-1]):
            p.set_shared_curve(name, values[name] if name != kept else 0.25)
        p.set_shared_curve(kept, values[kept])
        for name in names:
            if name != kept:
                p.set_shared_curve(name, None)
                p.set_shared_curve(name, None)
        assert_identical(latents(p.drain()), under(**{kept: 0.5}), kept)
    assert difference(under(**values), under())


def test_a_batch_is_contiguous_and_never_a_caller_s_own_memory() -> None:
    """A single row is copied too, so that a write that nobody counts does not reach a run that waits."""
    batches: list[Batch] = []

    class Keeping(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            batches.append(batch)
            return super().run(batch)

    states = fixed(1, 64, E)
    for switches in (Switches(), Switches(cached_conditioning=False)):
        p = pipeline(1, 2, Keeping(AffineDecoder()), switches=switches)
        made = request(conditions=[Condition(states)])
        p.submit(made)
        p.drain()
        owned = {each.data_ptr() for each in (states, made.context_latents)}
        for batch in batches:
            assert [(t.dtype, t.is_contiguous()) for t in batch.tensors().values()] == [
                *[(torch.float32, True)] * 3,
                (torch.bool, True),
                (torch.float32, True),
            ]
            assert not owned & {t.data_ptr() for t in batch.tensors().values()}
