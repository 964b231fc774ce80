"""Tensors as bytes in a trace: dtype and shape in front, then the elements, row-major and little-endian."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from harness.files import FileRefused, documents
from harness.files.schema import Text, Within, fit
from harness.parity.bits import DTYPES, parts, words

_HEAD = 2
_DTYPES = {name.removeprefix("torch."): dtype for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Head:
    """Dtype, by torch's name without `torch.`, and shape of a stored tensor."""

    dtype: Annotated[str, Text(32, "|".join(sorted(_DTYPES)))]
    shape: tuple[Annotated[int, Within(0, 2**40)], ...]


def stored(tensor: Tensor) -> bytes:
    """The bytes of a tensor in a trace.

    Raises:
        NotComparable: a tensor without readable bytes; see `harness.parity.bits`.
    """
    found = words(parts(tensor, "tensor"))
    head = json.dumps({"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}).encode()
    return (
        len(head).to_bytes(_HEAD, "little") + head + found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes()
    )


def restored(data: bytes, path: Path | str) -> Tensor:
    """The tensor of such bytes; contiguous, on the CPU.

    Raises:
        FileRefused: they are those of no tensor.
    """
    begins = _HEAD + int.from_bytes(data[:_HEAD], "little")
    head: Head = fit(Head, documents.parse(data[_HEAD:begins], path), path, ("tensor",))
    dtype, size = _DTYPES[head.dtype], len(data) - begins
    if size != math.prod(head.shape) * dtype.itemsize:
        raise FileRefused(path, "tensor", f"{size} bytes of shape {list(head.shape)[:8]}", f"{head.dtype} elements")
    if not size:
        return torch.empty(head.shape, dtype=dtype)
    elements = torch.frombuffer(bytearray(data[begins:]), dtype=torch.uint8)
    if dtype is torch.bool and int(elements.max()) > 1:
        raise FileRefused(path, "tensor", f"the byte {int(elements.max())}", "booleans of 0 and 1")
    return elements.view(dtype).reshape(head.shape)
