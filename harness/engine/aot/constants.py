"""Constants of an exported graph, computed again with torch so that their bits are torch's.

The exporter folds constant subgraphs, such as the frequencies of time and position embeddings, with NumPy. NumPy's
`exp` and `pow` round differently from torch's. The error matters: a frequency is multiplied by a time of up to 1000, or
by a position of several thousand, before a sine is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg


def restore(model: Any, program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Replace every folded constant by the value that torch computes.

    Args:
        model: an `onnx_ir.Model`; changed in place.
        program: the program that the model was exported from. Its nodes have the names of the model's values.

    Returns:
        The names of the replaced constants.
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
            continue  # The exporter folded following layout operators as well: no node of torch has this value.
        value.const_value = onnx_ir.tensor_adapters.TorchTensor(computed, name=name)
        restored.append(name)
    return tuple(restored)


def _is_constant(node: Node) -> bool:
    """Return True if a node depends on no input, parameter or symbol."""
    return node.op == "call_function" and all(_is_constant(each) for each in node.all_input_nodes)


def _computed(node: Node, known: dict[Node, Any]) -> Any:
    """The value of a constant node, computed by torch on the CPU; `known` caches values by node."""
    if node not in known:
        arguments: Any = (node.args, node.kwargs)
        args, kwargs = (map_arg(part, lambda each: _computed(each, known)) for part in arguments)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        operator: Any = node.target
        known[node] = operator(*args, **kwargs)
    return known[node]
