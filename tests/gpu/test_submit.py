"""A submission makes no host wait, nor does a control, whatever is new in it; what is wrong is found later, by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from harness.engine import (
    DCW,
    Condition,
    FailReason,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    Session,
    StreamPipeline,
    X0Target,
    transfer,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.compare import assert_identical
from tests.engine.builders import D, E, T, condition, fixed
from tests.gpu.waits import waiting_is_an_error

CUDA = "cuda"
SLEEP = 100_000_000
"""Clock cycles, some fifty milliseconds: far longer than the host takes for a tick."""

Fields = dict[str, Any]


def gpu(seed: int, *shape: int) -> Tensor:
    return fixed(seed, *shape).to(CUDA)


def prompt(seed: int, tokens: int = 5) -> Condition:
    return Condition(condition(seed, tokens).encoder_hidden_states.to(CUDA))


def ramp(high: float = 1.0) -> Tensor:
    return torch.linspace(0, high, T)


NEW: dict[str, Callable[[int], Fields]] = {
    "plain": lambda seed: {},
    "guided": lambda seed: {"guidance": Guidance(3.0, [prompt(seed + 50, 3)], rescale=0.5, momentum=ramp())},
    "initialize": lambda seed: {"guidance": Guidance(ramp(3.0), [prompt(seed + 50, 3)], mode="initialize")},
    "self": lambda seed: {"guidance": Guidance(2.0, mode="self")},
    "masked": lambda seed: {"latent_mask": LatentMask(ramp(), gpu(seed + 60))},
    "targeted": lambda seed: {"x0_target": X0Target(gpu(seed + 70), strength=ramp(0.5))},
    "from a source": lambda seed: {"source": gpu(seed + 80), "denoise": 0.6, "noise_injection": ramp(0.1)},
    "by a curve": lambda seed: {"source": gpu(seed + 80), "sde_curve": ramp(), "velocity_scale": 0.9},
    "several": lambda seed: {"conditions": [prompt(seed), Condition(prompt(seed + 1).encoder_hidden_states,
                                                                    temporal_weight=ramp())]},
}  # fmt: skip


def request(seed: int, name: str = "plain", **fields: Any) -> Request:
    """A request whose tensors are all new."""
    given = {"conditions": [prompt(seed)], "context_latents": gpu(seed + 90, T, 2 * D), **NEW[name](seed), **fields}
    return Request(seed=seed, **given)


def ring(**config: Any) -> StreamPipeline:
    return StreamPipeline(EagerExecutor(AffineDecoder(E)), PipelineConfig(**{"depth": 3, "steps": 4, **config}))


def made(seeds: range, name: str) -> list[Callable[[], Request]]:
    """Requests whose tensors lie on the GPU before anybody watches."""
    built = []
    for seed in seeds:
        tensors = NEW[name](seed), [prompt(seed)], gpu(seed + 90, T, 2 * D)

        def build(seed: int = seed, tensors: Any = tensors) -> Request:
            fields, conditions, context = tensors
            return Request(**{"conditions": conditions, "context_latents": context, "seed": seed, **fields})

        built.append(build)
    torch.cuda.synchronize()
    return built


@pytest.mark.parametrize("name", NEW)
def test_neither_record_nor_submission_nor_tick_waits_whatever_is_new(name: str) -> None:
    pipeline, ended = ring(dcw=DCW(), depth=4), 0
    for watch, seeds in ((nullcontext, range(6)), (waiting_is_an_error, range(6, 14))):
        for build in made(seeds, name):
            with watch():
                pipeline.submit(build())
                ended += len(pipeline.tick())
    assert ended + len(pipeline.drain()) == 14


def test_a_stream_s_whole_tick_does_not_wait() -> None:
    session = Session(AffineDecoder(E))
    config = PipelineConfig(depth=3, steps=4, dcw=DCW())
    stream = session.stream([prompt(1)], gpu(2, T, 2 * D), config=config, source=gpu(3))
    for watch, seeds in ((nullcontext, range(6)), (waiting_is_an_error, range(6, 20))):
        for seed in seeds:
            with watch():
                stream.tick(seed=seed, denoise=0.5 + seed / 100, guidance=2.0 + seed / 10)


CONTROLS: dict[str, Callable[[StreamPipeline, float], None]] = {
    **{
        name: lambda p, value, name=name: p.set_shared_curve(name, value)  # type: ignore[misc]
        for name in ("velocity_scale", "noise_injection", "guidance_scale", "momentum", "rescale")
    },
    "a curve of the host": lambda p, value: p.set_shared_curve("velocity_scale", torch.full((T,), value)),
    "a gain of the host": lambda p, value: p.set_channel_gain(torch.full((1, 1, D), value)),
    "wavelets": lambda p, value: p.set_dcw(DCW(a=value, b=torch.linspace(0, value, T))),
    "depth": lambda p, value: p.set_depth(2 + int(10 * value) % 2),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_no_control_waits(name: str) -> None:
    pipeline = ring(steps=8)
    for build in made(range(3), "guided"):
        pipeline.submit(build())
    for watch in (nullcontext, waiting_is_an_error):
        for step in range(3):
            with watch():
                CONTROLS[name](pipeline, 0.1 + step / 10)
                pipeline.tick()


def test_a_curve_a_mask_and_a_gain_on_the_gpu_are_read_once_and_counted() -> None:
    pipeline = ring()
    pipeline.submit(request(0))
    curve, mask, gain = ramp().to(CUDA), torch.tensor([[1, 0, 1, 1, 0]], device=CUDA), torch.ones(1, 1, D, device=CUDA)
    states, context = prompt(1).encoder_hidden_states, gpu(5, T, 2 * D)
    before = Counter(transfer.waits())
    for watch in (nullcontext, waiting_is_an_error):
        with watch():
            pipeline.submit(Request([Condition(states, mask)], context, 1, velocity_scale=curve))
            pipeline.set_channel_gain(gain)
            pipeline.tick()
    counted = Counter(transfer.waits()) - before
    assert counted == {"a curve": 2, "a mask": 1}


FIELDS: dict[str, Callable[[Tensor], Fields]] = {
    "context_latents": lambda bad: {"context_latents": torch.cat([bad, bad], dim=2)},
    "source": lambda bad: {"source": bad},
    "x0_target.latent": lambda bad: {"x0_target": X0Target(bad, 0.5)},
    "latent_mask.original": lambda bad: {"latent_mask": LatentMask(0.5, bad)},
    "conditions[0].encoder_hidden_states": lambda bad: {"conditions": [Condition(bad[:, :3, :1].expand(1, 3, E))]},
    "guidance.negatives[0].encoder_hidden_states": lambda bad: {
        "guidance": Guidance(2.0, [Condition(bad[:, :3, :1].expand(1, 3, E))])
    },
}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", FIELDS)
def test_a_value_that_is_not_finite_fails_its_request_at_its_tick_and_no_other(field: str, value: float) -> None:
    """A GPU that lies far behind changes neither the tick nor the others' bits."""
    bad = gpu(4)
    bad[0, 0, 0] = value
    latents = []
    for sleeps in (0, SLEEP):
        pipeline = ring(steps=8, depth=2)
        for each in (request(1, "guided", id="good"), request(2, id="bad", **FIELDS[field](bad))):
            torch.cuda._sleep(sleeps + 1)
            pipeline.submit(each)
        told = []
        for _ in range(8):
            torch.cuda._sleep(sleeps + 1)
            told.append(pipeline.tick())
        assert [(len(each), len(each.failed)) for each in told] == [*[(0, 0)] * 3, (0, 1), *[(0, 0)] * 3, (1, 0)]
        (failed,) = told[3].failed
        assert (failed.id, failed.reason, failed.step) == ("bad", FailReason.INPUT_NOT_FINITE, 3)
        assert failed.detail.startswith(f"{field}: values from ")
        latents.append(told[7][0].latent)
    alone = ring(steps=8, depth=2)
    alone.submit(request(1, "guided", id="good"))
    (expected,) = alone.drain()
    assert_identical(latents, [expected.latent] * 2)


