"""Copies of records, and walks through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

__all__ = ["replace", "tensors"]

R = TypeVar("R")

if TYPE_CHECKING:  # so that mypy checks names and types of fields
    from dataclasses import replace
else:

    def replace(record: R, /, **changes: Any) -> R:
        """A copy of a record with other fields, as `dataclasses.replace` makes it, in a sixth of the time.

        For records that check nothing when they are made: a tick makes about twenty such copies.

        Raises:
            TypeError: a field that the record has not, or a record that checks its fields or has slots.
        """
        kind, held = type(record), vars(record)
        if hasattr(kind, "__post_init__"):
            raise TypeError(f"{kind.__name__} checks its fields: use dataclasses.replace")
        if not held.keys() >= changes.keys():
            raise TypeError(f"{kind.__name__} has no field {min(changes.keys() - held.keys())!r}")
        made = object.__new__(kind)
        vars(made).update(held, **changes)
        return made


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in a record, through its fields and through tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors(getattr(value, each.name))
    elif isinstance(value, Mapping):
        for held in value.values():
            yield from tensors(held)
    elif isinstance(value, tuple | list):
        for held in value:
            yield from tensors(held)
