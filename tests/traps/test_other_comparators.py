"""Why there is a comparator of our own: what torch's let pass, at the settings they are used with.

A fact-check, not a wish: should a torch release close a hole, the row turns red and is to be corrected. The two NaN
entries need care: `torch.equal` and the default `assert_close` report a payload only because NaN equals nothing there,
so they reject two identical tensors with a NaN as well.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from harness.parity.compare import difference
from tests.traps.defects import BY_NAME, ELEVEN, NAN, bits

Comparator = Callable[[Tensor, Tensor], bool]


def _passes_assert_close(actual: Tensor, expected: Tensor, **options: object) -> bool:
    try:
        assert_close(actual, expected, **options)
    except AssertionError:
        return False
    return True


def _zero_tolerance(actual: Tensor, expected: Tensor) -> bool:
    return _passes_assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


COMPARATORS: dict[str, Comparator] = {
    "assert_close": _passes_assert_close,
    "assert_close 0/0": _zero_tolerance,
    "torch.equal": torch.equal,
}
MISSED = {
    "assert_close": {
        "+0 becomes -0",
        "one ULP",
        "a 9x error on a 1e-9 element",
        "3e-7 relative",
        "two slots that differ by 1e-6 swapped",
    },
    "assert_close 0/0": {"+0 becomes -0", "a NaN's payload changes"},
    "torch.equal": {"fp32 becomes fp16, same values", "fp64 becomes fp32, same values", "+0 becomes -0"},
}


@pytest.mark.parametrize("name", COMPARATORS)
def test_torchs_comparator_misses_just_these(name: str) -> None:
    assert {defect.name for defect in ELEVEN if COMPARATORS[name](*defect.make())} == MISSED[name]


def test_the_byte_comparison_misses_none() -> None:
    assert [defect.name for defect in ELEVEN if difference(*defect.make()) is None] == []


@pytest.mark.parametrize("name", ["assert_close", "torch.equal"])
def test_torchs_comparator_rejects_a_nan_that_did_not_change(name: str) -> None:
    same = bits(NAN)
    assert not COMPARATORS[name](same, same.clone())
    assert difference(same, same.clone()) is None


def test_an_absolute_tolerance_still_comes_with_a_relative_one() -> None:
    expected = torch.tensor([1e6])
    assert torch.allclose(expected + 5, expected, atol=1e-9)


def test_a_broadcast_hides_a_lost_dimension() -> None:
    assert torch.allclose(torch.ones(4), torch.ones(4, 1))


@pytest.mark.parametrize("name", ["one ULP", "+0 becomes -0", "3e-7 relative"])
def test_a_comparison_in_half_precision_hides_it(name: str) -> None:
    actual, expected = BY_NAME[name].make()
    assert torch.allclose(actual.half(), expected.half(), rtol=1e-3)
