from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from harness.engine.curve import ask_host, ask_tensor, curve, of_values
from harness.engine.errors import InvalidInput
from harness.rails.costs.counters import HostReads
from tests.transcription import Case, assert_bits, differ, drawn

VALUES = [0.25, 0.5, -1.0]
floats = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-1e6, 1e6, width=32))
FORMS = [
    torch.tensor(VALUES),
    torch.tensor([VALUES]),
    torch.tensor(VALUES).reshape(1, 3, 1),
    torch.tensor(VALUES, dtype=torch.float64),
    torch.tensor(VALUES, dtype=torch.float16),
    torch.tensor(VALUES, dtype=torch.bfloat16),
    torch.tensor([VALUES, VALUES]).T[:, 0],  # not contiguous
    torch.tensor(VALUES, requires_grad=True),
]


@pytest.mark.parametrize("value", [2, 2.0, np.float64(2.0), torch.tensor(2.0), torch.tensor(2), torch.tensor([2.0])])
def test_a_number_becomes_one_float32_value(value: Any) -> None:
    made = curve("f", value)
    assert_bits(made.values, torch.full((1, 1, 1), 2.0))
    assert made.frames is None
    assert made.uniform == 2.0


@pytest.mark.parametrize("value", FORMS, ids=lambda value: f"{value.dtype}{list(value.shape)}")
def test_a_value_per_frame_becomes_float32_with_a_batch_and_a_channel(value: Tensor) -> None:
    made = curve("f", value, frames=3)
    assert_bits(made.values, torch.tensor(VALUES).reshape(1, 3, 1))
    assert made.frames == 3
    assert made.uniform is None
    assert made.values.is_contiguous()
    assert not made.values.requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_whole_numbers_are_values_too(dtype: torch.dtype) -> None:
    made = curve("mask", torch.tensor([0, 1, 1], dtype=dtype))
    assert_bits(made.values, torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1))


def test_a_number_is_rounded_to_float32_once() -> None:
    for value in (0.1, torch.tensor([0.1, 0.1], dtype=torch.float64)):
        made = curve("f", value)
        assert made.uniform == float(np.float32(0.1))
        assert_bits(made.values.flatten()[:1], torch.tensor([0.1]))


@drawn
@given(value=st.one_of(floats, st.floats(-3e38, 3e38), st.integers(-(10**9), 10**9)))
@example(value=-0.0)
@example(value=1e-40)  # is not normal in float32
@example(value=1e-60)  # is 0 in float32
@example(value=3.4028235e38)
@example(value=3.40282356e38)  # rounds to the largest float32
@example(value=2**24 + 1)
def test_of_a_number_the_host_knows_what_the_tensor_has_without_reading_it(value: float) -> None:
    with HostReads() as reads:
        made = curve("f", value, frames=3)
    assert reads.seen == {}
    assert struct.pack("d", made.uniform) == struct.pack("d", made.values.item())
    assert_bits(made.values, curve("f", torch.tensor(float(value), dtype=torch.float64)).values)


