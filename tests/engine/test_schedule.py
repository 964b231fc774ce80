from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness.engine.schedule import known_timesteps, timesteps
from harness.rails.costs.counters import HostReads
from tests.transcription import EPS, drawn, numerics64

TURBO = (1.0, 21 / 22, 0.9, 5 / 6, 0.75, 9 / 14, 0.5, 0.3, 0.0)
"""Eight steps at a shift of 3, as ACE-Step's authors print them."""


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@drawn
@given(steps=st.integers(1, 100), denoise=st.floats(1e-3, 1.5), shift=st.floats(0.25, 8.0))
@example(steps=8, denoise=0.3, shift=3.0)
@example(steps=1, denoise=1.0, shift=3.0)
@example(steps=8, denoise=1.0, shift=1.0)
def test_the_times_follow_the_formula(steps: int, denoise: float, shift: float) -> None:
    got = timesteps(steps, denoise, shift)
    want = numerics64.schedule(steps, shift, denoise)
    # Two roundings of the even times, stretched by at most the shift or its inverse, and four of the shift itself.
    bound = 4 * EPS * max(shift, 1 / shift) * want[0]
    assert len(got) == steps + 1
    assert np.abs(np.array(got) - want).max() <= bound


def test_eight_steps_at_shift_three_are_the_turbo_times() -> None:
    assert timesteps(8, 1.0, 3.0) == pytest.approx(TURBO, abs=EPS)


@pytest.mark.parametrize("denoise", [1.0, 0.5, 0.3, 0.01])
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.7])
def test_the_shift_is_one_rounded_float32_operation_after_another(denoise: float, shift: float) -> None:
    start = 1.0 if denoise == 1.0 else 8 / int(8 / denoise)
    even = torch.linspace(start, 0.0, 9, dtype=torch.float32).numpy()
    shifted = np.float32(shift) * even / (np.float32(1) + np.float32(shift - 1.0) * even)
    assert timesteps(8, denoise, shift) == tuple((even if shift == 1.0 else shifted).tolist())


@pytest.mark.parametrize(
    ("denoise", "start"), [(1.0, 1.0), (2.0, 1.0), (0.5, 8 / 16), (0.3, 8 / 26), (0.99, 1.0), (0.95, 1.0), (0.8, 0.8)]
)
def test_a_partial_run_starts_at_a_time_of_a_whole_longer_run(denoise: float, start: float) -> None:
    assert timesteps(8, denoise, 1.0)[0] == float(np.float32(start))


@pytest.mark.parametrize(("denoise", "longer"), [(0.5, 16), (0.3, 26), (0.8, 10)])
def test_a_partial_run_is_the_tail_of_the_longer_one(denoise: float, longer: int) -> None:
    tail = timesteps(longer, 1.0, 3.0)[-9:]
    assert timesteps(8, denoise, 3.0) == pytest.approx(tail, abs=4 * EPS)  # rounded along another line


@pytest.mark.parametrize("denoise", [1e-6, 0.0, 1e-300])
@pytest.mark.parametrize("steps", [1, 8])
def test_nothing_to_denoise_is_one_step_at_time_zero(steps: int, denoise: float) -> None:
    assert timesteps(steps, denoise, 3.0) == (0.0, 0.0)


def test_just_above_the_smallest_denoise_there_are_steps() -> None:
    times = timesteps(8, 1.001e-6, 3.0)
    assert len(times) == 9
    assert 0 < times[0] < 4e-6


def test_the_first_time_is_after_the_shift() -> None:
    assert timesteps(8, 0.5, 3.0)[0] == 0.75
    assert timesteps(8, 0.5, 1.0)[0] == 0.5


def test_the_defaults_are_a_whole_run_at_shift_three() -> None:
    assert timesteps(8) == timesteps(8, 1.0, 3.0)


