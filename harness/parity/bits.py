"""Bit patterns of tensors: integer views, distances, copies and digests.

The functions take tensors of any strides and device. They refuse a tensor whose bytes are not plain memory of a known
dtype. A complex tensor is read as its real and imaginary parts, `[*shape, 2]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput

FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
FLOATS |= {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
READABLE = FLOATS | {torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16}
READABLE |= {torch.uint32, torch.uint64, torch.complex32, torch.complex64, torch.complex128}
DTYPES: Mapping[str, torch.dtype] = {str(dtype): dtype for dtype in sorted(READABLE, key=str)}
"""The dtypes of tensors that are compared, by their names."""
# Wide integers are viewed as signed in torch, whose unsigned types lack most operators, and as unsigned in NumPy.
WORDS: Mapping[int, torch.dtype] = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Array = npt.NDArray[Any]


class NotComparable(TypeError):
    """A tensor has no readable bytes: it is meta, sparse, quantized, nested, a wrapper, or of an unknown dtype."""


def copied(tensor: Tensor, name: str = "tensor") -> Tensor:
    """Copy a tensor to the CPU, so that later writes to `tensor` do not change the copy. The copy is contiguous.

    Args:
        tensor: a tensor of any strides and device.
        name: the tensor's name in messages.

    Raises:
        NotComparable: as for `difference`.
    """
    return _plain(tensor, name).clone(memory_format=torch.contiguous_format)


def digest(tensor: Tensor) -> str:
    """SHA-256, in hexadecimal, over dtype, shape and row-major little-endian bytes.

    Two tensors have equal digests exactly if `difference` is None.

    Raises:
        NotComparable: as for `difference`, or `tensor` is no tensor.
    """
    hasher = hashlib.sha256()
    _feed(hasher, tensor, "tensor")
    return hasher.hexdigest()


def digest_tree(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, over a flat mapping: the number of tensors, then name, dtype, shape and bytes of each.

    Tensors are sorted by name. An empty mapping has a digest too, so a caller must check that a mapping is not empty.

    Raises:
        InvalidInput: a name is not a string.
        NotComparable: as for `digest`; a nested mapping is no tensor.
    """
    if not all(isinstance(name, str) for name in tensors):
        raise InvalidInput("tensors", f"the names {list(tensors)}", "strings as names")
    hasher = hashlib.sha256(_framed(str(len(tensors)).encode()))
    for name in sorted(tensors):
        hasher.update(_framed(name.encode()))
        _feed(hasher, tensors[name], name)
    return hasher.hexdigest()


def parts(tensor: Tensor, name: str) -> Tensor:
    """The elements on the CPU, with any strides; real and imaginary parts `[*shape, 2]` of a complex tensor.

    Raises:
        NotComparable: as for `difference`.
    """
    plain = _plain(tensor, name)
    return torch.view_as_real(plain) if plain.is_complex() else plain


def words(parts: Tensor) -> Array:
    """The bit patterns of real elements, as unsigned integers of the same size."""
    size = parts.dtype.itemsize
    return np.asarray(parts.view(WORDS[size])).view(f"u{size}")


def moved_bits(got: Tensor, expected: Tensor) -> Array:
    """Boolean array, in the shape of the parts, that is True where the bits of two tensors' parts differ."""
    return np.asarray(words(got) != words(expected))


def values_of(parts: Tensor) -> Array:
    """The values as a NumPy array; float dtypes that NumPy lacks become float32, without loss."""
    foreign = parts.dtype in FLOATS and parts.dtype not in (torch.float64, torch.float32, torch.float16)
    return np.asarray(parts.to(torch.float32) if foreign else parts)


def distances(got: Array, expected: Array) -> Array:
    """Absolute distances as float64; NaN if one of the two values is NaN. Integers are subtracted as integers."""
    if got.dtype.kind == "f":
        # Overflow of two large float64 values (inf) and NaN are valid results, not errors.
        with np.errstate(over="ignore", invalid="ignore"):
            apart: Array = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        return apart
    wide = np.uint64 if got.dtype.kind == "u" else np.int64
    a, b = got.astype(wide), expected.astype(wide)
    # The distance of two int64 values may need 64 unsigned bits: the wrapped subtraction has exactly these bits.
    gap: Array = np.maximum(a, b) - np.minimum(a, b)
    return gap.view(np.uint64).astype(np.float64)


def split(words: Array) -> tuple[Array, Array]:
    """Split sign-and-magnitude words into magnitudes (uint64) and a boolean array that is True for negative signs."""
    sign = words.dtype.type(1 << (8 * words.dtype.itemsize - 1))
    return (words & ~sign).astype(np.uint64), (words & sign) != 0


def ulps(got: Array, expected: Array) -> Array:
    """Distances in ULP between words without NaNs, as uint64, because distances in float64 exceed int64."""
    (a, a_negative), (b, b_negative) = split(got), split(expected)
    return np.where(a_negative != b_negative, a + b, np.maximum(a, b) - np.minimum(a, b))


def element(values: Array, index: tuple[int, ...]) -> object:
    """One element as a Python number. A complex element is an axis of length 2 after the axes of `index`."""
    found = values[index]
    return complex(*found.tolist()) if np.ndim(found) else found.item()


def hexadecimal(words: Array, index: tuple[int, ...]) -> str:
    """The bit pattern of one element in hexadecimal, zero-padded; a complex element's parts are joined by a comma."""
    return ",".join(f"0x{int(word):0{2 * words.dtype.itemsize}x}" for word in np.atleast_1d(words[index]))


def summary(value: object) -> str:
    """Describe a value in one line, without reading elements."""
    if isinstance(value, Tensor):
        return f"{value.dtype} tensor of shape {list(value.shape)}"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _plain(tensor: Tensor, name: str) -> Tensor:
    """The elements on the CPU, with any strides."""
    refuse_unreadable(tensor, name)
    # Conjugation and negation may be pending flags of a view; the bytes are valid only after both are applied.
    return tensor.detach().resolve_conj().resolve_neg().cpu()


def refuse_unreadable(tensor: Tensor, name: str) -> None:
    """Raise `NotComparable` unless the tensor's bytes are plain memory of a known dtype."""
    reason = ""
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        reason = f"a wrapper, {type(tensor).__name__}, whose own bytes are not its values"
    elif tensor.is_meta:
        reason = "on the meta device and has no bytes"
    elif tensor.is_quantized:
        reason = "quantized: its scale is not in its bytes"
    elif tensor.is_nested or tensor.layout != torch.strided:
        reason = f"not one dense block (layout {tensor.layout})"
    elif tensor.dtype not in READABLE:
        reason = f"of dtype {tensor.dtype}, which has no rule here"
    if reason:
        raise NotComparable(f"{name} cannot be compared: it is {reason}")


def _framed(field: bytes) -> bytes:
    return len(field).to_bytes(8, "big") + field


def _feed(hasher: hashlib._Hash, tensor: object, name: str) -> None:
    """Hash dtype, shape and bytes, each after its length, so that different fields cannot give the same byte stream."""
    if not isinstance(tensor, Tensor):
        raise NotComparable(f"{name} has no digest: expected a tensor, got {summary(tensor)}")
    found = words(parts(tensor, name))
    hasher.update(_framed(str(tensor.dtype).encode()) + _framed(str(tuple(tensor.shape)).encode()))
    hasher.update(_framed(found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes()))
