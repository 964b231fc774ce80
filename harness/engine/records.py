"""Walks through records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor


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
