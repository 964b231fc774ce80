"""Guidance and the Haar correction by kernels: the bits of the plain twin, whoever shares a launch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from harness.engine import DCW, Guidance, PipelineConfig, StreamPipeline, Switches, kernels
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.wavelet import DCWMode
from harness.parity.compare import assert_identical
from harness.rails.bench.steady import launched
from tests.engine.builders import E, T
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
from tests.gpu.test_submit import prompt, request

CUDA = torch.device("cuda:0")


@pytest.fixture(name="drawn")
def _drawn() -> Drawn:
    return drawing(CUDA)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("frames", "channels"), SIZES)
def test_guidance_has_the_bits_of_its_plain_twin(drawn: Drawn, frames: int, channels: int, form: str) -> None:
    for _ in range(8):
        slot = guided(drawn, frames, channels, form)
        assert_identical(kernels.guide([slot]), kernels.plain.guide([slot]), form)


@pytest.mark.parametrize("curves", [False, True])
@pytest.mark.parametrize("mode", DCWMode)
@pytest.mark.parametrize(("frames", "channels"), SIZES)
def test_the_correction_has_the_bits_of_its_plain_twin(
    drawn: Drawn, frames: int, channels: int, mode: DCWMode, curves: bool
) -> None:
    for _ in range(4):
        slot, _torchs = corrected(drawn, frames, channels, mode, curves=curves)
        assert_identical(kernels.correct([slot]), kernels.plain.correct([slot]), mode.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 1e-6, 1e18, float("inf"), float("nan")])
def test_extreme_velocities_have_the_bits_of_the_plain_twin(drawn: Drawn, value: float, form: str) -> None:
    slot = guided(drawn, 40, 8, form)
    for name in ("v_pos", "v_neg", "average"):
        changed = replace(slot, **{name: getattr(slot, name).clone()})
        getattr(changed, name)[0, ::3, ::2] = value
        assert_identical(kernels.guide([changed]), kernels.plain.guide([changed]), f"{name} {value}")
    whole = torch.full_like(slot.v_pos, value)
    every = replace(slot, v_pos=whole, v_neg=whole, average=whole)
    assert_identical(kernels.guide([every]), kernels.plain.guide([every]), f"all {value}")


@pytest.mark.parametrize("kind", ["guide", "correct"])
def test_what_is_there_is_near_to_float64(drawn: Drawn, kind: str) -> None:
    if kind == "guide":
        slot = guided(drawn, 750, 64, "free")
        assert error(kernels.guide([slot])[0][0], by_torch(wide(slot))[0]) < 3e-7
    else:
        step, _torchs = corrected(drawn, 750, 64, DCWMode.DOUBLE, curves=True)
        assert error(kernels.correct([step])[0], exact_haar(step)) < 6e-8


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 750, 1500])
@pytest.mark.parametrize("channels", [4, 8, 64])
def test_a_slot_has_the_same_bits_alone_and_with_any_others(drawn: Drawn, frames: int, channels: int) -> None:
    slots = [guided(drawn, frames, channels, FORMS[n % 3]) for n in range(8)]
    steps = [corrected(drawn, frames, channels, list(DCWMode)[n % 4], curves=n % 2 == 0)[0] for n in range(8)]
    alone = [kernels.guide([slot])[0] for slot in slots]
    single = [kernels.correct([step])[0] for step in steps]
    for size in range(1, 9):
        for start in range(0, 9 - size):
            together = kernels.guide(slots[start : start + size])
            assert_identical(together, alone[start : start + size], "guided")
            assert_identical(kernels.correct(steps[start : start + size]), single[start : start + size], "corrected")
    for _ in range(20):
        assert_identical(kernels.guide(slots), alone, "again")


def test_a_nan_stays_in_its_slot_and_channel(drawn: Drawn) -> None:
    slots = [guided(drawn, 40, 8, "plain") for _ in range(3)]
    slots[1].v_pos[0, 7, 3] = torch.nan
    made = kernels.guide(slots)
    assert [bool(v.isnan().any()) for v, _average in made] == [False, True, False]
    assert made[1][0].isnan().any(1).flatten().tolist() == [channel == 3 for channel in range(8)]
    assert made[1][0][0, :, 3].isnan().all(), "as in torch's form"
    assert by_torch(slots[1])[0][0, :, 3].isnan().all()


def test_a_velocity_of_zeros_divides_by_nothing(drawn: Drawn) -> None:
    zero = torch.zeros(1, 40, 8, device=CUDA)
    slot = replace(guided(drawn, 40, 8, "free"), v_pos=zero, v_neg=zero, average=zero)
    ((velocity, average),) = kernels.guide([slot])
    assert_identical([velocity, average], [zero, zero], "zeros")


def test_strided_tensors_are_read_as_what_they_are(drawn: Drawn) -> None:
    slot = guided(drawn, 40, 8, "plain")
    turned = replace(slot, v_neg=slot.v_neg.transpose(1, 2).contiguous().transpose(1, 2))
    assert_identical(kernels.guide([turned]), kernels.guide([slot]), "turned")


def variants() -> int:
    from harness.engine.kernels import triton_kernels  # noqa: PLC0415 - imports Triton

    return sum(len(each.device_caches[0][0]) for each in (triton_kernels.guide, triton_kernels.correct))


def test_nothing_is_compiled_after_prepare(drawn: Drawn) -> None:
    kernels.prepare(CUDA, 8)
    before = variants()
    for frames in (1, 2, 15, 16, 17, 32, 750):
        for count in (1, 2, 8):
            for form in FORMS:
                kernels.guide([guided(drawn, frames, 8, form) for _ in range(count)])
            for mode in DCWMode:
                kernels.correct([corrected(drawn, frames, 8, mode, curves=True)[0] for _ in range(count)])
    assert variants() == before


def in_a_tick(depth: int, switches: Switches, guidance: Guidance | None, dcw: DCW | None) -> float:
    """Launches of a tick that neither admits nor finishes a request."""
    config = PipelineConfig(depth=depth, steps=12, dcw=dcw, switches=switches)
    with StreamPipeline(EagerExecutor(AffineDecoder(E), max_rows=16), config) as pipeline:
        for seed in range(depth):
            pipeline.submit(request(seed, "plain", guidance=guidance))
        for _ in range(4):
            pipeline.tick()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
            for _ in range(4):
                pipeline.tick()
            torch.cuda.synchronize()
    return launched(profiled).total() / 4


def launches(depth: int, switches: Switches) -> float:
    """What guidance and correction add to a tick."""
    both = in_a_tick(depth, switches, Guidance(3.0, [prompt(50, 3)]), DCW())
    return both - in_a_tick(depth, switches, None, None)


def test_guidance_and_correction_are_two_launches_and_two_tables_at_any_depth_and_many_in_the_plain_twin() -> None:
    assert launches(2, Switches()) == launches(4, Switches()) == 4
    assert launches(4, Switches(integrator="per_slot")) > 64


def test_the_wavelet_haar_is_corrected_in_kernels_and_another_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    correct = kernels.correct
    monkeypatch.setattr(kernels, "correct", lambda slots: called.append(len(slots)) or correct(slots))
    for name in ("haar", "db2"):
        with StreamPipeline(
            EagerExecutor(AffineDecoder(E)), PipelineConfig(depth=2, steps=2, dcw=DCW(wavelet=name))
        ) as pipeline:
            for seed in range(2):
                pipeline.submit(request(seed))
            assert len(pipeline.drain()) == 2
    assert called == [2, 2]
    assert T > 1
