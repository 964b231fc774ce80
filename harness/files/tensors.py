"""Safetensors: the header is held to the file's size before a tensor is made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.files import documents, reading
from harness.files.refused import FileRefused
from harness.files.schema import Name, Text, Within, fit

CHECKPOINT = 2**40
"""Limit in bytes of a file of weights; only its header is read as a whole."""
HEADER = 16 * reading.MIB
"""Limit in bytes of a header."""
_PREFIX = 8
_METADATA = "__metadata__"
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8, "F4": 4,
}  # fmt: skip
_Size = Annotated[int, Within(0, CHECKPOINT)]


@dataclass(frozen=True)
class Listed:
    """A tensor as a header lists it.

    Attributes:
        dtype: its dtype by the name of the format, such as `F32`.
        shape: its shape.
        data_offsets: where its bytes begin and end, behind the header.
    """

    dtype: Annotated[str, Text(16, "|".join(_BITS))]
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


def header(path: Path) -> dict[str, Listed]:
    """The tensors that a file lists, by name; their bytes are not read.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `reading.opened`; or the header does not describe the file.
    """
    with reading.opened(path, CHECKPOINT) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _listed(path, file.read(_PREFIX), size, file.read)


def load(data: bytes, path: Path | str) -> dict[str, Tensor]:
    """The tensors in the bytes of a file, sorted by name: the library's order changes from call to call.

    Raises:
        FileRefused: they are not those of a safetensors file.
    """
    _listed(path, data[:_PREFIX], len(data), lambda count: data[_PREFIX : _PREFIX + count])
    try:
        return dict(sorted(safetensors.torch.load(data).items()))
    except (KeyError, SafetensorError) as error:  # a dtype that the library does not know is a KeyError
        raise FileRefused(path, "", ascii(str(error))[1:-1], "a safetensors file") from error


def one(path: Path, name: str) -> Tensor | None:
    """One tensor of a file; None where the file has none of that name.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `header`.
    """
    if name not in header(path):
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found: Tensor = file.get_tensor(name)
            return found
    except (KeyError, SafetensorError) as error:
        raise FileRefused(path, name, ascii(str(error))[1:-1], "a tensor") from error


def _listed(path: Path | str, prefix: bytes, size: int, read: Any) -> dict[str, Listed]:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX or length > min(HEADER, size - _PREFIX):
        raise FileRefused(path, "", f"a header of {length} bytes in a file of {size}", "a safetensors file")
    document = documents.parse(read(length), path)
    if isinstance(document, dict):
        fit(dict[str, Name], document.pop(_METADATA, {}), path, (_METADATA,))
    found: dict[str, Listed] = fit(dict[str, Listed], document, path)
    end = 0
    for name, listed in sorted(found.items(), key=lambda item: item[1].data_offsets):
        first, last = listed.data_offsets
        if first != end or 8 * (last - first) != math.prod(listed.shape) * _BITS[listed.dtype]:
            offsets, shape = list(listed.data_offsets), list(listed.shape)
            raise FileRefused(path, name, f"bytes {offsets} of shape {shape}", f"its bytes from {end} on")
        end = last
    if end != size - _PREFIX - length:
        raise FileRefused(path, "", f"{size - _PREFIX - length} bytes of tensors", f"{end}, as its header says")
    return found
