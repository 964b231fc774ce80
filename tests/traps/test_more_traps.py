"""Defects beyond the eleven, and the ways in which a comparison can compare nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import (
    Difference,
    DifferenceKind,
    NotComparable,
    NothingCompared,
    ParityError,
    assert_identical,
    compare_trees,
    difference,
    digest,
    named_differences,
)
from tests.traps.defects import bits, latent


@dataclass
class State:
    x: Tensor


def report(actual: Tensor, expected: Tensor) -> Difference:
    found = difference(actual, expected)
    assert found is not None
    return found


def test_bfloat16_with_the_values_of_float32_is_a_dtype() -> None:
    values = latent().bfloat16()
    assert report(values, values.float()).kind is DifferenceKind.DTYPE


def test_bool_and_int8_with_the_same_bytes_are_a_dtype() -> None:
    assert report(torch.tensor([True, False]), torch.tensor([1, 0], dtype=torch.int8)).kind is DifferenceKind.DTYPE


def test_signed_and_unsigned_with_the_same_bytes_are_a_dtype() -> None:
    assert report(torch.ones(3, dtype=torch.int8), torch.ones(3, dtype=torch.uint8)).kind is DifferenceKind.DTYPE


def test_float16_and_bfloat16_with_the_same_bytes_are_a_dtype() -> None:
    values = torch.ones(3, dtype=torch.float16)
    assert report(values.view(torch.bfloat16), values).kind is DifferenceKind.DTYPE


def test_an_infinity_that_changes_sign_is_a_flip_without_a_distance() -> None:
    found = report(torch.tensor([1.0, torch.inf]), torch.tensor([1.0, -torch.inf]))
    assert (found.index, found.sign_flips, found.max_abs) == ((1,), 1, None)


def test_a_subnormal_flushed_to_zero_is_one_ulp() -> None:
    found = report(bits(0), bits(1))
    assert (found.max_ulp, found.zero_signs) == (1, 0)
    assert found.expected_bits == "0x00000001"


def test_a_negative_zero_in_an_imaginary_part_is_reported() -> None:
    parts = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    moved = parts.clone()
    moved[1, 1] = -0.0
    found = report(torch.view_as_complex(moved), torch.view_as_complex(parts))
    assert (found.index, found.count, found.total, found.zero_signs) == ((1,), 1, 2, 1)


def test_a_complex_element_that_moved_in_both_parts_is_one_element() -> None:
    found = report(torch.tensor([1 + 2j, 3 + 4j]), torch.tensor([1 + 2j, 5 + 7j]))
    assert (found.count, found.total, found.got, found.max_abs) == (1, 2, 3 + 4j, 3.0)


def test_a_negated_nan_is_another_payload() -> None:
    assert report(bits(0x7FC00000), bits(0xFFC00000 - (1 << 32))).nan_payloads == 1


def test_two_int64_that_float64_cannot_tell_apart_are_one_apart() -> None:
    found = report(torch.tensor([2**53 + 1]), torch.tensor([2**53]))
    assert (found.max_abs, found.got) == (1.0, 2**53 + 1)


def test_the_distance_of_two_uint64_does_not_wrap_around() -> None:
    largest = torch.tensor([-1]).view(torch.uint64)
    assert report(largest, torch.zeros_like(largest)).max_abs == float(2**64 - 1)


def test_empty_tensors_of_other_shapes_differ() -> None:
    assert report(torch.zeros(0, 3), torch.zeros(0, 4)).kind is DifferenceKind.SHAPE


def test_a_transposed_storage_with_the_bytes_of_the_expected_one_differs() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    assert report(square.t(), square).index == (0, 1)


def test_a_tensor_that_requires_grad_is_described_like_any_other() -> None:
    assert report(torch.ones(2).requires_grad_(), torch.zeros(2)).max_abs == 1.0


def test_a_pending_conjugation_is_part_of_the_value() -> None:
    values = torch.tensor([1 + 2j])
    assert report(values.conj(), values).kind is DifferenceKind.BYTES


def test_a_pending_negation_is_part_of_the_value() -> None:
    imaginary = torch.tensor([1 + 2j]).conj().imag
    assert imaginary.is_neg()
    assert report(imaginary, torch.tensor([2.0])).sign_flips == 1


def test_a_missing_key_is_reported() -> None:
    found = compare_trees({"a": latent()}, {"a": latent(), "b": latent()})
    assert [(d.name, d.kind) for d in found] == [("b", DifferenceKind.MISSING)]


def test_an_extra_key_is_reported() -> None:
    found = compare_trees({"a": latent(), "b": latent()}, {"a": latent()})
    assert [(d.name, d.kind) for d in found] == [("b", DifferenceKind.UNEXPECTED)]


def test_a_missing_element_of_a_sequence_is_reported() -> None:
    found = compare_trees({"slots": [latent()]}, {"slots": [latent(), latent()]})
    assert [(d.name, d.kind) for d in found] == [("slots[1]", DifferenceKind.MISSING)]


def test_a_missing_key_whose_value_would_be_none_is_reported() -> None:
    found = compare_trees({"a": latent()}, {"a": latent(), "b": None})
    assert [(d.name, d.kind) for d in found] == [("b", DifferenceKind.MISSING)]


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({}, {}),
        ([], []),
        ({"a": None}, {"a": None}),
        (None, None),
        (3, 3),
        (torch.zeros(0), torch.zeros(0)),
        ({"a": torch.zeros(2, 0)}, {"a": torch.zeros(2, 0)}),
        ({"a": {}, "b": [()]}, {"a": {}, "b": [()]}),
        ({}, {"a": torch.zeros(0)}),
    ],
    ids=repr,
)
def test_comparing_nothing_is_a_failure(actual: object, expected: object) -> None:
    with pytest.raises(NothingCompared):
        assert_identical(actual, expected)


def test_an_emptied_side_is_a_failure_and_not_nothing() -> None:
    with pytest.raises(ParityError, match="shape"):
        assert_identical(torch.zeros(0), torch.zeros(1))


@pytest.mark.parametrize("other", [None, 1.0, [1.0], "x", {"x": 1}], ids=repr)
def test_something_else_in_place_of_a_tensor_is_a_type(other: object) -> None:
    found = difference(other, torch.ones(1))
    assert found is not None
    assert found.kind is DifferenceKind.TYPE


def test_equal_leaves_that_are_no_tensors_are_not_waved_through() -> None:
    found = compare_trees({"x": latent(), "id": "a"}, {"x": latent(), "id": "a"})
    assert [(d.name, d.kind) for d in found] == [("id", DifferenceKind.TYPE)]


@pytest.mark.parametrize("mapping", [{0: latent()}, State(latent()), {}], ids=["mapping", "dataclass", "empty"])
def test_a_mapping_in_place_of_a_sequence_is_a_type(mapping: object) -> None:
    for actual, expected in ((mapping, [latent()]), ([latent()], mapping), (mapping, []), ([], mapping)):
        found = compare_trees({"x": actual, "y": latent()}, {"x": expected, "y": latent()})
        assert [(d.name, d.kind) for d in found] == [("x", DifferenceKind.TYPE)]


def test_text_in_place_of_a_number_is_another_key() -> None:
    found = compare_trees({"0": latent()}, {0: latent()})
    assert [(d.name, d.kind) for d in found] == [("0", DifferenceKind.MISSING), ("['0']", DifferenceKind.UNEXPECTED)]


def test_a_dataclass_is_compared_by_its_fields() -> None:
    moved = latent()
    moved[0] += 1
    assert compare_trees(State(latent()), State(latent())) == []
    found = compare_trees([State(moved)], [State(latent())])
    assert [(d.name, d.kind) for d in found] == [("[0]/x", DifferenceKind.BYTES)]


def test_a_key_without_a_path_is_refused_and_not_waved_through() -> None:
    with pytest.raises(InvalidInput, match="key"):
        compare_trees({(1, 2): latent()}, {(1, 2): latent()})


def test_names_that_are_paths_already_stay_what_they_are() -> None:
    names = ["(root)", "slots[0]/x", "['a/b']"]
    found = named_differences({name: latent() for name in names}, dict.fromkeys([*names[1:], "a b"], latent() + 1))
    assert [(d.name, str(d.kind)) for d in found] == [
        ("slots[0]/x", "bytes"), ("['a/b']", "bytes"), ("a b", "missing"), ("(root)", "unexpected"),
    ]  # fmt: skip


UNREADABLE = {"meta": torch.ones(2, device="meta"), "sparse": torch.eye(2).to_sparse()}
if hasattr(torch, "float4_e2m1fn_x2"):  # torch 2.8 and later: an older one has no packed tensors
    UNREADABLE["packed"] = torch.zeros(2, dtype=torch.float4_e2m1fn_x2)


@pytest.mark.parametrize("tensor", UNREADABLE.values(), ids=UNREADABLE)
def test_a_tensor_without_readable_bytes_is_refused(tensor: Tensor) -> None:
    with pytest.raises(NotComparable, match="slot 3"):
        difference(tensor, tensor, "slot 3")


@pytest.mark.filterwarnings("ignore:.*quantize.*")  # torch announces the removal of its quantized dtypes
def test_a_quantized_tensor_is_refused() -> None:
    with pytest.raises(NotComparable, match="scale"):
        difference(torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8), torch.ones(2))


def test_a_tensor_that_only_pretends_to_hold_values_is_refused() -> None:
    from torch._subclasses import FakeTensorMode  # noqa: PLC0415 - importing it is slow, and this test alone needs it

    with FakeTensorMode():
        fake = torch.ones(2)
    with pytest.raises(NotComparable, match="FakeTensor"):
        difference(fake, fake)


def test_a_report_keeps_what_it_saw_when_the_buffer_is_written_again() -> None:
    buffer, expected = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    found = report(buffer, expected)
    before = str(found)
    buffer.fill_(7.0)
    expected.fill_(7.0)
    assert (found.got, found.expected, str(found)) == (1.0, 0.0, before)
    assert difference(buffer, expected) is None


def test_a_view_follows_its_buffer_and_only_a_copy_or_a_digest_remembers() -> None:
    buffer = latent()
    view, copy, remembered = buffer[1:3], buffer[1:3].clone(), digest(buffer[1:3])
    assert_identical(view, copy)
    buffer[1, 2, 3] += 1
    assert difference(view, buffer[1:3]) is None
    assert report(view, copy).index == (0, 2, 3)
    assert digest(view) != remembered
