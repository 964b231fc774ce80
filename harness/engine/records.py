"""Copies of records, and walks through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Every tensor in a record, through its fields and through tuples, lists and mappings, in their order."""
    left: list[Any] = [value]
    while left:
        each = left.pop()
        if isinstance(each, Tensor):
            yield each
        else:
            kind = type(each)
            if kind not in _PARTS:
                _PARTS[kind] = _parts(kind)
            left += _PARTS[kind](each)


_PARTS: dict[type, Callable[[Any], Iterable[object]]] = {}
"""What `_parts` returned, by class: a tick asks for the same classes again and again."""


def _parts(kind: type) -> Callable[[Any], Iterable[object]]:
    """Function that returns what an object of a class holds, the last part first."""
    if issubclass(kind, tuple | list):
        return reversed
    if issubclass(kind, Mapping):
        return lambda mapping: reversed(list(mapping.values()))
    names = [each.name for each in reversed(fields(kind))] if is_dataclass(kind) else []
    return lambda record: [getattr(record, name) for name in names]
