"""The layers of a plan, parsed from the log of TensorRT's builder or from the JSON of TensorRT's engine inspector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from harness.files import documents
from harness.files.schema import Text, Within, fit

_HEADING = re.compile(r"Layers:|Engine Layer Information:")
_FIELD = re.compile(r"(Name|LayerType|TacticName|StreamId): (.*?)(?=, [A-Z][A-Za-z]+: |$)")
_SHORT = re.compile(r"Layer\((\w+)\): (.*?), Tactic: ([^,]*), ")
"""A layer in the builder's log of the full TensorRT, without metadata: `Layer(Myelin): NAME, Tactic: N, …`."""

_ONNX_LAYER = "[ONNX Layer: "
_METADATA = ", Metadata:"


Stream = Annotated[int, Within(-(2**31), 2**31)]


@dataclass(frozen=True)
class Layer:
    """One layer of a plan.

    Attributes:
        name: the name that a profiler reports.
        kind: the builder's layer type, such as `gemm` or `kgen`; empty where unknown.
        tactic: the kernel's name; empty where unknown.
        stream: the index of the CUDA stream, inside the plan, that the layer runs on.
        nodes: the names of the ONNX nodes that the layer computes; empty where unknown.
    """

    name: str
    kind: str = ""
    tactic: str = ""
    stream: Stream = 0
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Listed:
    """The fields of a layer that are read from the JSON of an engine inspector, which has many more."""

    Name: str
    LayerType: str = ""
    TacticName: str = ""
    StreamId: Stream | Annotated[str, Text(12, "-?[0-9]+")] = 0
    Metadata: str | None = None


_INSPECTED = tuple(each.name for each in fields(_Listed))
_INSPECTOR = "the JSON of an engine inspector"


def from_log(lines: Iterable[str]) -> tuple[Layer, ...]:
    """Parse the layers from a builder's verbose log; empty where the log has none.

    Args:
        lines: all logged messages, which may have several lines each. The plan must be built with detailed verbosity.
    """
    text = (line for message in lines for line in message.splitlines())
    found: list[Layer] = []
    inside = False
    for line in text:
        if _HEADING.match(line):
            inside, line = True, _HEADING.sub("", line, count=1)
        # The plan's inputs and outputs follow the layers. They have names as well, but no layer type.
        if inside and line.startswith("Name: ") and ", LayerType: " in line:
            found.append(_printed(line))
        elif inside and (short := _SHORT.match(line)):
            found.append(Layer(name=short[2], kind=short[1], tactic=short[3]))
    return tuple(found)


def from_inspector(document: Mapping[str, Any] | str) -> tuple[Layer, ...]:
    """Parse the layers from the JSON of an engine inspector, or of `trtexec --exportLayerInfo`.

    Args:
        document: the JSON as text or parsed. The entries of `Layers` are objects where the plan was built with detailed
            verbosity, else names.

    Raises:
        ValueError: the document is not strict JSON, or has no list `Layers` of layers and names.
    """
    parsed = documents.parse(document, _INSPECTOR) if isinstance(document, str) else document
    if not isinstance(parsed, dict) or not isinstance(parsed.get("Layers"), list):
        raise ValueError("not the JSON of an engine inspector: the list `Layers` is missing")
    return tuple(_listed(raw, index) for index, raw in enumerate(parsed["Layers"]))


def _printed(line: str) -> Layer:
    head, _, metadata = line.partition(_METADATA)
    fields: dict[str, str] = {}
    # The layer's inputs and outputs have names as well; the layer's own name comes first.
    for name, value in _FIELD.findall(head):
        fields.setdefault(name, value)
    return _layer(fields, metadata)


def _listed(raw: Any, index: int) -> Layer:
    if isinstance(raw, str):
        return Layer(raw)
    place = ("Layers", index)
    known = {name: raw[name] for name in _INSPECTED if name in raw} if isinstance(raw, dict) else raw
    found: _Listed = fit(_Listed, known, _INSPECTOR, place)
    return Layer(
        found.Name, found.LayerType, found.TacticName, int(found.StreamId), tuple(_nodes(found.Metadata or ""))
    )


def _layer(fields: Mapping[str, Any], metadata: str) -> Layer:
    return Layer(
        name=str(fields["Name"]),
        kind=str(fields.get("LayerType", "")),
        tactic=str(fields.get("TacticName", "")),
        stream=int(fields.get("StreamId", 0)),
        nodes=tuple(_nodes(metadata)),
    )


def _nodes(metadata: str) -> Iterator[str]:
    # TensorRT separates the entries with a control character, TensorRT-RTX does not separate them.
    begin = metadata.find(_ONNX_LAYER)
    # Not a regular expression: it would look for the end anew from each beginning, up to the end of the text.
    while begin >= 0 and (end := metadata.find("]", begin + len(_ONNX_LAYER))) >= 0:
        yield metadata[begin + len(_ONNX_LAYER) : end].strip()
        begin = metadata.find(_ONNX_LAYER, end)
