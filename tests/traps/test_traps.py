"""Each of the eleven small defects is reported, as what it is and where it is."""

from __future__ import annotations

import pytest

from harness.parity.compare import DifferenceKind, ParityError, assert_identical, difference, digest, identical
from tests.traps.defects import BY_NAME, ELEVEN, Defect


def parametrize() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("defect", ELEVEN, ids=lambda defect: defect.name)


def report(name: str):
    found = difference(*BY_NAME[name].make())
    assert found is not None
    return found


@parametrize()
def test_the_defect_is_reported_with_its_kind_and_place(defect: Defect) -> None:
    found = difference(*defect.make())
    assert found is not None
    assert found.kind is defect.kind
    assert found.index == defect.index
    if defect.kind is DifferenceKind.BYTES:
        assert found.count == defect.count or (defect.count == 0 and found.count > 1)


@parametrize()
def test_the_defect_is_reported_from_either_side(defect: Defect) -> None:
    actual, expected = defect.make()
    found = difference(expected, actual)
    assert found is not None
    assert found.kind is defect.kind


@parametrize()
def test_the_defect_fails_the_assertion_inside_a_tree(defect: Defect) -> None:
    actual, expected = defect.make()
    with pytest.raises(ParityError, match=r"slots\[0\]/x"):
        assert_identical({"slots": [{"x": actual}]}, {"slots": [{"x": expected}]})


@parametrize()
def test_the_quick_verdict_is_that_of_the_slow_one(defect: Defect) -> None:
    actual, expected = defect.make()
    assert not identical(actual, expected)
    assert identical(actual, actual.clone())


@parametrize()
def test_the_defect_changes_the_digest(defect: Defect) -> None:
    actual, expected = defect.make()
    assert digest(actual) != digest(expected)


def test_a_changed_dtype_names_both() -> None:
    assert str(report("fp64 becomes fp32, same values")) == (
        "tensor: dtype differs, got torch.float32, expected torch.float64"
    )


def test_a_changed_shape_names_both() -> None:
    found = report("shape (4, 1) becomes (4,)")
    assert (found.got, found.expected) == ((4,), (4, 1))


def test_a_negative_zero_is_a_sign_and_no_distance() -> None:
    found = report("+0 becomes -0")
    assert (found.zero_signs, found.sign_flips, found.max_abs, found.max_ulp) == (1, 0, 0.0, 0)
    assert (found.got_bits, found.expected_bits) == ("0x80000000", "0x00000000")


def test_an_appearing_nan_is_counted_on_its_side() -> None:
    found = report("a NaN appears")
    assert (found.nan_got, found.nan_expected, found.nan_payloads) == (1, 0, 0)
    assert found.max_abs is None
    assert found.max_ulp is None


def test_a_changed_payload_shows_in_the_bits() -> None:
    found = report("a NaN's payload changes")
    assert (found.nan_got, found.nan_expected, found.nan_payloads) == (1, 1, 1)
    assert (found.got_bits, found.expected_bits) == ("0x7fc00001", "0x7fc00000")


def test_one_ulp_is_one() -> None:
    assert report("one ULP").max_ulp == 1


def test_a_tiny_elements_error_is_measured() -> None:
    assert report("a 9x error on a 1e-9 element").max_abs == pytest.approx(9e-9, rel=1e-6)  # inputs rounded to float32


def test_swapped_slots_leave_the_other_slots_alone() -> None:
    found = report("two slots that differ by 1e-6 swapped")
    assert found.total == 4096
    assert 0 < found.count <= 2048
