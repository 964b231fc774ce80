"""The TensorRT executor under a pipeline: the bits of the static executor, and a ring that failures do not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from torch import Tensor

from harness.engine import (
    BatchTooLarge,
    ExecutorError,
    Guidance,
    InvalidInput,
    Padding,
    PipelineConfig,
    StreamPipeline,
    Switches,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.errors import OutsideProfile
from harness.engine.executors import Executor, StaticExecutor, TensorRTExecutor
from harness.engine.switches import SWITCHES
from harness.parity.battery.scripts import Correct, Drain, Guided, Masked, Script, Submit, Text, Tick, Toward, Wavelets
from harness.parity.compare import assert_identical
from harness.parity.proofs.lockstep import acted, run
from tests.engine.builders import condition, fixed, request
from tests.engine.executors.tensorrt.fake_tensorrt import FakeRuntime, Made, plan, tiny
from tests.parity.strategies import CASES, Case

BUSY = Script(
    (
        Submit(1, guided=Guided(3.0, rescale=0.5), noise_injection=(0.0, 0.2)),
        Tick(),
        Submit(2, source=5, toward=Toward(6, strength=0.5)),
        Submit(3, texts=(Text(4, 9), Text(5, 2)), guided=Guided(2.0, mode="initialize"), masked=Masked(7, every=2)),
        Tick(),
        Correct(Wavelets()),
        Drain(),
    ),
    depth=3,
    frames=9,
    channels=8,
    encoder_dim=32,
)
"""An odd number of frames, for the transformer's patches of two."""


def engine(folder: Path, decoder: Any = None, made: Made | None = None, **options: Any) -> TensorRTExecutor:
    multiple = 2 if decoder is None else 1
    return TensorRTExecutor(plan(folder, made, frames_multiple=multiple), runtime=FakeRuntime(decoder), **options)


def affine(folder: Path, script: Script, max_rows: int = 8) -> TensorRTExecutor:
    made = Made(rows=(1, 1, max_rows), frames=(1, 8, 64), tokens=(1, 64, 512), channels=script.channels,
                encoder_dim=script.encoder_dim)  # fmt: skip
    return engine(folder, AffineDecoder(), made)


def latents(executor: Executor, script: Script, switches: Switches) -> list[Tensor]:
    with StreamPipeline(executor, script.config(switches)) as pipeline:
        return [finished.latent for finished in script.play(pipeline)]


@pytest.mark.parametrize("pin_rows", [None, 8])
@pytest.mark.parametrize("joined", [True, False])
def test_a_pipeline_has_the_bits_that_it_has_on_the_static_executor(
    tmp_path: Path, pin_rows: int | None, joined: bool
) -> None:
    switches = Switches(joined_stream=joined)
    made = latents(engine(tmp_path, pin_rows=pin_rows), BUSY, switches)
    static = latents(StaticExecutor(tiny(), pin_rows=pin_rows), BUSY, switches)
    assert len(made) == 3
    assert_identical(made, static, "latents")


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_off_equals_on_with_pinned_rows(tmp_path: Path, switch: str) -> None:
    done = run(BUSY, switch, executor=lambda: engine(tmp_path, pin_rows=8))
    assert acted(switch, done.first.stats(), done.second.stats())
    assert done.overlapping


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.no_cover
def test_off_equals_on_whatever_happens(tmp_path: Path, switch: str) -> None:
    counted: Counter[str] = Counter()

    @settings(max_examples=20)
    @given(case=CASES)
    def off_equals_on(case: Case) -> None:
        def make() -> TensorRTExecutor:
            return affine(tmp_path, case.script, case.max_rows)

        done = run(case.script, switch, executor=make, others=case.others)
        counted["acted"] += acted(switch, done.first.stats(), done.second.stats())

    off_equals_on()
    assert counted["acted"] >= 4, f"of 20 examples {dict(counted)}: that says little"


@pytest.mark.parametrize(
    "most", [Made(rows=(1, 2, 4)), Made(most_rows={"timestep": 4}), Made(rows=(4,) * 3, static=True)]
)
def test_a_ring_is_no_deeper_than_the_engine_has_rows(tmp_path: Path, most: Made) -> None:
    with StreamPipeline(engine(tmp_path, made=most), PipelineConfig(depth=4)) as pipeline:
        assert pipeline.max_depth == 4
        with pytest.raises(InvalidInput, match="at most max_depth = 4"):
            pipeline.set_depth(5)
    with pytest.raises(InvalidInput, match="at most max_depth = 4"):
        StreamPipeline(engine(tmp_path, made=most), PipelineConfig(depth=5))


UNMASKED = Made(channels=4, encoder_dim=8, frames=(1, 6, 64), masked=False)


@pytest.mark.parametrize("name", ["conditions", "negatives"])
def test_without_a_mask_conditions_of_unequal_lengths_are_refused(tmp_path: Path, name: str) -> None:
    with StreamPipeline(engine(tmp_path, AffineDecoder(), UNMASKED), PipelineConfig(depth=2, steps=3)) as pipeline:
        pipeline.submit(request(1))
        before = pipeline.stats()
        unequal = [condition(2, 5), condition(3, 4)]
        fields = {"conditions": unequal} if name == "conditions" else {"guidance": Guidance(2.0, unequal)}
        with pytest.raises(InvalidInput, match="the executor takes no mask and would attend the padding"):
            pipeline.submit(request(2, **fields))
        assert pipeline.stats() == before


