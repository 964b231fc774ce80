"""The table of rules, on names that TensorRT-RTX, TensorRT, ONNX Runtime and torch printed, and on kernels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from harness.engine.aot.layers import Layer
from harness.rails.profile import rules
from harness.rails.profile.rules import RULES, UNATTRIBUTED, Category, Facts, categorise

BUILT = json.loads((Path(__file__).parent / "data" / "rtx_tiny_layers.json").read_text())
"""Name, kind, stream and nodes of the layers of three TensorRT-RTX 1.7 engines of the tiny decoder."""


def listed(name, kind="", *nodes):
    """A layer as an engine lists it."""
    return Facts(Layer(name, kind, nodes=nodes))


def ran(name, op):
    """A node as a runtime reports it."""
    return Facts(Layer(name), op)


def kernel(name):
    """A kernel that ran on a GPU, as torch's profiler reports it."""
    return Facts(Layer(name, rules.KERNEL))


ATTENTION = "layers.0.self_attn"
EXAMPLES = {
    "kernel-copy": [
        kernel("void at::native::elementwise_kernel<128, 2, at::native::direct_copy_kernel_cuda(...)>"),
        kernel("void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>"),
        kernel("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>"),
        kernel("Memcpy DtoD (Device -> Device)"),
        kernel("Memset (Device)"),
    ],
    "kernel-attention": [
        kernel("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x64x128"),
        kernel("triton_tem_fused_flex_attention_2"),
        kernel("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128>>"),
        kernel("triton_per_fused__softmax_3"),
    ],
    "kernel-product": [
        kernel("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT"),
        kernel("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64"),
        kernel("void cutlass::Kernel2<cutlass_75_wmma_tensorop_bf16_s161616gemm_bf16_32x32_64x1_tn_align1>"),
        kernel("void gemv2T_kernel_val<int, int, __nv_bfloat16>"),
        kernel("void cublasLt::splitKreduce_kernel<32, 16, int>"),
        kernel("triton_mm_4"),
    ],
    "kernel-elementwise": [
        kernel("triton_poi_fused_mul_silu_7"),
        kernel("triton_poi_fused_native_layer_norm_1"),
        kernel("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>"),
    ],
    "kernel-norm": [
        kernel("triton_red_fused_add_mean_mul_pow_rsqrt_4"),
        kernel("residual_norm"),
        kernel("normed_heads"),
    ],
    "reformat": [
        listed(
            "Reformatting CopyNode for Input Tensor 0 to {ForeignNode[/Constant_7_output_0.../Einsum_1]}", "Reformat"
        ),
        listed("Reformatting CopyNode for Output Tensor 0 to Conv_19 + Add_20 + Relu_21"),
        listed("Reformatting CopyNode for Network Input voxel_coords", "NoOp"),
    ],
    "foreign-node": [
        listed("{ForeignNode[ReduceMean_4492...Mul_4557]}"),
        listed("{ForeignNode[/decoder/layers.0/self_attn/MatMul.../decoder/layers.0/self_attn/Softmax]}", "Myelin"),
    ],
    "stream-order": [
        listed("__mye118153_myl0_36", "signal"),
        listed("__mye118155_myl0_37", "wait"),
        listed("entry^bb^wait^1_myl0_2", "wait"),
    ],
    "stream-order-name": [listed("entry^bb^signal^1_myl4_0"), listed("exit^bb^wait^1_myl0_8")],
    "host-shapes": [listed("__mye30214_0_myl0_0", "shape_call")],
    "fused-attention-kernel": [
        listed("_gemm_mha_v2_myl0_25"),
        listed("_gemm_mha_v2_myl0_21", "kgen", f"{ATTENTION}/MatMul_184", f"{ATTENTION}/Softmax_183"),
    ],
    "softmax": [
        listed(
            "__myl_SlicReshMaxrSubExpSumDivMul_myl0_63", "kgen", f"{ATTENTION}/Softmax_328", f"{ATTENTION}/MatMul_327"
        ),
        ran(f"{ATTENTION}/Softmax_162", "Softmax"),
        ran(
            f"transformer.{ATTENTION}/aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
        ),
    ],
    "product-of-activations": [
        listed(f"{ATTENTION}/MatMul_160_myl0_20", "gemm", f"{ATTENTION}/MatMul_160", f"{ATTENTION}/Mul_158"),
        listed("/layers.0/self_attn/MatMul"),
        ran("layers.0.cross_attn/MatMul_223/MatMulScaleFusion/", "FusedMatMul"),
    ],
    "product": [
        listed("__myl_FcAddSilu_myl0_4", "runtime_fusion", "time_embed_r.linear_1/Gemm_33", "time_embed_r.act1/Mul_35"),
        listed(f"{ATTENTION}.to_v/MatMul_94+{ATTENTION}.to_k/MatMul_91+{ATTENTION}.to_q/MatMul_88_myl0_16", "gemm"),
        listed("/MatMul_2+/MatMul_1+/MatMul_myl0_2", "gemm"),
        listed("Conv_26 + Relu_27"),
        listed("node_linear_17"),
        ran("layers.0.mlp.down_proj/MatMul_239", "MatMul"),
        ran("transformer.layers.0.mlp.down_proj/aten::mm", "aten::mm"),
        ran("transformer.proj_in_conv/aten::mkldnn_convolution", "aten::mkldnn_convolution"),
    ],
    "norm": [
        listed("__myl_ReshMulMean_myl0_17", "kgen", f"{ATTENTION}/Reshape_93", f"{ATTENTION}.norm_k/ReduceMean_104"),
        ran("layers.0.mlp_norm/ReduceMean_234", "ReduceMean"),
        ran("transformer.norm_out/aten::mean", "aten::mean"),
    ],
    "part-of-norm": [
        listed("__myl_DivMulMulTran_myl0_31", "kgen", f"{ATTENTION}.norm_q/Mul_189", f"{ATTENTION}/Transpose_198"),
        ran("layers.0.cross_attn.norm_k/Pow_182", "Pow"),
        ran("transformer.layers.1.self_attn.norm_k/aten::sum", "aten::sum"),
    ],
    "reduction-of-softmax": [ran("ReduceMax_490", "ReduceMax"), ran("ReduceSum_503", "ReduceSum")],
    "copies-by-spelling": [
        listed("__myl_MoveReplConc_myl0_22", "kgen", f"{ATTENTION}/MatMul_163"),
        listed("__myl_TranReshMove_myl3_5"),
        listed("__myl_Tran_myl0_44", "kgen"),
    ],
    "elementwise": [
        listed("__myl_AddSilu_myl0_6", "kgen", "time_embed_r.linear_2/Gemm_36", "time_embed_r.act2/Sigmoid_37"),
        listed("PWN(PWN(/model.23/one2one_cv3.2/act/Sigmoid), PWN(/model.23/one2one_cv3.2/act/Mul))", "PointWiseV2"),
        listed("Abs_1"),
        ran("time_embed.act1/Mul_14/QuickGeluFusion/", "QuickGelu"),
        ran("Exp_492", "Exp"),
        ran("transformer/aten::le", "aten::le"),
    ],
    "copies": [
        ran("Gather_token_17", "Gather"),
        ran("InsertedPrecisionFreeCast__unsafe_view", "Cast"),
        ran("time_embed_r.time_sinusoid/Slice_28/GatherSliceToSplitFusion", "Split"),
        ran(f"{ATTENTION}.norm_k/Cast_104", "Cast"),
        ran("transformer/aten::_to_copy", "aten::_to_copy"),
        listed("Transpose_7808 + Reshape_7814"),
    ],
    "softmax-by-spelling": [listed("__myl_SlicReshAddMaxrSubExpSumDivMulIsnaSele_myl0_77")],
    "product-by-spelling": [listed("__myl_Fc_myl0_3"), listed("__myl_FcCast_myl3_7")],
    "norm-by-spelling": [
        listed("__myl_MulMeanAddSqrt_myl0_14"),
        listed("__myl_ConcAddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_myl3_1"),
    ],
    "elementwise-by-spelling": [listed("__myl_ReshReshSiluMul_myl0_49"), listed("__myl_Add_myl0_92")],
    "product-kernel": [
        listed("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x16_kernel"),
        listed("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_32x6_tn"),
    ],
    "product-kind": [listed("conv1_h + conv1_relu", "CaskConvolution")],
    "elementwise-kind": [listed("data_bn + data_scale", "Scale")],
    "shuffle-name": [listed("shuffle_between_ONNXTRT_unsqueezeTensor_141")],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_takes_the_layers_that_were_seen_and_no_rule_before_it_does(rule):
    assert [categorise(facts) for facts in EXAMPLES[rule.name]] == [(rule.category, rule.name)] * len(
        EXAMPLES[rule.name]
    )


def test_every_example_is_of_a_rule_and_names_are_not_used_twice():
    assert [rule.name for rule in RULES] == list(EXAMPLES)


def test_nothing_inside_an_opaque_blob_is_read_whatever_its_name_and_metadata_say():
    name = "{ForeignNode[/layers.0/self_attn/Softmax.../layers.0/mlp_norm/ReduceMean]}_myl0_3"
    for facts in (listed(name), listed(name, "gemm", f"{ATTENTION}/Softmax_1"), ran(name, "Softmax")):
        assert categorise(facts)[0] is Category.OPAQUE


@pytest.mark.parametrize(
    "name",
    [
        "__mye4691_myl0_3",
        "__myl_IotaCastAddReshMulSinConcReshCosConcReshAddSqrtDivMulMulMulReshSlicReshNegSlicReshConcMulEtc_myl0_19",
        "__myl_TranCastMulMeanAddSqrtDivMulCastMulReshReshAddReshAddSlicSlicSlicSlicSlicSlicAddSlicSlicEtc_myl0_12",
        "__myl_MulScatAdd_myl0_3",
        "node_of_gpu_0/conv1_1 + node_of_gpu_0/res_conv1_bn_1 + node_of_gpu_0/res_conv1_bn_2",
        "Conv_62 + CustomGeluPlugin_63",
        "patch embedding",
        "UViTNet/SHUFFLE_4_copy_input",
    ],
)
def test_a_name_that_does_not_say_everything_says_nothing(name):
    assert categorise(listed(name)) == (Category.OTHER, "")


def test_an_operator_that_no_rule_knows_is_other_also_in_a_module_that_says_something():
    assert categorise(ran("layers.0.self_attn/NonMaxSuppression_3", "NonMaxSuppression")) == (Category.OTHER, "")


@pytest.mark.parametrize(
    ("nodes", "category"),
    [
        (("a/MatMul_1", "self_attn/Softmax_2", "norm/ReduceMean_3", "b/Add_4", "b/Reshape_5"), Category.ATTENTION),
        (("a/MatMul_1", "norm/ReduceMean_3", "b/Add_4", "b/Reshape_5"), Category.GEMM),
        (("norm/ReduceMean_3", "b/Add_4", "b/Reshape_5"), Category.NORM),
        (("b/Add_4", "b/Reshape_5"), Category.POINTWISE),
        (("b/Cast_4", "b/Reshape_5"), Category.COPY),
    ],
)
def test_a_kernel_that_fuses_several_things_counts_as_what_costs_most(nodes, category):
    assert categorise(listed("fused_0", "kgen", *nodes))[0] is category


def test_a_neighbour_in_the_metadata_of_a_generated_kernel_does_not_count_unless_its_name_spells_it():
    nodes = ("layers.1/Add_291", "layers.1.self_attn_norm/Mul_290", f"{ATTENTION}/MatMul_9", f"{ATTENTION}/Softmax_8")
    assert categorise(listed("__myl_AddReshMulAdd_myl0_46", "kgen", *nodes))[0] is Category.POINTWISE
    assert categorise(listed("__myl_AddDivMulAdd_myl0_46", "kgen", *nodes))[0] is Category.NORM
    assert categorise(listed("__myl_FcAddMulAdd_myl0_46", "kgen", *nodes))[0] is Category.ATTENTION


def test_a_name_that_is_cut_off_leaves_the_metadata_to_say_what_is_in_it_but_for_a_product_which_it_begins_with():
    cut = "__myl_AddSqrtDivMulReshReshAddSlicSlicEtc_myl0_15"
    nodes = (f"{ATTENTION}/MatMul_9", "layers.0.mlp_norm/Mul_3")
    assert categorise(listed(cut, "kgen", *nodes))[0] is Category.NORM
    assert categorise(listed(cut, "kgen", f"{ATTENTION}/Softmax_8"))[0] is Category.ATTENTION


@pytest.mark.parametrize(
    ("module", "op", "category"),
    [
        ("layers.0.self_attn_norm", "MatMul", Category.GEMM),
        ("layers.0.self_attn.to_out.0", "MatMul", Category.GEMM),
        ("decoder.cross_attention", "MatMul", Category.ATTENTION),
        ("layers.0.self_attn_norm", "Mul", Category.NORM),
        ("layers.0.normalizer_free", "Mul", Category.POINTWISE),
        ("layers.0.self_attn", "Mul", Category.POINTWISE),
        ("layers.0.norm_q", "Reshape", Category.COPY),
    ],
)
def test_the_last_part_of_a_module_path_decides_what_a_product_or_an_elementwise_operator_is_for(module, op, category):
    assert categorise(ran(f"{module}/{op}_7", op))[0] is category
    assert categorise(listed(f"{module}/{op}_7"))[0] is category


@pytest.mark.parametrize(
    ("dtype", "counts"),
    [
        ("float32", {"attention": 12, "gemm": 22, "norm": 27, "pointwise": 6, "copy-reformat": 26}),
        ("float16", {"attention": 4, "gemm": 22, "norm": 20, "pointwise": 14, "copy-reformat": 16}),
        ("bfloat16", {"attention": 4, "gemm": 22, "norm": 20, "pointwise": 12, "copy-reformat": 22}),
    ],
)
def test_the_layers_of_a_built_engine_are_attributed(dtype, counts):
    found = Counter(
        categorise(Facts(Layer(name, kind, "", stream, tuple(nodes))))[0] for name, kind, stream, nodes in BUILT[dtype]
    )
    assert {str(category): number for category, number in found.items()} == counts
    assert sum(found[category] for category in UNATTRIBUTED) < 0.05 * len(BUILT[dtype])


def test_names_alone_attribute_less_than_metadata_does():
    """What the metadata is for; and that the kinds and nodes above are used."""
    alone = {dtype: Counter(categorise(Facts(Layer(row[0])))[0] for row in rows) for dtype, rows in BUILT.items()}
    assert {dtype: found[Category.OTHER] for dtype, found in alone.items()} == {
        "float32": 8,
        "float16": 11,
        "bfloat16": 15,
    }


def test_the_table_has_a_version():
    assert rules.RULES_VERSION == 1


def test_what_the_runtime_reports_goes_before_every_other_source_even_if_it_is_empty():
    layer = Layer("b/Mul_1", nodes=("a/MatMul_1",))
    assert [node.op for node in Facts(layer, "").nodes] == [""]
    assert [node.op for node in Facts(layer, "aten::add").nodes] == ["add"]
    assert [node.op for node in Facts(layer).nodes] == ["matmul"]