@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (1, 4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_later_write_to_the_callers_tensor_changes_nothing(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    value = torch.full(shape, 0.5, dtype=dtype)
    made = curve("f", value)
    value.fill_(7.0)
    assert bool((made.values == 0.5).all())
    assert made.uniform == 0.5


def test_a_curve_is_taken_as_it_is() -> None:
    made = curve("f", torch.tensor(VALUES))
    assert curve("g", made, frames=3, low=-1.0, high=1.0) is made


def test_on_its_own_device_a_curve_is_itself() -> None:
    made = curve("f", 1.0)
    assert made.to(torch.device("cpu")) is made
    assert curve("f", made, device=torch.device("cpu")) is made


def test_on_another_device_a_curve_keeps_what_the_host_knows() -> None:
    made = curve("f", 0.5).to(torch.device("meta"))
    assert made.values.device.type == "meta"
    assert made.uniform == 0.5


class Elsewhere(Tensor):
    """A tensor that says that it is on another device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cpu:1")


def test_a_number_and_a_tensor_of_the_host_go_where_they_are_needed_and_another_tensor_must_be_there() -> None:
    for value in (1.0, torch.tensor(1.0), torch.tensor(VALUES)):
        assert curve("f", value, device=torch.device("meta")).values.device.type == "meta"
    with pytest.raises(InvalidInput, match=r"^f: .*cpu:1.*meta") as refused:
        curve("f", torch.tensor(VALUES).as_subclass(Elsewhere), device=torch.device("meta"))
    assert refused.value.field == "f"


@drawn
@given(values=st.lists(floats, min_size=1, max_size=6), asked=floats)
@example(values=[0.0, -0.0], asked=0.0)
@example(values=[-0.0], asked=0.0)
@example(values=[0.0, 0.0, 1e-30], asked=0.0)
@example(values=[1.0, 1.0], asked=1.0)
@example(values=[1.0, 0.0], asked=1.0)
@example(values=[1.0, 0.0], asked=0.0)
def test_host_and_tensor_agree_on_whether_a_curve_is_neutral(values: list[float], asked: float) -> None:
    made = curve("f", torch.tensor(values))
    expected = all(value == asked for value in values)
    assert ask_host(made, asked) is expected
    assert ask_tensor(made, asked) is expected
    assert made.is_everywhere(asked) is expected


@drawn
@given(value=floats, frames=st.integers(1, 6))
def test_a_curve_of_one_value_is_uniform_with_it(value: float, frames: int) -> None:
    made = curve("f", torch.full((frames,), value))
    assert made.uniform == value
    assert ask_host(made, value) and ask_tensor(made, value)


def test_a_curve_of_one_value_still_has_its_frames() -> None:
    made = curve("f", torch.ones(3))
    assert made.frames == 3
    with pytest.raises(InvalidInput, match="a curve of 3 frames"):
        curve("f", made, frames=4)


def test_a_curve_that_differs_in_its_last_frame_alone_is_not_uniform() -> None:
    assert curve("f", torch.tensor([1.0, 1.0, 1.0 + 2**-23])).uniform is None


def test_the_answer_of_the_host_reads_no_tensor() -> None:
    assert ask_host(replace(curve("f", torch.zeros(3)), uniform=1.0), 1.0)
    assert not ask_tensor(replace(curve("f", torch.zeros(3)), uniform=1.0), 1.0)


@pytest.mark.parametrize(
    "value",
    [
        True,
        "1",
        None,
        [1.0, 2.0],
        1j,
        np.ones(3),
        torch.ones(2, 3),
        torch.ones(2, 1),
        torch.ones(3, 1, 1),
        torch.ones(1, 1, 3),
        torch.ones(1, 3, 2),
        torch.ones(1, 1, 3, 1),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(0),
        torch.ones(1, 0, 1),
    ],
    ids=lambda value: f"{type(value).__name__}{list(getattr(value, 'shape', ()))}",
)
def test_another_type_or_rank_is_refused_by_field(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^guidance\.scale: got .*, expected a number or a real tensor") as refused:
        curve("guidance.scale", value)
    assert refused.value.field == "guidance.scale"


@pytest.mark.parametrize("frames", [2, 4])
def test_another_length_is_refused_by_field(frames: int) -> None:
    for value in (torch.tensor(VALUES), curve("g", torch.tensor(VALUES))):
        with pytest.raises(InvalidInput, match=rf"^f: got a curve of 3 frames, .* {frames} frames") as refused:
            curve("f", value, frames=frames)
        assert refused.value.field == "f"


def test_a_scalar_fits_every_length() -> None:
    assert curve("f", 0.5, frames=3).frames is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_a_value_that_is_not_finite_in_float32_is_refused_by_field(bad: float) -> None:
    for value in (bad, torch.tensor([0.0, bad, 1.0], dtype=torch.float64)):
        with pytest.raises(InvalidInput, match=r"^f: .*finite") as refused:
            curve("f", value)
        assert refused.value.field == "f"


def test_the_place_of_a_bad_value_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"nan at \(0, 2, 0\), 1 such"):
        curve("f", torch.tensor([0.0, 1.0, float("nan")]))


@pytest.mark.parametrize("value", [-0.01, 1.01, torch.tensor([0.5, -0.01, 0.5]), torch.tensor([0.5, 0.5, 1.01])])
def test_a_value_out_of_range_is_refused_by_field(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^f: got a value of (-0\.0|1\.0).*expected values (>= 0|<= 1)") as refused:
        curve("f", value, low=0.0, high=1.0)
    assert refused.value.field == "f"
    assert curve("f", value, low=-2.0, high=2.0).values.dtype == torch.float32


def test_the_ends_of_a_range_are_in_it() -> None:
    assert curve("f", torch.tensor([0.0, 1.0]), low=0.0, high=1.0).frames == 2


def test_a_curve_made_before_is_checked_against_the_range_too() -> None:
    with pytest.raises(InvalidInput, match=r"^f: got a value of 2\.0"):
        curve("f", curve("g", 2.0), high=1.0)


def test_a_curve_in_normal_form_broadcasts_frame_by_frame() -> None:
    latent = Case(3, 4, 0).latent()
    scaled = latent * curve("f", torch.tensor(VALUES)).values
    assert_bits(scaled[:, 1], latent[:, 1] * 0.5)
    assert differ(scaled[:, 0], latent[:, 0])


def test_a_number_too_large_for_a_float_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="f: got 1000"):
        curve("f", 10**400)


@pytest.mark.parametrize("value", [50.000001, -50.000001, 50.0])
def test_a_number_is_held_to_its_range_as_the_float32_that_it_becomes(value: float) -> None:
    """A number and the same number in a tensor are taken or refused alike."""
    for each in (value, torch.tensor(value)):
        made = curve("scale", each, low=-50.0, high=50.0)
        assert (made.smallest, made.largest, made.uniform) == (made.values.item(),) * 3
    for each in (value * 1.000001, torch.tensor(value * 1.000001)):
        with pytest.raises(InvalidInput, match="scale"):
            curve("scale", each, low=-50.0, high=50.0)


@pytest.mark.parametrize("asked", [0.1, 1 / 3, 1.0 + 2**-40, 5e-324, 1e300])
def test_a_value_that_float32_does_not_have_is_that_of_no_curve(asked: float) -> None:
    """Neither of the number nor of what it is rounded to."""
    for value in (0.1, 1 / 3, 1.0, 0.0, torch.full((3,), 0.1), torch.ones(3)):
        made = curve("f", value)
        assert not ask_host(made, asked)
        assert not ask_tensor(made, asked)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_least_and_the_largest_value_are_known_of_every_frame_and_kept_on_another_device(place: int) -> None:
    values = torch.tensor([0.25, 0.25, 0.5, 0.25])
    for extreme in (-3.0, 7.0):
        values[place] = extreme
        made = curve("f", values.double())
        expected = (None, min(values.tolist()), max(values.tolist()))
        for each in (made, made.to(torch.device("meta"))):
            assert (each.uniform, each.smallest, each.largest) == expected


@pytest.mark.parametrize("frames", [1, 3])
def test_a_gain_s_extremes_are_of_every_frame_and_every_channel(frames: int) -> None:
    for place in range(frames * 4):
        values = torch.full((1, frames, 4), 0.5)
        values.view(-1)[place] = -2.0
        made = of_values(values)
        assert (made.uniform, made.smallest, made.largest) == (None, -2.0, 0.5)
        assert made.values is values
        assert made.frames == (None if frames == 1 else 3)


def test_the_first_thing_that_is_wrong_with_a_curve_is_told() -> None:
    """Its form, its values, its length, its range, its device, in this order."""
    meta = torch.device("meta")
    bad = torch.tensor([math.nan, 9.0, 9.0])
    told = []
    for value in (bad.reshape(3, 1), bad, torch.full((3,), 9.0), torch.full((2,), 9.0), torch.full((2,), -9.0)):
        with pytest.raises(InvalidInput) as refused:
            curve("f", value, frames=2, low=-1.0, high=1.0, device=meta)
        told.append(str(refused.value))
    with pytest.raises(InvalidInput) as refused:
        curve("f", torch.full((2,), 0.5).as_subclass(Elsewhere), frames=2, low=-1.0, high=1.0, device=meta)
    assert [*told, str(refused.value)] == [
        "f: got torch.float32 tensor of shape [3, 1] on cpu, expected a number or a real tensor of shape [T], [1, T] "
        "or [1, T, 1]",
        "f: got nan at (0, 0, 0), 1 such values, expected values that are finite in float32",
        "f: got a curve of 3 frames, expected a scalar or 2 frames",
        "f: got a value of 9.0, expected values <= 1.0",
        "f: got a value of -9.0, expected values >= -1.0",
        "f: got a tensor on cpu:1, expected a tensor on meta, like the others",
    ]


def test_numbers_of_the_same_bits_share_a_tensor_on_a_device_that_is_not_the_host() -> None:
    """On the meta device, which takes the place of a GPU here."""
    meta = torch.device("meta")
    one, again, other, minus = (curve("x", value, device=meta) for value in (2.5, torch.tensor(2.5), 2.0, -0.0))
    assert one.values is again.values
    assert other.values is not one.values
    assert curve("x", 0.0, device=meta).values is not minus.values, "the bits of 0 and -0 differ"
    assert (one.uniform, one.values.shape, one.values.dtype) == (2.5, (1, 1, 1), torch.float32)
    frames = [curve("x", torch.full((3,), 2.5), device=meta) for _ in range(2)]
    assert frames[0].values is not frames[1].values
    with torch.inference_mode():
        assert not curve("x", 0.123, device=meta).values.is_inference()