@pytest.mark.parametrize("denoise", [1.0, 0.3, 2e-6])
def test_times_are_python_floats_that_fall_from_the_first_to_zero(denoise: float) -> None:
    times = timesteps(8, denoise, 3.0)
    assert all(type(t) is float and t == float(np.float32(t)) for t in times)
    assert all(t > s for t, s in zip(times, times[1:], strict=False))
    assert times[-1] == 0.0


@pytest.mark.parametrize("denoise", [0.3, 1e-2, 2e-6, 1e-6, 1e-300])
def test_a_denoise_near_zero_builds_no_longer_schedule(denoise: float) -> None:
    begun = time.process_time()
    with LargestTensor() as made:
        timesteps(8, denoise, 3.0)
    assert made.elements <= 9
    assert time.process_time() - begun < 0.5  # lists and arrays are not seen by the mode, but their time is


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_the_default_dtype_has_no_say(default: torch.dtype) -> None:
    before, want = torch.get_default_dtype(), timesteps(8, 0.5, 3.0)
    torch.set_default_dtype(default)
    try:
        assert timesteps(8, 0.5, 3.0) == want
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("steps", [1, 4, 8, 27, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_times_are_those_of_diffusers(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1].tolist())
    # Its even times are rounded once from float64, ours twice in float32; near 0 the shift triples the difference.
    assert timesteps(steps, 1.0, shift) == pytest.approx(scheduler.sigmas.tolist(), abs=2 * EPS)


def test_the_default_device_has_no_say() -> None:
    want = timesteps(8, 0.7, 3.0)
    with torch.device("meta"):
        assert timesteps(8, 0.7, 3.0) == want


@pytest.mark.parametrize("shift", [0.5, 1.5, 2.0, 4.0])
def test_every_shift_but_one_bends_the_times(shift: float) -> None:
    even, bent = timesteps(8, 1.0, 1.0), timesteps(8, 1.0, shift)
    assert all((a < b) == (shift > 1.0) and a != b for a, b in zip(even[1:-1], bent[1:-1], strict=True))


@drawn
@given(steps=st.integers(1, 100), denoise=st.floats(0.0, 1.5), shift=st.floats(0.25, 8.0))
def test_what_is_known_is_what_is_computed(steps: int, denoise: float, shift: float) -> None:
    for _ in range(2):
        assert known_timesteps(steps, denoise, shift) == timesteps(steps, denoise, shift)


def test_what_is_known_is_not_computed_again_and_there_is_an_end_to_it() -> None:
    known_timesteps(8, 0.5, 3.0)
    with HostReads() as reads:
        known_timesteps(8, 0.5, 3.0)
    assert reads.seen == {}
    for number in range(1000):
        known_timesteps(8, 1e-3 * (number + 1), 3.0)
    assert known_timesteps.cache_info().currsize == known_timesteps.cache_info().maxsize == 128


@given(denoise=st.floats(0.0, 1.25), steps=st.integers(1, 12), shift=st.floats(0.001, 1000.0))
@example(denoise=0.8, steps=4, shift=1.0)
def test_no_remembered_times_are_those_of_a_neighbour(denoise: float, steps: int, shift: float) -> None:
    for near in (denoise, math.nextafter(denoise, 2.0), denoise + 1e-7, denoise + 1e-9):
        for also in (shift, math.nextafter(shift, 1.0)):
            assert known_timesteps(steps, near, also) == timesteps(steps, near, also)


@drawn
@given(steps=st.integers(1, 100), denoise=st.floats(1e-3, 1.5), shift=st.floats(0.001, 1000.0))
@example(steps=1, denoise=0.6, shift=0.001)
@example(steps=8, denoise=0.95, shift=0.006)
@example(steps=4, denoise=0.9, shift=0.02)
def test_no_time_is_above_1_or_above_the_one_before(steps: int, denoise: float, shift: float) -> None:
    times = timesteps(steps, denoise, shift)
    assert times[0] <= 1.0 and times[-1] == 0.0
    assert all(a >= b >= 0.0 for a, b in zip(times, times[1:], strict=False))