@pytest.mark.parametrize("name", NEW)
def test_a_gpu_that_lies_behind_gets_the_bits_that_were_meant(name: str) -> None:
    """A host block that were written to again while its copy waits would be seen here."""
    latents = []
    for sleeps in (0, SLEEP):
        pipeline = ring(max_ticks_ahead=8)
        ended = []
        for build in made(range(10), name):
            torch.cuda._sleep(sleeps // 4 + 1)
            pipeline.submit(build())
            ended += pipeline.tick()
        ended += pipeline.drain()
        latents.append([each.latent for each in ended])
    assert len(latents[0]) == 10
    assert_identical(latents[1], latents[0])


@pytest.mark.parametrize("name", ["guided", "masked", "by a curve"])
def test_submissions_and_ticks_may_run_on_any_stream(name: str) -> None:
    """Each stream is held up before it is used, so what is not ordered by an event comes too early."""
    given = [request(seed, name) for seed in range(4)]
    plain, expected = ring(), []
    for each in given:
        plain.submit(each)
        expected += plain.tick()
    expected += plain.drain()
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]
    pipeline, ended = ring(), []
    for seed in range(4):
        with torch.cuda.stream(streams[seed % 3]):
            torch.cuda._sleep(SLEEP // 4)
            pipeline.submit(copied(given[seed]))
        with torch.cuda.stream(streams[(seed + 1) % 3]):
            ended += pipeline.tick()
    with torch.cuda.stream(streams[2]):
        ended += pipeline.drain()
    streams[2].synchronize()
    kept = [each.latent for each in ended]
    torch.cuda.synchronize()
    assert_identical(kept, [each.latent for each in expected])


def copied(given: Request) -> Request:
    """The request with tensors that the current stream makes, when it comes to it; the host does not wait."""

    def again(condition: Condition) -> Condition:
        return replace(condition, encoder_hidden_states=condition.encoder_hidden_states.clone())

    fields: Fields = {"conditions": [again(each) for each in given.conditions]}
    if given.guidance is not None:
        fields["guidance"] = replace(given.guidance, negatives=[again(each) for each in given.negatives])
    if given.latent_mask is not None:
        fields["latent_mask"] = replace(given.latent_mask, original=given.latent_mask.original.clone())
    if given.source is not None:
        fields["source"] = given.source.clone()
    return replace(given, context_latents=given.context_latents.clone(), **fields)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_request_that_ends_early_is_waited_for_before_its_latent_is_handed_out(steps: int) -> None:
    """Otherwise the answer that an earlier request left in the host's memory would be read."""
    pipeline = ring(steps=steps)
    for seed in range(4):
        pipeline.submit(request(seed, "from a source"))
        assert len(pipeline.drain()) == 1
    spoilt = gpu(4)
    spoilt[0, 0, 0] = math.nan
    given, cause = request(9, id="bad", source=spoilt), "a value that was not there yet"
    torch.cuda.synchronize()
    before = transfer.waits().get(cause, 0)
    torch.cuda._sleep(SLEEP)
    pipeline.submit(given)
    told = [pipeline.tick() for _ in range(steps)]
    assert [(len(each), len(each.failed)) for each in told] == [*[(0, 0)] * (steps - 1), (0, 1)]
    assert transfer.waits()[cause] == before + 1


def test_a_control_set_on_another_stream_is_there_when_the_tick_reads_it() -> None:
    latents = []
    other = torch.cuda.Stream()
    for apart in (False, True):
        pipeline = ring(steps=4)
        pipeline.submit(request(1))
        pipeline.tick()
        with torch.cuda.stream(other) if apart else nullcontext():
            torch.cuda._sleep(SLEEP if apart else 1)
            pipeline.set_shared_curve("velocity_scale", ramp(0.7))
        (finished,) = pipeline.drain()
        latents.append(finished.latent.clone())
        torch.cuda.synchronize()
    assert_identical(latents[1], latents[0])


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_host_is_never_further_ahead_than_asked(ahead: int) -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        torch.cuda._sleep(SLEEP)
        done = torch.cuda.Event()
        done.record()
        ends.append(done)
        return AffineDecoder(E)(**inputs)

    ends: list[Any] = []
    config = PipelineConfig(depth=3, steps=8, max_ticks_ahead=ahead)
    pipeline = StreamPipeline(EagerExecutor(decoder), config)
    pipeline.submit(request(1))
    behind = []
    for _ in range(8):
        pipeline.tick()
        behind.append(sum(not each.query() for each in ends))
    assert max(behind) == ahead
    assert pipeline.stats().waits >= 8 - ahead - 1
    torch.cuda.synchronize()


def test_after_a_warm_up_nothing_pinned_is_allocated_and_nothing_synchronizes() -> None:
    pipeline = ring(dcw=DCW(), depth=3, steps=4)
    for build in made(range(8), "guided"):
        pipeline.submit(build())
        pipeline.tick()
    torch.cuda.synchronize()
    builds, blocks = made(range(20, 32), "guided"), transfer.BLOCKS.made
    allocated = torch.cuda.host_memory_stats()["num_host_alloc"]
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        for build in builds:
            pipeline.submit(build())
            pipeline.tick()
    names = Counter(each.name for each in seen.events() if each.name.startswith("cuda"))
    waits = {name: count for name, count in names.items() if "Synchronize" in name or "HostAlloc" in name}
    # The profiler itself waits for the device when it ends.
    assert set(waits) <= {"cudaDeviceSynchronize", "cudaEventSynchronize"}, waits
    assert waits.get("cudaEventSynchronize", 0) <= pipeline.stats().waits
    assert waits.get("cudaDeviceSynchronize", 0) <= 2
    assert names["cudaLaunchKernel"] > 0
    assert torch.cuda.host_memory_stats()["num_host_alloc"] == allocated
    assert transfer.BLOCKS.made == blocks


def test_the_current_stream_is_the_one_that_torch_names() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    streams = [torch.cuda.current_stream(device), torch.cuda.Stream(device), torch.cuda.Stream(device, priority=-1)]
    for _ in range(2):
        for stream in streams:
            with torch.cuda.stream(stream):
                assert transfer.current_stream(device) == stream == torch.cuda.current_stream()
                assert transfer.current_stream(torch.device("cuda")) is transfer.current_stream(device)
    assert transfer.current_stream(device) == streams[0]
