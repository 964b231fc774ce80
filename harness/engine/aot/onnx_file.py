"""The signature of an exported file: names, dtypes and dimensions of its inputs and output, read from the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch

from harness.engine.aot.signature import AXES, INPUTS, MASK, VELOCITY, Signature, Span
from harness.engine.errors import ExportRefused, InvalidInput, PackageMissing
from harness.files import FileRefused, reading
from harness.files.refused import FileMissing

Dim: TypeAlias = "int | str | None"
"""A dimension: a static size, the name of a dynamic dimension, or None where the dynamic dimension has no name."""

_SYMBOL = re.compile(r"(?:([1-9]\d{0,8})\*)?[A-Za-z_]\w*", re.ASCII)
_DTYPES = {"FLOAT": torch.float32, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16, "BOOL": torch.bool}


def read(path: Path) -> Signature:
    """Read the signature of an exported file; weights in external data are not loaded.

    Raises:
        PackageMissing: `onnx` is not installed.
        InvalidInput: there is no such file.
        ExportRefused: the file is truncated, refers to external data of another name, or is no exported decoder; see
            `signature`.
    """
    if find_spec("onnx") is None:
        raise PackageMissing("onnx", "onnx")
    import onnx  # noqa: PLC0415 - an optional package

    try:
        data = reading.whole(path, reading.LARGE)
    except FileMissing as error:
        raise InvalidInput("onnx", str(path), "an existing ONNX file") from error
    except FileRefused as error:
        raise InvalidInput("onnx", str(path), f"an ONNX file ({error.why})") from error
    try:
        graph = onnx.load_model_from_string(data).graph
        constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
        weights = (*graph.initializer, *constants)
        _check_weights(path, {e.value for w in weights for e in w.external_data if e.key == "location"})
        tensors = _tensors(graph)
    except (import_module("google.protobuf.message").DecodeError, ValueError) as error:
        # A ValueError is of a text that is not UTF-8, and of a dtype that has no name.
        raise ExportRefused(f"{path}: not a whole ONNX file ({error})") from error
    return signature(path, tensors)


def _tensors(graph: Any) -> dict[str, tuple[torch.dtype | str, list[Dim]]]:
    """Dtype and dimensions of every input and output of a graph, by name."""
    found: dict[str, tuple[torch.dtype | str, list[Dim]]] = {}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        dims: list[Dim] = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        name = import_module("onnx").TensorProto.DataType.Name(kind.elem_type)
        found[value.name] = (_DTYPES.get(name, name), dims)
    return found


def signature(path: Path, tensors: Mapping[str, tuple[torch.dtype | str, Sequence[Dim]]]) -> Signature:
    """Make the signature of an exported file from its inputs and outputs.

    Args:
        path: the path of the file, for messages.
        tensors: dtype and dimensions of every input and output, by name; a dtype that torch does not have is a string.

    Raises:
        ExportRefused: names, ranks or dtypes are not those of an exported decoder; the batch is frozen; two tensors
            disagree on a dimension; or the name of a dynamic dimension is neither a symbol nor a multiple of a symbol
            (`2*half`).
    """
    missing = [name for name in (*INPUTS[:-1], VELOCITY) if name not in tensors]
    strange = [name for name in tensors if name not in AXES]
    if missing or strange:
        raise ExportRefused(f"{path}: not an exported decoder: missing tensors {missing}, unknown tensors {strange}")
    axes: dict[str, Dim] = {}
    for name, (_, dims) in tensors.items():
        if len(dims) != len(AXES[name]):
            raise ExportRefused(f"{path}: {name} has dimensions {list(dims)}, expected {list(AXES[name])}")
        for axis, dim in zip(AXES[name], dims, strict=True):
            if axes.setdefault(axis, dim) != dim:
                raise ExportRefused(f"{path}: {axis} is {dim} in {name} and {axes[axis]} in another tensor")
    rows, frames, tokens = (_dynamic(path, axis, axes[axis]) for axis in ("rows", "frames", "tokens"))
    if rows != (Span(1), 1):
        raise ExportRefused(f"{path}: the batch is frozen to {axes['rows']}, expected a dynamic dimension")
    if tokens[1] != 1:
        raise ExportRefused(f"{path}: the dimension of tokens is {axes['tokens']}, expected a size or a symbol")
    return Signature(
        dtypes={name: _checked(path, name, dtype) for name, (dtype, _) in tensors.items()},
        rows=rows[0],
        frames=frames[0],
        tokens=tokens[0],
        channels=_fixed(path, "channels", axes),
        context_channels=_fixed(path, "context_channels", axes),
        encoder_dim=_fixed(path, "encoder_dim", axes),
        frames_multiple=frames[1],
    )


def _check_weights(path: Path, places: set[str]) -> None:
    """Refuse external data of another name, because `export.digest` would not cover it."""
    expected = f"{path.name}.data"
    if places - {expected}:
        raise ExportRefused(f"{path}: the weights are in {', '.join(sorted(places))}, expected {expected}")


def _dynamic(path: Path, axis: str, dim: Dim) -> tuple[Span, int]:
    """The allowed sizes of a dimension, and the number that each size is a multiple of."""
    if isinstance(dim, int) and dim > 0:
        return Span(dim, dim), 1
    if isinstance(dim, int):
        raise ExportRefused(f"{path}: the dimension of {axis} is {dim}, expected at least 1")
    found = _SYMBOL.fullmatch(dim or "")
    if found is None:
        raise ExportRefused(f"{path}: the dynamic dimension of {axis} is {dim!r}, expected a symbol or a multiple")
    multiple = int(found[1] or 1)
    return Span(multiple), multiple


def _fixed(path: Path, axis: str, axes: Mapping[str, Dim]) -> int:
    size = axes[axis]
    if not isinstance(size, int) or size < 1:
        raise ExportRefused(
            f"{path}: {axis} is {size if isinstance(size, int) else f'dynamic ({size})'}, expected a size"
        )
    return size


def _checked(path: Path, name: str, dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, str) or (dtype is torch.bool) != (name == MASK):
        raise ExportRefused(f"{path}: {name} has the unsupported dtype {dtype}")
    return dtype
