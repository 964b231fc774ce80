"""The layers of a plan, parsed from the log of TensorRT's builder or from the JSON of TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_HEADING = re.compile(r"Layers:|Engine Layer Information:")
_FIELD = re.compile(r"(Name|LayerType|TacticName|StreamId): (.*?)(?=, [A-Z][A-Za-z]+: |$)")
_SHORT = re.compile(r"Layer\((\w+)\): (.*?), Tactic: ([^,]*), ")
"""A layer in the builder's log of the full TensorRT, without metadata: `Layer(Myelin): NAME, Tactic: N, …`."""

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_METADATA = ", Metadata:"


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
    stream: int = 0
    nodes: tuple[str, ...] = ()


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
        ValueError: the document has no list `Layers`.
    """
    parsed = json.loads(document) if isinstance(document, str) else document
    if not isinstance(parsed, Mapping) or not isinstance(parsed.get("Layers"), list):
        raise ValueError("not the JSON of an engine inspector: the list `Layers` is missing")
    return tuple(_listed(raw) for raw in parsed["Layers"])


def _printed(line: str) -> Layer:
    head, _, metadata = line.partition(_METADATA)
    fields: dict[str, str] = {}
    # The layer's inputs and outputs have names as well; the layer's own name comes first.
    for name, value in _FIELD.findall(head):
        fields.setdefault(name, value)
    return _layer(fields, metadata)


def _listed(raw: Any) -> Layer:
    if isinstance(raw, str):
        return Layer(raw)
    return _layer(raw, str(raw.get("Metadata", "")))


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
    for name in _ONNX_LAYER.findall(metadata):
        yield name.strip()
