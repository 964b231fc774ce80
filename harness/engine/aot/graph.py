"""Clean-up and checks of an exported graph: nodes are named by module path, paths of the machine are removed."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from harness.engine.aot.signature import AXES
from harness.engine.errors import ExportRefused

_SCOPES = "pkg.torch.onnx.name_scopes"

DYNAMIC: Mapping[str, tuple[str, ...]] = {"rows": ("batch",), "frames": ("frames", "2*half"), "tokens": ("tokens",)}
"""Allowed names of each dynamic dimension in an exported file; `2*half` means that T must be even."""


def tidy(model: Any, prefix: str) -> None:
    """Name every node after its module, and remove the exporter's metadata, which contains paths of this machine.

    Args:
        model: an `onnx_ir.Model`; changed in place.
        prefix: a prefix to remove from module paths, such as `decoder.`.
    """
    for index, node in enumerate(model.graph):
        scope = _module_path(node.metadata_props).removeprefix(prefix)
        node.name = f"{scope or 'graph'}/{node.op_type}_{index}"
        node.doc_string = None
        node.metadata_props.clear()
    for holder in _holders(model):
        holder.metadata_props.clear()
        holder.doc_string = None


def check_dimensions(shapes: Mapping[str, Iterable[object]], *, tokens: int | None, frames: str) -> None:
    """Refuse a file with an unknown tensor, a frozen dimension that must be dynamic, or an unexpected dimension name.

    Args:
        shapes: the shape of every input and output, by name: a number or a symbol for each dimension.
        tokens: the static encoder length; None where the encoder length must be dynamic.
        frames: the symbol of T.

    Raises:
        ExportRefused: the message names the tensor, the dimension and its size.
    """
    wanted = {"rows": "batch", "frames": frames, "tokens": tokens or "tokens"}
    for name, shape in shapes.items():
        if name not in AXES:
            raise ExportRefused(f"{name}: expected the name of a decoder's input or output: {', '.join(AXES)}")
        found = [size if isinstance(size, int) else str(size) for size in shape]
        if len(found) != len(AXES[name]):
            raise ExportRefused(f"{name}: got {found}, expected the dimensions {', '.join(AXES[name])}")
        for axis, size in zip(AXES[name], found, strict=True):
            expected = wanted.get(axis)
            if expected is None:
                if not isinstance(size, int):
                    raise ExportRefused(f"{name}: {axis} is {size}, expected a number")
            elif size != expected:
                raise ExportRefused(f"{name}: {axis} is {size}, expected {expected}: the export froze or renamed it")


def check_names(names: Iterable[str]) -> None:
    """Refuse nodes without a unique name, because profilers identify layers by node names.

    Raises:
        ExportRefused: the message names the node.
    """
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise ExportRefused(f"node {name!r} has an empty name, or the name of another node")
        seen.add(name)


def check_places(data: bytes, places: Iterable[str]) -> None:
    """Refuse a file that contains one of `places`, folders of this machine.

    Raises:
        ExportRefused: the message names the folder.
    """
    for place in places:
        if len(place) > 1 and f"{place}{os.sep}".encode() in data:
            raise ExportRefused(f"the file contains {place!r}, a path of this machine")


def _module_path(notes: Mapping[str, str]) -> str:
    """The path of the module that a node was traced in; empty for the root module and where the path is unknown."""
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    # The last scope is the operator. The scopes before are full paths of modules, the outermost first.
    named = [scope for scope in scopes[:-1] if not scope.startswith("_")]
    return named[-1] if named else ""


def _holders(model: Any) -> Iterator[Any]:
    """The objects with metadata, without the nodes: the model, the graph and its values."""
    graph = model.graph
    values = chain(graph.inputs, graph.outputs, graph.initializers.values(), *(node.outputs for node in graph))
    yield model
    yield graph
    yield from (value for value in values if value is not None)
