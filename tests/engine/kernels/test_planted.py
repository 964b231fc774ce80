"""The form of a GPU, computed on the CPU, where only an unusual input tells it from a near form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Finished, Guidance, LatentMask, PipelineConfig, Request, StreamPipeline, kernels
from harness.engine.decoders import AffineDecoder
from harness.engine.execute import Stage
from harness.engine.executors import EagerExecutor
from harness.engine.kernels import Corrected, plain
from harness.engine.wavelet import DCWMode
from harness.parity.compare import assert_identical, identical
from harness.parity.proofs import oracle
from tests.engine.builders import condition, fixed, request
from tests.engine.kernels.slots import drawing, guided, scalar


@pytest.fixture(name="as_on_a_gpu")
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on the CPU what a GPU computes."""
    monkeypatch.setattr(kernels, "here", lambda _device: True)
    monkeypatch.setattr(kernels, "_compiles", lambda: False)
    yield


def in_a_ring(asked: Request, config: PipelineConfig) -> Tensor:
    """The latent of a request that is alone in a ring."""
    with StreamPipeline(EagerExecutor(AffineDecoder()), config) as pipeline:
        pipeline.submit(asked)
        (finished,) = pipeline.drain()
    assert isinstance(finished, Finished)
    return finished.latent


def alone(asked: Request, config: PipelineConfig) -> Tensor:
    """The latent of the same request by the oracle."""
    return oracle.run(EagerExecutor(AffineDecoder()), asked, config, 64)


def test_a_negative_eta_turns_the_parallel_part_around() -> None:
    """With the negative velocity at 0, the whole direction is parallel: `v + (2 - 1) * -1 * v` is 0."""
    drawn = drawing("cpu")
    zero = torch.zeros(1, 40, 8)
    slot = replace(guided(drawn, 40, 8, "plain"), v_neg=zero, average=zero, scale=scalar(2.0, "cpu"))
    ((velocity, _average),) = plain.guide([replace(slot, norm_threshold=None, eta=-1.0)])
    assert torch.allclose(velocity, zero, atol=1e-6)


@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_the_limit_of_a_norm_holds_where_float32_cannot_hold_the_squares(size: float) -> None:
    """The direction, orthogonal to the velocity, is cut to a tenth of its norm."""
    v_pos, direction = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [size]]])
    zero, one = torch.zeros(1, 2, 1), scalar(1.0, "cpu")
    slot = kernels.Guided(v_pos * size, v_pos * size - direction, zero, 2 * one, one, None, 0.1 * size, 0.0)
    ((velocity, average),) = plain.guide([slot])
    assert_identical(average, direction)
    assert torch.allclose(velocity / size, torch.tensor([[[1.0], [0.1]]]))


def test_the_rescale_s_norm_holds_where_float32_cannot_hold_the_squares() -> None:
    """The guided velocity is `(size, size)`, whose norm a rescale of 1 brings back to `size`."""
    size = 1e20
    v_pos, direction = torch.tensor([[[size], [0.0]]]), torch.tensor([[[0.0], [size]]])
    zero, one = torch.zeros(1, 2, 1), scalar(1.0, "cpu")
    slot = kernels.Guided(v_pos, v_pos - direction, zero, 2 * one, one, one, None, 0.0)
    ((velocity, _average),) = plain.guide([slot])
    assert torch.allclose(velocity / size, torch.full((1, 2, 1), 0.5**0.5))


@pytest.mark.parametrize("band", ["low", "high"])
def test_the_gain_of_a_band_is_a_product_in_float32(band: str) -> None:
    """One of two frames is 2**24 away from its clean state, so that the gain's last bits reach the result."""
    stepped, zero, scaler = torch.tensor([[[0.0], [2.0**24]]]), torch.zeros(1, 2, 1), scalar(0.1, "cpu")
    low, high = (scaler, None) if band == "low" else (None, scaler)
    (found,) = plain.correct([Corrected(stepped, zero, zero, 0.1, low, 0.1, high, 0.1, None)])
    gain = float((torch.tensor(0.1) * 0.1).double())
    assert gain != 0.1 * float(torch.tensor(0.1))
    moved = gain * 2.0**23
    assert_identical(found.flatten(), torch.tensor([moved if band == "low" else -moved, 2.0**24 + moved]))


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("mode", [DCWMode.HIGH, DCWMode.DOUBLE, DCWMode.PIX])
@pytest.mark.parametrize("integrator", ["foreach", "per_slot"])
def test_a_step_that_starts_at_time_0_is_not_corrected(mode: DCWMode, integrator: str) -> None:
    """A mask between 0 and 1 moves the state even there, so that a correction would act."""
    source = fixed(3)
    mask = LatentMask(torch.linspace(0.1, 0.9, source.shape[1]), fixed(4))
    asked = request(source=source, denoise=0.0, latent_mask=mask)
    without, dcw = PipelineConfig(steps=3, depth=1), DCW(mode, 0.3, 0.3)
    config = replace(without, dcw=dcw, switches=replace(without.switches, integrator=integrator))
    assert_identical(in_a_ring(asked, config), alone(asked, config))
    assert_identical(in_a_ring(asked, config), in_a_ring(asked, without), "without a correction")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("frames", [4, 5])
@pytest.mark.parametrize("mode", DCWMode)
def test_a_curve_of_the_correction_covers_a_last_frame_without_partner(mode: DCWMode, frames: int) -> None:
    asked = request(frames=frames)
    config = PipelineConfig(steps=3, depth=1, dcw=DCW(mode, torch.linspace(0.0, 0.4, 7), torch.linspace(0.4, 0.1, 6)))
    assert_identical(in_a_ring(asked, config), alone(asked, config))


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_rescale_of_1_is_in_force() -> None:
    config = PipelineConfig(steps=3, depth=1)
    latents = []
    for rescale in (1.0, None):
        asked = request(guidance=Guidance(4.0, [condition(9)], rescale=rescale))
        assert_identical(in_a_ring(asked, config), alone(asked, config))
        latents.append(alone(asked, config))
    assert not identical(*latents)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_an_observer_is_told_of_slots_in_their_order_though_guided_ones_are_combined_first() -> None:
    seen: list[int] = []

    def observe(stage: Stage, index: int, name: str, _tensor: Tensor) -> None:
        if stage is Stage.COMBINE and name == "velocity":
            seen.append(index)

    with StreamPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(steps=2, depth=2), observe=observe) as pipeline:
        pipeline.submit(request(1))
        pipeline.submit(request(2, guidance=Guidance(3.0, [condition(9)])))
        pipeline.tick()
    assert seen == [0, 1]
