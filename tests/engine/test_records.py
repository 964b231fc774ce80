"""Copies of records with other fields."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
import torch

from harness.engine.records import replace, tensors


@dataclass(frozen=True)
class Plain:
    a: int
    b: tuple[int, ...] = ()
    derived: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Checked(Plain):
    def __post_init__(self) -> None:
        raise AssertionError("not called")


@dataclass(frozen=True, slots=True)
class Slotted:
    a: int


def test_a_copy_is_that_of_the_standard_library_and_the_record_stays_as_it_was() -> None:
    record = Plain(1, (2,), [3])
    made = replace(record, b=(4, 5))
    assert made == dataclasses.replace(record, b=(4, 5)) == Plain(1, (4, 5), [3])
    assert type(made) is Plain and made.derived is record.derived
    assert record == Plain(1, (2,), [3])
    assert replace(record) == record and replace(record) is not record


def test_a_copy_s_copies_share_nothing_that_was_replaced() -> None:
    first = replace(Plain(1), a=2)
    assert [replace(first, a=3).a, first.a, replace(first).a] == [3, 2, 2]


def test_a_copy_is_frozen_and_hashes_as_any_other() -> None:
    made = replace(Plain(1, (2,), ()), a=5)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.a = 6  # type: ignore[misc]
    assert hash(made) == hash(Plain(5, (2,), ()))  # type: ignore[arg-type]


def test_a_field_that_the_record_has_not_is_refused() -> None:
    with pytest.raises(TypeError, match="Plain has no field 'c'"):
        replace(Plain(1), a=2, c=3)  # type: ignore[call-arg]


def test_a_record_that_checks_its_fields_is_refused_because_nothing_would_check_them() -> None:
    record = object.__new__(Checked)
    with pytest.raises(TypeError, match="Checked checks its fields"):
        replace(record, a=2)


def test_a_record_without_a_dictionary_is_refused() -> None:
    with pytest.raises(TypeError):
        replace(Slotted(1), a=2)


def test_tensors_come_in_the_order_of_fields_items_and_values() -> None:
    one, two, three, four = (torch.full((1,), float(n)) for n in range(4))
    record = Plain(one, (two, {"b": three, "a": [four]}))  # type: ignore[arg-type]
    assert [float(each) for each in tensors((record, record))] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_tensors_are_found_in_mappings_and_tuples_of_other_classes_and_in_subclasses() -> None:
    pair = namedtuple("pair", "first second")  # noqa: PYI024 an untyped one, as other code may give it
    parameter = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    held = (MappingProxyType({"a": parameter}), pair(torch.zeros(1), None))
    assert [float(each) for each in tensors(held)] == [1, 0]
