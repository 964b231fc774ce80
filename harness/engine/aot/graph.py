"""An exported graph made fit to be kept: nodes named by module path, and nothing in it of where it was made."""

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
"""The names that a dynamic dimension may have in a file; `2*half` says that only even frames are taken."""


def tidy(model: Any, prefix: str) -> None:
    """Name every node after its module, and drop the exporter's notes, which hold paths of its machine.

    Args:
        model: an `onnx_ir.Model`; changed in place.
        prefix: of the module paths, dropped, such as `decoder.`.
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
    """Refuse a file in which a dimension that must be dynamic is frozen, or a name is not what readers expect.

    Args:
        shapes: of every input and output, by name: a number or a symbol for each dimension.
        tokens: the encoder length where it is meant to be static.
        frames: the symbol of T.

    Raises:
        ExportRefused: naming tensor, dimension and what was found.
    """
    wanted = {"rows": "batch", "frames": frames, "tokens": tokens or "tokens"}
    for name, shape in shapes.items():
        if name not in AXES:
            raise ExportRefused(f"{name}: no input or output of a decoder has this name")
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
    """Refuse nodes without a name or with another's, as profilers tell layers by it.

    Raises:
        ExportRefused: naming the node.
    """
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise ExportRefused(f"node {name!r} has no name of its own")
        seen.add(name)


def check_places(data: bytes, places: Iterable[str]) -> None:
    """Refuse a file that holds one of `places`, paths of the machine it was made on.

    Raises:
        ExportRefused: naming the place.
    """
    for place in places:
        if len(place) > 1 and f"{place}{os.sep}".encode() in data:
            raise ExportRefused(f"the file holds {place!r}, a place on this machine")


def _module_path(notes: Mapping[str, str]) -> str:
    """The path of the module that a node was traced in; empty at the top and where the exporter does not say."""
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    # The last one is the operator; before it, outermost first, full paths of modules.
    named = [scope for scope in scopes[:-1] if not scope.startswith("_")]
    return named[-1] if named else ""


def _holders(model: Any) -> Iterator[Any]:
    """Everything that carries notes, beside the nodes."""
    graph = model.graph
    values = chain(graph.inputs, graph.outputs, graph.initializers.values(), *(node.outputs for node in graph))
    yield model
    yield graph
    yield from (value for value in values if value is not None)
