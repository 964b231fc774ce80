"""What reaches guidance: the velocities of the rows, each its own, whatever layout and buffer they come in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Condition, Guidance, PipelineConfig, Request, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.noise import Purpose, noise
from harness.engine.slot import Slot
from harness.parity.compare import assert_identical, difference

T, D, E = 40, 4, 8
TWO_PASSES = Switches(fused_cfg=False)


def fixed(seed: int, frames: int, width: int) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def guided(seed: int, mode: str = "full") -> Request:
    guidance = Guidance(3.0, (Condition(fixed(9, 3, E)),), mode)
    return Request((Condition(fixed(seed, 5, E)),), fixed(7, T, 2 * D), seed, id=str(seed), guidance=guidance)


def finished(executor: Any, mode: str, **fields: Any) -> dict[str, Tensor]:
    with StreamPipeline(executor, PipelineConfig(depth=2, steps=4, **fields)) as pipeline:
        for seed in (1, 2):
            pipeline.submit(guided(seed, mode))
        return {str(f.id): f.latent for f in pipeline.drain()}


def after_one_tick(executor: Any) -> Slot:
    """A guided slot that was moved one step by two passes of one row each: both use the same buffers."""
    with StreamPipeline(executor, PipelineConfig(steps=4, switches=TWO_PASSES)) as pipeline:
        pipeline.submit(guided(1))
        pipeline.tick()
        slot = pipeline.slots[0]
    assert slot is not None
    return slot


def transposed(**inputs: Tensor) -> Tensor:
    return AffineDecoder()(**inputs).transpose(1, 2).contiguous().transpose(1, 2)


def in_bfloat16(**inputs: Tensor) -> Tensor:
    return AffineDecoder()(**inputs).to(torch.bfloat16)


def two_rows() -> tuple[Batch, Batch]:
    """A positive and a negative row with nothing in common but the latent."""

    def row(seed: int) -> Batch:
        mask, time = torch.ones(1, 5, dtype=torch.bool), torch.tensor([0.5])
        return Batch(fixed(1, T, D), time, fixed(seed, 5, E), mask, fixed(7, T, 2 * D))

    return row(2), row(9)


@pytest.mark.parametrize("mode", GuidanceMode)
def test_bits_do_not_depend_on_the_layout_a_decoder_returns(mode: str) -> None:
    assert_identical(
        finished(EagerExecutor(transposed), mode), finished(EagerExecutor(AffineDecoder()), mode), "latents"
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("max_rows", [2, 3, 8])
@pytest.mark.parametrize("mode", GuidanceMode)
def test_a_buffer_that_every_run_overwrites_gives_the_same_bits(mode: str, max_rows: int, fused: bool) -> None:
    expected = finished(EagerExecutor(AffineDecoder(), 8), mode)
    made = finished(StaticExecutor(AffineDecoder(), max_rows), mode, switches=Switches(fused_cfg=fused))
    assert_identical(made, expected, "latents")


def test_a_cast_that_is_a_view_loses_the_positive_velocity_to_the_negative_pass() -> None:
    """The defect itself: `.to(float32)` is no copy where the executor's output is float32 already."""
    positive, negative = two_rows()
    executor = StaticExecutor(AffineDecoder())
    v_pos = executor.run(positive).to(torch.float32)
    v_neg = executor.run(negative).to(torch.float32)
    assert_identical(v_pos, v_neg)
    assert v_pos.data_ptr() == v_neg.data_ptr()


def test_an_output_of_another_dtype_hides_the_defect() -> None:
    positive, negative = two_rows()
    executor = StaticExecutor(in_bfloat16)
    v_pos = executor.run(positive).to(torch.float32)
    v_neg = executor.run(negative).to(torch.float32)
    assert difference(v_pos, v_neg) is not None


def test_two_passes_over_one_output_buffer_guide_with_two_velocities() -> None:
    slot = after_one_tick(StaticExecutor(AffineDecoder()))
    assert slot.average is not None
    # The first step's average is the difference of the two velocities.
    assert slot.average.any(), "guidance was computed from equal velocities: the request runs unguided"
    assert_identical(slot.state(), after_one_tick(EagerExecutor(AffineDecoder())).state())


@pytest.mark.parametrize("frames", [1, T])
def test_the_channel_gain_scales_the_decoder_s_input_and_not_the_state(frames: int) -> None:
    gain, inputs, states = fixed(5, frames, D), [], []

    def still(**given: Tensor) -> Tensor:
        inputs.append(given["hidden_states"].clone())
        return torch.zeros_like(given["hidden_states"])

    with StreamPipeline(EagerExecutor(still), PipelineConfig(steps=2)) as pipeline:
        pipeline.set_channel_gain(gain)
        pipeline.submit(Request((Condition(fixed(1, 5, E)),), fixed(7, T, 2 * D), 1))
        states += [f.latent for f in pipeline.drain()]
    # The velocity is zero, so that the state stays the initial noise.
    assert_identical(states, [fixed(1, T, D)])
    assert_identical(inputs, [fixed(1, T, D) * gain] * 2)


def returning(dtype: torch.dtype, layout: str, *, later: torch.dtype | None = None) -> Any:
    """A decoder whose velocities have a dtype and a layout; with `later`, they are cast to another dtype at last."""

    def decoder(**inputs: Tensor) -> Tensor:
        v = AffineDecoder()(**inputs).to(dtype).to(later or dtype)
        wider = torch.cat([v, v + 1], dim=2)
        return {
            "plain": v,
            "transposed": v.transpose(1, 2).contiguous().transpose(1, 2),
            "a part": wider[..., : v.shape[2]],
            "rows last": v.permute(1, 2, 0).contiguous().permute(2, 0, 1),
            "every second": v.repeat_interleave(2, dim=1)[:, ::2],
        }[layout]

    return decoder


@pytest.mark.parametrize("layout", ["plain", "transposed", "a part", "rows last", "every second"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_velocity_of_any_dtype_and_layout_is_computed_with_in_contiguous_float32(
    dtype: torch.dtype, layout: str
) -> None:
    for mode in GuidanceMode:
        expected = finished(EagerExecutor(returning(dtype, "plain", later=torch.float32)), mode)
        assert {latent.dtype for latent in expected.values()} == {torch.float32}
        for max_rows in (2, 8):
            made = finished(EagerExecutor(returning(dtype, layout), max_rows), mode)
            assert_identical(made, expected, f"latents of {mode} in runs of {max_rows} rows")


@pytest.mark.parametrize("max_rows", [1, 2, 3])
@pytest.mark.parametrize("mode", GuidanceMode)
def test_velocities_of_many_runs_over_one_buffer_are_each_kept(mode: str, max_rows: int) -> None:
    """Also that of a run between the first and the last, which another one of the same rows follows."""
    ended = []
    for executor in (EagerExecutor(AffineDecoder(), 8), StaticExecutor(AffineDecoder(), max_rows)):
        with StreamPipeline(executor, PipelineConfig(depth=1, steps=3)) as pipeline:
            prompts = [Condition(fixed(seed, 5, E)) for seed in range(1, 7)]
            guidance = Guidance(3.0, prompts[3:], mode)
            pipeline.submit(Request(prompts[:3], fixed(7, T, 2 * D), 1, guidance=guidance))
            ended += [f.latent for f in pipeline.drain()]
    assert_identical(ended[1], ended[0])
