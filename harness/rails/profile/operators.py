"""Families of operators, and parsers that find the operators of a layer in names of layers and nodes.

A family is a set of operators. Operators of ONNX, ONNX Runtime and torch have one common spelling, made by `word`:
without namespace and underscores, in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ATTENTION = _words(
    "softmax logsoftmax safesoftmax attention multiheadattention groupqueryattention scaleddotproductattention "
    "scaleddotproductflashattention scaleddotproductflashattentionforcpu scaleddotproductefficientattention "
    "scaleddotproductcudnnattention scaleddotproductattentionmath scaleddotproductfusedattentionoverrideable "
    "flashattentionforward efficientattentionforward cudnnattentionforward"
)
"""Attention operators, and softmax, which the supported models use in attention only."""

PRODUCT = _words(
    "matmul gemm conv convtranspose fusedmatmul fusedgemm fusedconv nhwcfusedconv einsum matmulnbits matmulinteger "
    "qlinearmatmul qlinearconv dynamicquantizematmul linear addmm addmmactivation mm bmm baddbmm convolution "
    "mkldnnconvolution cudnnconvolution cudnnconvolutiontranspose convolutionoverrideable conv1d convtranspose1d "
    "mkllinear mkldnnlinear"
)
"""Matrix products and convolutions."""

NORM = _words(
    "layernormalization rmsnormalization simplifiedlayernormalization skiplayernormalization "
    "skipsimplifiedlayernormalization instancenormalization groupnormalization batchnormalization lpnormalization "
    "reducemean reducel2 mean layernorm nativelayernorm rmsnorm fusedrmsnorm groupnorm nativegroupnorm batchnorm"
)
"""Norms, and mean operators, which the supported models use in norms only."""

POINTWISE = _words(
    "add sub rsub mul div pow sqrt rsqrt reciprocal exp log sin cos neg abs erf sign floor ceil round clip clamp "
    "min max minimum maximum sigmoid tanh silu relu gelu quickgelu fastgelu biasgelu swish softplus hardswish where "
    "isnan isinf and or not xor bitwiseand bitwiseor bitwisenot logicaland logicalor logicalnot equal eq ne less lt "
    "le lessequal lessorequal greater gt ge greaterequal greaterorequal maskedfill range arange trilu tril triu "
    "cumsum outer rotaryembedding addcmul addcdiv lerp dropout"
)
"""Elementwise operators, and generators of constants such as `range`."""

COPY = _words(
    "reshape transpose permute slice concat cat expand unsqueeze squeeze split splitwithsizes chunk gather "
    "gatherelements gathernd shape size cast castlike identity flatten unflatten pad tile repeat constant "
    "constantofshape view unsafeview reshapealias asstrided t copy clone contiguous to tocopy typeas detach alias "
    "select indexselect index narrow unbind stack empty emptylike emptystrided resize ones oneslike zeros zeroslike "
    "full fulllike fill zero scalartensor resolveconj resolveneg resulttype item localscalardense liftfresh expandas "
    "viewas movedim memcpytohost memcpyfromhost reorderinput reorderoutput depthtospace spacetodepth"
)
"""Operators that compute no values: they move, convert, reshape, allocate or look up values."""

REDUCTION = _words("reducemax reducesum")
"""Maximum and sum, which the supported models use in softmax only."""

KNOWN = ATTENTION | PRODUCT | NORM | POINTWISE | COPY | REDUCTION

_NAMESPACE = re.compile(r"^[a-z_0-9]+::")
_NUMBER = re.compile(r"_\d+$")
_EXPORTED = re.compile(r"node_([A-Za-z_]+?)(?:_\d+)?")
_KERNEL_SUFFIX = re.compile(r"_myl\d+_\d+$")
_KERNEL = re.compile(r"__myl_((?:[A-Z][a-z]+)+)(?:_myl\d+_\d+)?")
_CUT = "Etc"


def word(operator: str) -> str:
    """The common spelling of an operator's name: no namespace, no underscores, lower case."""
    return _NAMESPACE.sub("", operator).replace("_", "").lower()


@dataclass(frozen=True)
class Node:
    """One operator in a layer.

    Attributes:
        op: the operator, as `word` spells it.
        module: the last part of the module's path, such as `norm_q`; empty where unknown.
    """

    op: str
    module: str = ""


def node(name: str, op: str | None = None) -> Node | None:
    """Parse a node's name: `layers.0.self_attn/MatMul_151`, `/layers.0/self_attn/MatMul` or `node_matmul_31`.

    Args:
        name: the name of the node. Parts after the operator, as in `mlp/Mul_236/QuickGeluFusion/`, are ignored.
        op: the operator, if the profiler reports one; None takes the operator from the name.

    Returns:
        The operator and its module; None without `op` if the name contains no known operator.
    """
    parts = [part for part in name.strip("/").split("/") if part]
    place = next((i for i, part in enumerate(parts) if _operator(part) in KNOWN), None)
    if op is None and place is None:
        return None
    path = parts[: len(parts) - 1 if place is None else place]
    return Node(
        word(op) if op is not None else _operator(parts[place or 0]), path[-1].rsplit(".", 1)[-1] if path else ""
    )


def nodes_in(name: str) -> tuple[Node, ...]:
    """The operators in the name of a fused layer: `Conv_62 + Relu_63`, `a/MatMul_87+b/MatMul_84_myl0_14`.

    Empty if any listed operator is unknown, because the unknown operator may be the most expensive one.
    """
    listed = list(_listed(_KERNEL_SUFFIX.sub("", name)))
    found = [node(each) for each in listed]
    return tuple(each for each in found if each is not None) if listed and None not in found else ()


def _listed(name: str) -> Iterator[str]:
    for part in re.split(r"\s*\+\s*|,\s*", name):
        yield re.sub(r"PWN\(|\)", "", part).strip()


def _operator(part: str) -> str:
    exported = _EXPORTED.fullmatch(part)
    return word(exported[1] if exported else _NUMBER.sub("", part))


def pieces(name: str) -> tuple[str, ...]:
    """The abbreviations in a Myelin kernel's name: `Mul`, `Mean`, `Add`, `Sqrt` in `__myl_MulMeanAddSqrt_myl0_12`.

    The last abbreviation is `Etc` if TensorRT truncated the name. The result is empty for any other name.
    """
    found = _KERNEL.fullmatch(name)
    return tuple(re.findall(r"[A-Z][a-z]+", found[1])) if found else ()


def is_cut(spelled: tuple[str, ...]) -> bool:
    """Return True if TensorRT truncated the kernel's name, so that abbreviations are missing."""
    return spelled[-1:] == (_CUT,)
