"""Leaves of a tree that are no tensors, as tensors: numbers, texts, and NumPy's arrays and scalars.

The type of such a leaf is part of its name (`n as int`), so an int, a bool, a float, an array and a tensor of the same
number are different leaves. The tensor holds every bit of the value:

    int        int64 without axes; beyond 64 bits the ASCII characters of its hexadecimal digits, as uint8
    bool       bool without axes
    float      float64 without axes
    complex    real and imaginary part, float64 [2]
    str        UTF-8, uint8 [bytes]
    bytes      uint8 [bytes]
    array      a NumPy array of any strides, with its dtype and shape
    scalar     a NumPy scalar, with its dtype, without axes
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.parity.bits import NotComparable, summary

EXPECTED = "expected a tensor, a NumPy array, a number or a text"
EXACT = ("int", "bool", "str", "bytes")
"""Types whose values no tolerance lets differ."""
LONGEST = 60
"""The most characters of a text that a message shows."""

_ARRAYS = ("array", "scalar")
_LEAF = re.compile(r"(?s:(?P<path>.*)) (?:is (?P<nothing>None|empty)|as (?P<type>[a-z]+))")
_INT64 = range(-(2**63), 2**63)
_DTYPES = {
    np.dtype(name)
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32")
    + ("float64", "complex64", "complex128")
}


def encoded(leaf: object, path: str) -> tuple[str, Tensor]:
    """The name and the tensor of a leaf that is no tensor. Later writes to an array do not change the tensor.

    Args:
        leaf: the leaf.
        path: its path in the tree.

    Raises:
        NotComparable: the leaf is of another type, a subclass included, or an array of a dtype that is not compared,
            such as a structured one, text, objects or another byte order.
    """
    if type(leaf) in (np.ndarray, np.memmap) or isinstance(leaf, np.generic):
        return f"{path} as {'array' if isinstance(leaf, np.ndarray) else 'scalar'}", _of_numpy(leaf, path)
    if type(leaf) not in _PYTHON:
        raise NotComparable(f"{path} cannot be compared: {EXPECTED}, got {type(leaf).__name__}")
    return f"{path} as {type(leaf).__name__}", _PYTHON[type(leaf)](leaf)


def is_array(leaf: object) -> bool:
    """True for a NumPy array of a dtype that is compared."""
    return type(leaf) in (np.ndarray, np.memmap) and getattr(leaf, "dtype", None) in _DTYPES


def array_name(path: str) -> str:
    """The name of an array at a path."""
    return f"{path} as array"


def in_memory(array: Any) -> Tensor:
    """A tensor in the memory of an array, to see later writes; a copy where torch cannot have the array's strides."""
    return torch.from_numpy(array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy())


def parted(name: str) -> tuple[str, str]:
    """Path and type of a leaf by its name; the type is `tensor`, `None`, `empty`, or one of the module's."""
    # A key with spaces is quoted and ends in a bracket, so a path never looks like the name of such a leaf.
    found = _LEAF.fullmatch(name)
    return (found["path"], found["nothing"] or found["type"]) if found else (name, "tensor")


def decoded(kind: str, tensor: Tensor) -> Any:
    """The number or the text that a tensor holds, by its type."""
    if kind == "complex":
        return complex(*tensor.tolist())
    if kind not in ("str", "bytes") and tensor.ndim == 0:
        return tensor.item()
    text = bytes(tensor.tolist())
    if kind == "int":
        return int(text, 16)
    return text.decode("utf-8", "backslashreplace") if kind == "str" else text


def described(kind: str, tensor: Tensor) -> str:
    """A leaf in words, for a message: its type, and its value where that is short."""
    if kind in ("tensor", *_ARRAYS):
        return summary(tensor) if kind == "tensor" else f"NumPy {kind}, {tensor.dtype} {list(tensor.shape)}"
    if kind in ("None", "empty"):
        return kind if kind == "None" else "an empty container"
    return f"{kind} {shown(decoded(kind, tensor))}"


def shown(value: object, at: int = 0) -> str:
    """A value as text; of a long text, the part around the character `at`."""
    if not isinstance(value, str | bytes) or len(value) <= LONGEST:
        text = hex(value) if type(value) is int and value not in _INT64 else repr(value)
        return text if len(text) <= 8 * LONGEST else f"{text[: 8 * LONGEST]}... of {len(text)} characters"
    start = max(0, at - LONGEST // 3)
    return f"{value[start : start + LONGEST]!r} from {start} on, of {len(value)}"


def both(got: object, expected: object) -> tuple[str, str]:
    """Two values of one type that differ, as texts that differ."""
    if not isinstance(got, str | bytes) or not isinstance(expected, str | bytes):
        return shown(got), shown(expected)
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((place for place, (a, b) in pairs if a != b), min(len(got), len(expected)))
    return shown(got, at), shown(expected, at)


def _of_numpy(leaf: Any, path: str) -> Tensor:
    if leaf.dtype not in _DTYPES:
        raise NotComparable(f"{path} cannot be compared: it is of NumPy's dtype {leaf.dtype}, which has no rule here")
    return torch.from_numpy(np.array(leaf, order="C", copy=True))


def _of_bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


_PYTHON: dict[type, Any] = {
    bool: torch.tensor,
    int: lambda value: torch.tensor(value) if value in _INT64 else _of_bytes(hex(value).encode()),
    float: lambda value: torch.tensor(value, dtype=torch.float64),
    complex: lambda value: torch.tensor([value.real, value.imag], dtype=torch.float64),
    str: lambda value: _of_bytes(value.encode("utf-8", "surrogatepass")),
    bytes: _of_bytes,
}
