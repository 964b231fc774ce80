"""Checks of arguments. Each raises `InvalidInput` with the field, the value that was given and what was expected."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.engine.transfer import count

E = TypeVar("E", bound=StrEnum)


def describe(value: object) -> str:
    """Describe a value for an error message: a tensor by dtype, shape and device, anything else by its repr."""
    if isinstance(value, Tensor):
        return f"{value.dtype} tensor of shape {list(value.shape)} on {value.device}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def integer(field: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` if it is an integer in `[low, high]`; a bool is not an integer."""
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise InvalidInput(field, describe(value), expected)
    return value


def number(field: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float if it is a finite number in `[low, high]`; a bool is not a number."""
    expected = "a finite number"
    if low > -math.inf:
        expected += f" >= {low}"
    if high < math.inf:
        expected += f" and <= {high}" if low > -math.inf else f" <= {high}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(field, describe(value), expected)
    # Compared before the conversion, because an integer can be too large for a float.
    if not -sys.float_info.max <= value <= sys.float_info.max or not low <= value <= high:
        raise InvalidInput(field, describe(value), expected)
    return float(value)


def member(field: str, value: Any, kind: type[E]) -> E:
    """Return the member of the enum `kind` that `value` is or names."""
    try:
        return kind(value)
    except ValueError:
        raise InvalidInput(field, describe(value), "one of " + ", ".join(repr(m.value) for m in kind)) from None


def flag(field: str, value: Any) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise InvalidInput(field, describe(value), "True or False")
    return value


def instance(field: str, value: Any, kind: type, expected: str) -> None:
    """Check that `value` is an instance of `kind`; `expected` describes `kind` in the error message."""
    if not isinstance(value, kind):
        raise InvalidInput(field, describe(value), expected)


def tensor(field: str, value: Any, shape: tuple[int | str, ...]) -> Tensor:
    """Return `value` if it is a finite floating point tensor of `shape`; a name in `shape` is any size from 1 on."""
    made = shaped(field, value, shape)
    finite(field, made)
    return made


def shaped(field: str, value: Any, shape: tuple[int | str, ...]) -> Tensor:
    """Return `value` if it is a floating point tensor of `shape`: the checks of `tensor` that read no values."""
    expected = "a finite floating point tensor of shape [" + ", ".join(str(size) for size in shape) + "]"
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != len(shape):
        raise InvalidInput(field, describe(value), expected)
    for actual, wanted in zip(value.shape, shape, strict=True):
        if actual < 1 or (isinstance(wanted, int) and actual != wanted):
            raise InvalidInput(field, describe(value), expected)
    return value


def finite(field: str, value: Tensor) -> None:
    """Check that every element of `value` is finite in float32. Reads the tensor, which waits for a GPU."""
    if value.is_meta:
        raise InvalidInput(field, describe(value), "a tensor with values, not one on the meta device")
    if value.is_cuda:
        count("values that must be finite")
    bad = ~torch.isfinite(value.detach().float())
    if bool(bad.any()):
        index = tuple(int(i) for i in bad.nonzero()[0])
        got = f"{value[index].item()} at {index}, {int(bad.sum())} such values"
        raise InvalidInput(field, got, "values that are finite in float32")


def same_device(field: str, value: Tensor, device: torch.device) -> None:
    """Check that `value` lies on `device`."""
    if value.device != device:
        raise InvalidInput(field, f"a tensor on {value.device}", f"a tensor on {device}, like the others")


def movable(field: str, value: Tensor, device: torch.device) -> None:
    """Check that `value` lies on `device` or on the CPU, from where it can be moved without a wait."""
    if value.device != torch.device("cpu"):
        same_device(field, value, device)
