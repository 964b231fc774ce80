"""An engine's layers, as its builder prints them and as its inspector lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_HEADING = re.compile(r"Layers:|Engine Layer Information:")
_FIELD = re.compile(r"(Name|LayerType|TacticName|StreamId): (.*?)(?=, [A-Z][A-Za-z]+: |$)")
_SHORT = re.compile(r"Layer\((\w+)\): (.*?), Tactic: ([^,]*), ")
"""How the full TensorRT prints a layer to its builder's log, without metadata: `Layer(Myelin): NAME, Tactic: N, …`."""

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_METADATA = ", Metadata:"


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine.

    Attributes:
        name: as a profiler reports it.
        kind: the builder's type of it, such as `gemm` or `kgen`; empty where it does not say.
        tactic: the kernel's name; empty where it does not say.
        stream: which of the engine's streams it runs on.
        nodes: the ONNX nodes that it computes, by name; empty where the engine does not say.
    """

    name: str
    kind: str = ""
    tactic: str = ""
    stream: int = 0
    nodes: tuple[str, ...] = ()


def from_log(lines: Iterable[str]) -> tuple[Layer, ...]:
    """The layers that a builder printed to a verbose logger, with detailed verbosity; empty where it printed none.

    Args:
        lines: everything that was logged, a message or a line each.
    """
    text = (line for message in lines for line in message.splitlines())
    found: list[Layer] = []
    inside = False
    for line in text:
        if _HEADING.match(line):
            inside, line = True, _HEADING.sub("", line, count=1)
        # After the layers the inputs and outputs are listed, by name too, and with no type.
        if inside and line.startswith("Name: ") and ", LayerType: " in line:
            found.append(_printed(line))
        elif inside and (short := _SHORT.match(line)):
            found.append(Layer(name=short[2], kind=short[1], tactic=short[3]))
    return tuple(found)


def from_inspector(document: Mapping[str, Any] | str) -> tuple[Layer, ...]:
    """The layers of an engine inspector's JSON, or of `trtexec --exportLayerInfo`.

    Args:
        document: the JSON, parsed or not. Its `Layers` are objects with detailed verbosity and else bare names.

    Raises:
        ValueError: it has no layers.
    """
    parsed = json.loads(document) if isinstance(document, str) else document
    if not isinstance(parsed, Mapping) or not isinstance(parsed.get("Layers"), list):
        raise ValueError("it is no engine inspector's JSON: it has no list of Layers")
    return tuple(_listed(raw) for raw in parsed["Layers"])


def _printed(line: str) -> Layer:
    head, _, metadata = line.partition(_METADATA)
    fields: dict[str, str] = {}
    # Inputs and outputs have names as well: the layer's own comes first.
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
    # TensorRT separates several with a control character, RTX with nothing.
    for name in _ONNX_LAYER.findall(metadata):
        yield name.strip()
