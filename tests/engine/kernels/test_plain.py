"""The plain twin of the kernels: the order of its sums, its distance from float64, and a ring that computes with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from harness import registry
from harness.engine import kernels
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.kernels import plain
from harness.engine.wavelet import DCWMode
from harness.parity.battery.scenarios import SCENARIOS, executor
from harness.parity.compare import assert_identical, identical
from tests.engine.kernels.slots import (
    FORMS,
    SIZES,
    Drawn,
    by_torch,
    corrected,
    drawing,
    error,
    exact_haar,
    guided,
    wide,
)
from tests.parity.journal import JournaledPipeline
from tests.parity.proofs.test_oracle import journaled
from tests.parity.strategies import Case, cases

PLACES = [(frames, channels) for frames, channels in SIZES if channels <= 20]


@pytest.fixture(name="drawn")
def _drawn() -> Drawn:
    return drawing("cpu")


@pytest.fixture(name="as_on_a_gpu")
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on the CPU what a GPU computes."""
    monkeypatch.setattr(kernels, "here", lambda _device: True)
    monkeypatch.setattr(kernels, "_compiles", lambda: False)
    yield


def summed(column: list[float]) -> float:
    """The specified order, in Python's own float64."""
    sums = [0.0] * 128
    for frame, value in enumerate(column):
        sums[frame % 128] += value
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [sums[i] + sums[i + half] for i in range(half)]
    return sums[0]


@pytest.mark.parametrize("frames", [1, 2, 127, 128, 129, 750])
def test_a_sum_over_frames_has_the_specified_order(frames: int, drawn: Drawn) -> None:
    values = drawn(1, frames, 3).double() * torch.logspace(-9, 9, frames, dtype=torch.float64)[None, :, None]
    expected = [summed(values[0, :, channel].tolist()) for channel in range(3)]
    assert plain.total(values).flatten().tolist() == expected
    assert plain.total(values).shape == (1, 1, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("frames", "channels"), PLACES)
def test_guidance_is_at_least_as_near_to_float64_as_torch_s_form(
    drawn: Drawn, frames: int, channels: int, form: str
) -> None:
    ours, torchs = 0.0, 0.0
    for _ in range(16):
        slot = guided(drawn, frames, channels, form)
        ((velocity, average),) = plain.guide([slot])
        by_operators, running = by_torch(slot)
        assert_identical(average, running)
        exact, _average = by_torch(wide(slot))
        ours += error(velocity, exact)
        torchs += error(by_operators, exact)
        assert error(velocity, exact) < 1e-5
    # Both round to float32 at the same places; what differs is the norms' own error.
    assert ours <= 1.02 * torchs


def test_a_limit_that_no_channel_reaches_changes_nothing(drawn: Drawn) -> None:
    slot = replace(guided(drawn, 40, 8, "plain"), norm_threshold=1e6)
    assert_identical(plain.guide([slot]), plain.guide([replace(slot, norm_threshold=None)]), "unlimited")


def test_channels_and_slots_are_guided_apart(drawn: Drawn) -> None:
    slots = [guided(drawn, 40, 8, form) for form in FORMS]
    together = plain.guide(slots)
    assert_identical(together, [plain.guide([slot])[0] for slot in slots], "slots")
    slots[1].v_pos[0, 7, 3] = torch.nan
    made = plain.guide(slots)
    assert_identical([made[0], made[2]], [together[0], together[2]], "other slots")
    assert made[1][0].isnan().any(1).flatten().tolist() == [channel == 3 for channel in range(8)]
    assert made[1][0][0, :, 3].isnan().all()


def test_a_velocity_of_zeros_divides_by_nothing(drawn: Drawn) -> None:
    zero = torch.zeros(1, 40, 8)
    slot = replace(guided(drawn, 40, 8, "free"), v_pos=zero, v_neg=zero, average=zero)
    assert_identical(plain.guide([slot])[0], (zero, zero), "zeros")


@pytest.mark.parametrize("curves", [False, True])
@pytest.mark.parametrize("mode", DCWMode)
@pytest.mark.parametrize(("frames", "channels"), PLACES)
def test_the_correction_is_torch_s_form_but_for_rounding(
    drawn: Drawn, frames: int, channels: int, mode: DCWMode, curves: bool
) -> None:
    slot, torchs = corrected(drawn, frames, channels, mode, curves=curves)
    (found,) = plain.correct([slot])
    assert found.dtype == torch.float32
    assert float((found - torchs).abs().max()) < 2e-6
    if mode is DCWMode.PIX:
        assert_identical(found, torchs)


@pytest.mark.parametrize("mode", [DCWMode.LOW, DCWMode.HIGH, DCWMode.DOUBLE])
def test_the_correction_is_twice_as_near_to_float64_as_torch_s_form(drawn: Drawn, mode: DCWMode) -> None:
    ours, torchs = 0.0, 0.0
    for _ in range(16):
        slot, by_operators = corrected(drawn, 301, 20, mode, curves=True)
        ours += error(plain.correct([slot])[0], exact_haar(slot))
        torchs += error(by_operators, exact_haar(slot))
    assert 2 * ours < torchs


def test_gains_of_zero_keep_the_bits(drawn: Drawn) -> None:
    slot, _torchs = corrected(drawn, 41, 8, DCWMode.DOUBLE, curves=False)
    kept = replace(slot, low_factor=0.0, high_factor=0.0)
    assert_identical(plain.correct([kept]), [slot.stepped], "kept")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_ring_that_computes_as_on_a_gpu_makes_the_oracle_s_bits(name: str) -> None:
    journaled(name).assert_oracle_agrees(executor(SCENARIOS[name]))


@pytest.mark.usefixtures("as_on_a_gpu")
@given(case=cases(rewrites=False))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_around_a_request_its_bits_are_those_it_has_alone_in_the_form_of_a_gpu(case: Case) -> None:
    pipeline = JournaledPipeline(
        registry.executor("eager", AffineDecoder(), case.max_rows, case.pin_rows), case.script.config(case.others)
    )
    case.script.play(pipeline)
    pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1))


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", [name for name in SCENARIOS if "dcw" in name or name == "cfg_curve_rescale"])
def test_guidance_and_correction_take_the_form_of_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bits are others than torch's, so that a form that is not taken shows."""
    on_a_gpu = [finished.latent for finished, _ended in journaled(name).finished]
    monkeypatch.setattr(kernels, "here", lambda _device: False)
    on_a_cpu = [finished.latent for finished, _ended in journaled(name).finished]
    assert any(not identical(a, b) for a, b in zip(on_a_gpu, on_a_cpu, strict=True))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(on_a_gpu, on_a_cpu, strict=True))
