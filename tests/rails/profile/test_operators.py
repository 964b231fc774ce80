"""What names say of the operators in a layer."""

from __future__ import annotations

import pytest

from harness.rails.profile import operators
from harness.rails.profile.operators import Node, is_cut, node, nodes_in, pieces, word


@pytest.mark.parametrize("spelling", ["LessEqual", "aten::less_equal", "aten::less_equal_", "less_equal"])
def test_an_operator_is_one_word_however_it_is_spelled(spelling):
    assert word(spelling) == "lessequal"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("layers.0.self_attn.to_out.0/MatMul_158", Node("matmul", "0")),
        ("layers.0.self_attn/MatMul_151", Node("matmul", "self_attn")),
        ("/decoder/layers.0/self_attn/MatMul_1", Node("matmul", "self_attn")),
        ("layers.0.mlp/Mul_236/QuickGeluFusion/", Node("mul", "mlp")),
        ("node_softmax_15", Node("softmax")),
        ("layers.0.self_attn/MatMul_151/Cast_2/Mul", Node("matmul", "self_attn")),
        ("Unheard_1/Unheard_2", None),
        ("node_conv2d_transpose", None),
        ("Conv_0", Node("conv")),
        ("/model.23/one2one_cv3.2/Conv", Node("conv", "2")),
        ("patch embedding", None),
        ("", None),
    ],
)
def test_a_nodes_name_says_operator_and_module(name, found):
    assert node(name) == found


def test_a_runtime_that_reports_the_operator_is_believed_over_the_name():
    assert node("layers.0.self_attn/MatMul_151/MatMulScaleFusion/", "FusedMatMul") == Node("fusedmatmul", "self_attn")
    assert node("Gather_token_17", "Gather") == Node("gather")
    assert node("mlp/Unheard_3", "Unheard") == Node("unheard", "mlp")


def test_a_fused_layers_name_lists_its_nodes_or_says_nothing():
    assert nodes_in("Conv_26 + Relu_27") == (Node("conv"), Node("relu"))
    assert nodes_in("a.to_v/MatMul_94+a.to_k/MatMul_91_myl0_16") == (Node("matmul", "to_v"), Node("matmul", "to_k"))
    assert nodes_in("PWN(PWN(/act/Sigmoid), PWN(/act/Mul))") == (Node("sigmoid", "act"), Node("mul", "act"))
    assert nodes_in("Conv_26 + MyPlugin_27") == nodes_in("MyPlugin_27 + Conv_26") == nodes_in("") == ()
    assert nodes_in("Conv_26,  Relu_27") == (Node("conv"), Node("relu"))


def test_a_generated_kernels_name_spells_what_it_computes():
    assert pieces("__myl_MulMeanAddSqrt_myl0_12") == ("Mul", "Mean", "Add", "Sqrt")
    assert pieces("__myl_Fc") == ("Fc",)
    assert pieces("_gemm_mha_v2_myl0_25") == pieces("__mye4691_myl0_3") == pieces("MulAdd_3") == ()


def test_a_kernels_name_that_is_cut_off_is_known_as_such():
    assert is_cut(pieces("__myl_MulAddEtc_myl0_12"))
    assert not is_cut(pieces("__myl_MulAdd_myl0_12"))
    assert not is_cut(())


def test_no_operator_is_in_two_families():
    names = ("ATTENTION", "PRODUCT", "NORM", "POINTWISE", "COPY", "REDUCTION")
    families = [getattr(operators, name) for name in names]
    assert sum(map(len, families)) == len(operators.KNOWN)
