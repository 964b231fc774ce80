from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from harness.engine.aot import graph
from harness.engine.errors import ExportRefused

SHAPES: dict[str, tuple[object, ...]] = {
    "hidden_states": ("batch", "2*half", 8),
    "timestep": ("batch",),
    "encoder_hidden_states": ("batch", "tokens", 32),
    "context_latents": ("batch", "2*half", 16),
    "encoder_mask": ("batch", "tokens"),
    "velocity": ("batch", "2*half", 8),
}


def check(shapes: dict[str, tuple[object, ...]], tokens: int | None = None, frames: str = "2*half") -> None:
    graph.check_dimensions(shapes, tokens=tokens, frames=frames)


def test_dimensions_that_are_as_they_must_be_are_let_through() -> None:
    check(SHAPES)
    static = {"encoder_hidden_states": ("batch", 64, 32), "encoder_mask": ("batch", 64)}
    check({**SHAPES, **static}, tokens=64)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("timestep", (2,), "timestep: rows is 2, expected batch: the export froze or renamed it"),
        ("velocity", ("batch", 40, 8), r"velocity: frames is 40, expected 2\*half"),
        ("hidden_states", ("batch", "frames", 8), r"frames is frames, expected 2\*half"),
        ("encoder_mask", ("batch", 12), "encoder_mask: tokens is 12, expected tokens"),
        ("encoder_mask", ("batch", "s0"), "tokens is s0, expected tokens"),
        ("context_latents", ("batch", "2*half", "wide"), "context_channels is wide, expected a number"),
        ("timestep", ("batch", 1), "expected the dimensions rows"),
        ("timestep", (ir.SymbolicDim("batch"), 1), r"timestep: got \['batch', 1\], expected the dimensions rows"),
        ("other", ("batch",), "other: expected the name of a decoder's input or output"),
    ],
)
def test_a_frozen_or_renamed_dimension_is_refused(name: str, shape: tuple[object, ...], words: str) -> None:
    with pytest.raises(ExportRefused, match=words):
        check({**SHAPES, name: shape})


@pytest.mark.parametrize("names", [["a/MatMul_0", ""], ["a/MatMul_0", "a/MatMul_0"]], ids=["none", "twice"])
def test_a_node_without_a_name_of_its_own_is_refused(names: list[str]) -> None:
    graph.check_names(["a/MatMul_0", "a/MatMul_1"])
    with pytest.raises(ExportRefused, match="has an empty name, or the name of another node"):
        graph.check_names(names)


def test_a_place_of_this_machine_in_the_file_is_refused() -> None:
    graph.check_places(b"a file / with a root alone", ["/", ""])
    graph.check_places(b"weights w /wide", ["/w"])
    with pytest.raises(ExportRefused, match="/home/someone"):
        graph.check_places(b"trace: /home/someone/model.py", ["/elsewhere", "/home/someone"])


SCOPED: list[tuple[str, str]] = [
    ("['', 'decoder', 'decoder.transformer', 'decoder.transformer.layers.0', 'mul_3']", "transformer.layers.0/Add_"),
    ("['', 'decoder', 'mul_3']", "decoder/Add_"),
    ("['_empty_nn_module_stack_from_metadata_hook', 'sym_size_int_18']", "graph/Add_"),
    ("[]", "graph/Add_"),
]


@pytest.fixture
def model() -> Callable[[list[str]], object]:
    def make(scopes: list[str]) -> object:
        x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["batch"])
        nodes, last = [], x
        for scope in scopes:
            node = ir.node("Add", [last, x], metadata_props={"pkg.torch.onnx.name_scopes": scope, "trace": "/a/path"})
            node.doc_string = "/a/path"
            node.outputs[0].metadata_props["trace"] = "/a/path"
            nodes.append(node)
            last = node.outputs[0]
        body = ir.Graph([x], [last], nodes=nodes, opset_imports={"": 20}, name="g")
        body.metadata_props["trace"] = "/a/path"
        made = ir.Model(body, ir_version=10)
        made.metadata_props["trace"] = "/a/path"
        return made

    return make


def test_nodes_are_named_after_the_module_they_were_traced_in(model: Callable[[list[str]], object]) -> None:
    made = model([scope for scope, _ in SCOPED])
    graph.tidy(made, "decoder.")
    names = [node.name for node in made.graph]  # type: ignore[attr-defined]
    assert names == [f"{path}{index}" for index, (_, path) in enumerate(SCOPED)]


def test_nothing_of_the_exporters_notes_is_left(model: Callable[[list[str]], object]) -> None:
    made = model([scope for scope, _ in SCOPED])
    assert b"/a/path" in ir.serde.serialize_model(made).SerializeToString()  # type: ignore[arg-type]
    graph.tidy(made, "decoder.")
    assert b"/a/path" not in ir.serde.serialize_model(made).SerializeToString()  # type: ignore[arg-type]


def test_no_note_is_left_on_the_model_its_graph_or_any_of_its_values() -> None:
    x, w = (ir.val(name, dtype=ir.DataType.FLOAT, shape=[2]) for name in ("x", "w"))
    w.const_value = ir.tensor([1.0, 2.0], name="w")
    node = ir.node("Add", [x, w])
    body = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[w], opset_imports={"": 20}, name="g")
    made = ir.Model(body, ir_version=10)
    node.outputs[0].name = "y"
    noted = [made, body, node, x, w, node.outputs[0]]
    for each in noted:
        each.metadata_props["trace"] = "/a/path"
        each.doc_string = "/a/path"
    graph.tidy(made, "decoder.")
    assert [dict(each.metadata_props) for each in noted] == [{}] * 6
    assert [each.doc_string for each in noted] == [None] * 6
    assert (node.name, x.name, w.name, node.outputs[0].name) == ("graph/Add_0", "x", "w", "y")
