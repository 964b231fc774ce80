from __future__ import annotations

import json

import pytest

from harness.engine.aot.layers import Layer, from_inspector, from_log

IO = "[ { Name: x_myl0, Dimensions: [-1,64], Datatype: Float, Format: (Linear) Row major linear format }]"
PRINTED = f"""Engine generation completed in 2.6 seconds.
Name: not one of them, LayerType: gemm, TacticName: t, StreamId: 0, Metadata:
Layers:
Name: layers.0.self_attn.to_v/MatMul_87+layers.0.self_attn.to_q/MatMul_81_myl0_14, LayerType: gemm, Inputs: {IO}, \
Constants: [], Outputs: {IO}, TacticName: __myelin_CASK_STUB, StreamId: 1, Metadata: \
[ONNX Layer: layers.0.self_attn.to_v/MatMul_87][ONNX Layer: layers.0.self_attn.to_q/MatMul_81]
Name: __myl_Tran_myl0_74, LayerType: kgen, Inputs: {IO}, Outputs: [], TacticName: __myl_Tran_0x4, StreamId: 0, Metadata:

Bindings:
Name: hidden_states, Dimensions: [-1,-1,8], Datatype: Float
"""
EXPECTED = (
    Layer(
        "layers.0.self_attn.to_v/MatMul_87+layers.0.self_attn.to_q/MatMul_81_myl0_14",
        "gemm",
        "__myelin_CASK_STUB",
        1,
        ("layers.0.self_attn.to_v/MatMul_87", "layers.0.self_attn.to_q/MatMul_81"),
    ),
    Layer("__myl_Tran_myl0_74", "kgen", "__myl_Tran_0x4", 0, ()),
)


def test_a_builders_printout_gives_the_final_layers_and_no_tensors() -> None:
    assert from_log([PRINTED]) == EXPECTED
    assert from_log(PRINTED.splitlines()) == EXPECTED


def test_a_log_without_a_printout_has_no_layers() -> None:
    assert from_log(["Name: a, LayerType: gemm", "built"]) == ()


@pytest.mark.parametrize("tensors", ["Bindings", "I/O Tensors"])
@pytest.mark.parametrize("between", ["", "\x1e"])
def test_an_inspectors_json_gives_the_layers_of_old_and_new_versions(tensors: str, between: str) -> None:
    metadata = "[ONNX Layer: a/MatMul_1]" + between + "[ONNX Layer: b/Add_2]"
    raw = {"Name": "x", "LayerType": "kgen", "TacticName": "t", "StreamId": 2, "Metadata": metadata}
    document = {"Layers": [raw, "bare name"], tensors: ["hidden_states"]}
    expected = (Layer("x", "kgen", "t", 2, ("a/MatMul_1", "b/Add_2")), Layer("bare name"))
    assert from_inspector(document) == expected
    assert from_inspector(json.dumps(document)) == expected


@pytest.mark.parametrize("document", ["[]", "{}", '{"Layers": 3}', "no json"])
def test_what_is_no_inspectors_json_is_refused(document: str) -> None:
    with pytest.raises(ValueError):
        from_inspector(document)


def test_a_log_of_the_full_tensorrt_lists_its_layers_in_its_own_way() -> None:
    log = [
        "Layer(Before): not listed, Tactic: 1, a -> b",
        "Engine Layer Information:\n"
        "Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0, Tactic: 0, in[Float(1)] -> out[Int8(1)]\n"
        "Layer(Constant): 3198 + (Unnamed Layer* 13) [Shuffle], Tactic: 0,  -> (Unnamed Layer* 13) [Shuffle]_output",
        "Layer(Myelin): {ForeignNode[a.../b/Unsqueeze_6]}, Tactic: 0x0000000000000000,  -> c[Float(2,12600)]",
        "Layer of another kind",
    ]
    assert from_log(log) == (
        Layer("Reformatting CopyNode for Input Tensor 0 to Conv_0", "Reformat", "0"),
        Layer("3198 + (Unnamed Layer* 13) [Shuffle]", "Constant", "0"),
        Layer("{ForeignNode[a.../b/Unsqueeze_6]}", "Myelin", "0x0000000000000000"),
    )


def test_a_layer_on_the_line_of_the_heading_keeps_its_name_whatever_is_in_it() -> None:
    line = "Layers:Name: a/Layers:/MatMul_1, LayerType: gemm, TacticName: t, StreamId: 0, Metadata: "
    assert from_log([line]) == (Layer("a/Layers:/MatMul_1", "gemm", "t"),)


def test_what_a_layer_does_not_say_is_empty_and_its_stream_the_first() -> None:
    document = {"Layers": [{"Name": "x"}, {"Name": "y", "Metadata": None}, {"Name": "z", "StreamId": "3"}]}
    assert from_inspector(document) == (Layer("x", "", "", 0, ()), Layer("y", "", "", 0, ()), Layer("z", "", "", 3, ()))
    log = [
        "Layers:",
        "Name: x, LayerType: gemm, Metadata: [ONNX Layer:  a b/Add_1 ]",
        "Name: y, LayerType: , StreamId: 2",
    ]
    assert from_log(log) == (Layer("x", "gemm", "", 0, ("a b/Add_1",)), Layer("y", "", "", 2, ()))


def test_layers_of_all_messages_are_listed_in_order_with_repeats() -> None:
    line = "Name: {}, LayerType: gemm, StreamId: 0, Metadata: "
    log = ["Layers:\n" + line.format("b"), "between", line.format("a") + "\n" + line.format("b")]
    assert [layer.name for layer in from_log(log)] == ["b", "a", "b"]
