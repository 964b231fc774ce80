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
from tests.gpu.test_streams import SLEEP
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


def test_slots_of_launches_that_wait_for_the_gpu_keep_their_addresses(drawn: Drawn) -> None:
    slots = [guided(drawn, 40, 8, "free") for _ in range(8)]
    expected = [kernels.plain.guide([slot]) for slot in slots]
    kernels.guide(slots[:1])  # loads the kernel, which takes longer than the GPU sleeps
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP)
    made = [kernels.guide([slot]) for slot in slots]
    assert_identical(made, expected, "launched while the GPU was busy")


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


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
WIDTHS = [(1, 1, 1), (3, 16, 8), (8, 750, 64), (4, 1501, 64)]
"""Shapes `[N, T, D]` of a velocity: less than a block of a row, whole blocks, and blocks that end in the middle."""


def spoilt(velocity: torch.Tensor) -> list[bool]:
    found = kernels.widen(velocity)
    assert found is not None
    return [any(each) for each in found[1].read()]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_widened_velocity_has_the_bits_of_a_cast_and_is_contiguous(
    dtype: torch.dtype, shape: tuple[int, int, int], transposed: bool
) -> None:
    n, t, d = shape
    velocity = torch.randn((n, d, t) if transposed else shape, device=CUDA, dtype=torch.float64).to(dtype)
    velocity = velocity.mT if transposed else velocity
    velocity[0, 0, 0] = -0.0
    found = kernels.widen(velocity)
    assert found is not None
    assert found[0].is_contiguous()
    assert found[0].data_ptr() != velocity.data_ptr()
    assert_identical(found[0], velocity.float().contiguous())
    assert spoilt(velocity) == [False] * n


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_is_found_in_its_row_wherever_it_is(
    dtype: torch.dtype, shape: tuple[int, int, int], value: float
) -> None:
    size = shape[1] * shape[2]
    for place in sorted({0, size // 2, min(4095, size - 1), min(4096, size - 1), size - 2, size - 1}):
        velocity = torch.full(
            shape, torch.finfo(dtype).max if dtype != torch.float64 else 1.0, device=CUDA, dtype=dtype
        )
        velocity.view(shape[0], -1)[-1, place] = value
        assert spoilt(velocity) == [*[False] * (shape[0] - 1), True], place


def test_a_value_beyond_float32_is_not_finite_there() -> None:
    assert spoilt(torch.full((1, 2, 8), 1e300, dtype=torch.float64, device=CUDA)) == [True]


def test_flags_that_are_read_late_are_those_of_their_own_velocity() -> None:
    """A block of pinned memory is not written to again before its flags are read."""
    good, bad = (torch.full((2, 750, 64), value, device=CUDA) for value in (1.0, float("nan")))
    found = [kernels.widen(each) for each in (good, bad, good, bad)]
    torch.cuda.synchronize()
    flags = [each[1].read() for each in found if each is not None]
    assert [any(map(any, each)) for each in flags] == [False, True, False, True]


def test_flags_are_read_when_their_kernel_has_ended() -> None:
    """Otherwise those that an earlier velocity left in the host's memory would be read."""
    good, bad = (torch.full((2, 750, 64), value, device=CUDA) for value in (1.0, float("nan")))
    for _ in range(4):
        assert spoilt(good) == [False, False]
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    assert spoilt(bad) == [True, True]


def variants() -> int:
    from harness.engine.kernels import triton_kernels  # noqa: PLC0415 - imports Triton

    compiled = (triton_kernels.guide, triton_kernels.correct, triton_kernels.widen)
    return sum(len(each.device_caches[0][0]) for each in compiled)


def test_nothing_is_compiled_after_prepare(drawn: Drawn) -> None:
    kernels.prepare(CUDA, 8)
    before = variants()
    for frames in (1, 2, 15, 16, 17, 32, 750):
        for count in (1, 2, 8):
            for form in FORMS:
                kernels.guide([guided(drawn, frames, 8, form) for _ in range(count)])
            for mode in DCWMode:
                kernels.correct([corrected(drawn, frames, 8, mode, curves=True)[0] for _ in range(count)])
            for dtype in DTYPES:
                kernels.widen(torch.zeros(count + 1, frames, 8, dtype=dtype, device=CUDA)[1:])
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


def test_guidance_and_correction_are_two_launches_at_any_depth_and_many_in_the_plain_twin() -> None:
    assert launches(2, Switches()) == launches(4, Switches()) == 2
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
