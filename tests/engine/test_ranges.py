from __future__ import annotations

import math

import pytest
import torch

from harness.engine import InvalidInput, checks, ranges


def test_a_norm_may_be_any_normal_float32_number_and_no_other() -> None:
    limits = torch.finfo(torch.float32)
    for value in (limits.tiny, limits.max):
        assert checks.number("norm", value, **ranges.NORM) == value
    for value in (math.nextafter(limits.tiny, 0.0), math.nextafter(limits.max, math.inf)):
        with pytest.raises(InvalidInput, match="norm"):
            checks.number("norm", value, **ranges.NORM)


@pytest.mark.parametrize("value", [-1e-9, 1.0 + 1e-9])
def test_a_share_of_the_steps_is_within_0_and_1(value: float) -> None:
    assert [checks.number("gate", bound, **ranges.UNIT) for bound in (0.0, 1.0)] == [0.0, 1.0]
    with pytest.raises(InvalidInput, match="gate"):
        checks.number("gate", value, **ranges.UNIT)


def test_the_largest_sizes_are_the_documented_ones() -> None:
    assert (ranges.MAX_STEPS, ranges.MAX_TOKENS) == (1000, 65536)