def test_without_a_mask_equal_lengths_run_and_zeros_may_be_asked_for(tmp_path: Path) -> None:
    class Unmasked:
        takes_mask = False

        def __call__(self, **inputs: Any) -> Tensor:
            states = inputs["encoder_hidden_states"]
            return AffineDecoder()(**inputs, encoder_mask=states.new_ones(states.shape[:2]).bool())

    for padding in (Padding.MASK, Padding.ZEROS):
        config = PipelineConfig(depth=2, steps=3, padding=padding)
        made = []
        for executor in (engine(tmp_path, Unmasked(), UNMASKED), StaticExecutor(Unmasked())):
            with StreamPipeline(executor, config) as pipeline:
                pipeline.submit(request(1, tokens=5))
                pipeline.submit(request(2, tokens=3 if padding is Padding.ZEROS else 5))
                made.append([finished.latent for finished in pipeline.drain()])
        assert_identical(made[0], made[1], "latents")


def broken(executor: TensorRTExecutor) -> dict[str, Any]:
    runtime: Any = executor._runtime
    answers: dict[str, Any] = runtime.broken
    return answers


@pytest.mark.parametrize(
    "call", ["set_input_shape", "set_tensor_address", "infer_shapes", "get_tensor_shape", "execute_async_v3"]
)
@pytest.mark.parametrize("joined", [True, False])
def test_a_tick_whose_engine_refuses_changes_nothing_and_can_be_run_again(
    tmp_path: Path, call: str, joined: bool
) -> None:
    config = PipelineConfig(depth=2, steps=3, switches=Switches(joined_stream=joined))

    def drained(*, refused: bool) -> list[Tensor]:
        made = Made(channels=4, encoder_dim=8, frames=(1, 6, 64))
        executor = engine(tmp_path, AffineDecoder(), made)
        with StreamPipeline(executor, config) as pipeline:
            pipeline.submit(request(1))
            pipeline.tick()
            pipeline.submit(request(2))
            if refused:
                before = pipeline.stats(), pipeline.slots
                broken(executor)[call] = RuntimeError("no")
                with pytest.raises(ExecutorError, match=call):
                    pipeline.tick()
                broken(executor).clear()
                assert (pipeline.stats(), pipeline.slots) == before
            return [finished.latent for finished in pipeline.drain()]

    assert_identical(drained(refused=True), drained(refused=False), "latents")


@pytest.mark.parametrize(
    ("frames", "tokens", "says"),
    [
        (2, 5, "frames T: got 2, the compiled decoder takes 4 to 8"),
        (6, 65, "tokens L: got 128, the compiled decoder takes 1 to 64"),
    ],
)
def test_a_request_outside_the_profile_leaves_the_ring_as_it_was(
    tmp_path: Path, frames: int, tokens: int, says: str
) -> None:
    executor = engine(tmp_path, AffineDecoder(), Made(channels=4, encoder_dim=8, frames=(4, 6, 8)))
    with StreamPipeline(executor, PipelineConfig(depth=2, steps=3)) as pipeline:
        pipeline.submit(request(1, frames=frames, tokens=tokens))
        before = pipeline.stats(), pipeline.slots
        with pytest.raises(OutsideProfile, match=says):
            pipeline.tick()
        assert (pipeline.stats(), pipeline.slots, executor.shapes) == (*before, 0)


def test_more_rows_than_the_ceiling_in_one_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = engine(tmp_path, AffineDecoder(), Made(rows=(1, 2, 2), channels=4, encoder_dim=8, frames=(1, 6, 8)))
    with StreamPipeline(executor, PipelineConfig(depth=2, steps=3)) as pipeline:
        for seed in (1, 2):
            pipeline.submit(request(seed, guidance=Guidance(2.0, [condition(9)])))
        before = pipeline.stats(), pipeline.slots
        monkeypatch.setattr("harness.engine.plan.split_runs", together)
        with pytest.raises(BatchTooLarge, match="4 rows: the compiled decoder takes at most 2"):
            pipeline.tick()
        assert (pipeline.stats(), pipeline.slots, executor.shapes) == (*before, 0)


def together(positives: Any, negatives: Any, max_rows: int, *, fused: bool) -> tuple[tuple[Any, ...], ...]:
    return ((*positives, *negatives),)


def test_a_pipeline_goes_on_with_a_swapped_engine(tmp_path: Path) -> None:
    made = Made(channels=4, encoder_dim=8, frames=(1, 6, 64))
    executor = engine(tmp_path, AffineDecoder(), made)

    def drained(swap: Callable[[], None]) -> list[Tensor]:
        with StreamPipeline(executor, PipelineConfig(depth=2, steps=3)) as pipeline:
            pipeline.submit(request(1, x0_target=None, context_latents=fixed(7, 6, 8)))
            pipeline.tick()
            swap()
            return [finished.latent for finished in pipeline.drain()]

    alone = drained(lambda: None)
    swapped = drained(lambda: executor.swap(plan(tmp_path, made, "other.plan", frames_multiple=1)))
    assert_identical(swapped, alone, "latents")
