"""Constants of an exported graph with torch's own bits.

The exporter folds what hangs on no input (the frequencies of time and position embeddings) with NumPy, whose `exp` and
`pow` round otherwise than torch's: one unit in the last place of a frequency is multiplied by a time of 1000 or a
position of thousands before its sine is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg


def restore(model: Any, program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Give every folded constant the bits that torch computes for it.

    Args:
        model: an `onnx_ir.Model`; changed in place.
        program: that it was exported from; its nodes have the values' names.

    Returns:
        The names of the constants that were computed.
    """
    import onnx_ir  # noqa: PLC0415 - an optional package

    nodes = {node.name: node for node in program.graph.nodes if node.op == "call_function"}
    restored = []
    for name, value in model.graph.initializers.items():
        if name not in nodes or not _is_constant(nodes[name]):
            continue
        computed = _computed(nodes[name], {})
        folded = value.const_value
        if tuple(folded.shape.numpy()) != tuple(computed.shape):
            continue  # folded further than torch's node, into another layout
        value.const_value = onnx_ir.tensor_adapters.TorchTensor(computed, name=name)
        restored.append(name)
    return tuple(restored)


def _is_constant(node: Node) -> bool:
    """Whether a node hangs on no input, parameter or symbol."""
    return node.op == "call_function" and all(_is_constant(each) for each in node.all_input_nodes)


def _computed(node: Node, known: dict[Node, Any]) -> Any:
    """The value of a constant node, by torch, on the CPU."""
    if node not in known:
        arguments: Any = (node.args, node.kwargs)
        args, kwargs = (map_arg(part, lambda each: _computed(each, known)) for part in arguments)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        operator: Any = node.target
        known[node] = operator(*args, **kwargs)
    return known[node]
