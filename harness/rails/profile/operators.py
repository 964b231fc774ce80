"""What a layer computes: operators by family, and how a name says which of them are in it.

A family is a set of operators, in one spelling for ONNX, ONNX Runtime and torch: without namespace, case and
underscores, as `word` makes it.
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
"""Operators that are attention, or its softmax: these models have no other."""

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
"""Norms, and the mean that only a norm takes here."""

POINTWISE = _words(
    "add sub rsub mul div pow sqrt rsqrt reciprocal exp log sin cos neg abs erf sign floor ceil round clip clamp "
    "min max minimum maximum sigmoid tanh silu relu gelu quickgelu fastgelu biasgelu swish softplus hardswish where "
    "isnan isinf and or not xor bitwiseand bitwiseor bitwisenot logicaland logicalor logicalnot equal eq ne less lt "
    "le lessequal lessorequal greater gt ge greaterequal greaterorequal maskedfill range arange trilu tril triu "
    "cumsum outer rotaryembedding addcmul addcdiv lerp dropout"
)
"""Operators that compute each value from the values at its place."""

COPY = _words(
    "reshape transpose permute slice concat cat expand unsqueeze squeeze split splitwithsizes chunk gather "
    "gatherelements gathernd shape size cast castlike identity flatten unflatten pad tile repeat constant "
    "constantofshape view unsafeview reshapealias asstrided t copy clone contiguous to tocopy typeas detach alias "
    "select indexselect index narrow unbind stack empty emptylike emptystrided resize ones oneslike zeros zeroslike "
    "full fulllike fill zero scalartensor resolveconj resolveneg resulttype item localscalardense liftfresh expandas "
    "viewas movedim memcpytohost memcpyfromhost reorderinput reorderoutput depthtospace spacetodepth"
)
"""Operators that compute no value: they move, convert, reshape, make room for or look up what there is."""

REDUCTION = _words("reducemax reducesum")
"""Reductions that are no norm's: here only a softmax takes them."""

KNOWN = ATTENTION | PRODUCT | NORM | POINTWISE | COPY | REDUCTION

_NAMESPACE = re.compile(r"^[a-z_0-9]+::")
_NUMBER = re.compile(r"_\d+$")
_EXPORTED = re.compile(r"node_([A-Za-z_]+?)(?:_\d+)?")
_KERNEL_SUFFIX = re.compile(r"_myl\d+_\d+$")
_KERNEL = re.compile(r"__myl_((?:[A-Z][a-z]+)+)(?:_myl\d+_\d+)?")
_CUT = "Etc"


def word(operator: str) -> str:
    """An operator's name without namespace, case and underscores."""
    return _NAMESPACE.sub("", operator).replace("_", "").lower()


@dataclass(frozen=True)
class Node:
    """One operator in a layer.

    Attributes:
        op: which, as `word` spells it.
        module: the last part of its module's path, such as `norm_q`; empty where the name does not say.
    """

    op: str
    module: str = ""


def node(name: str, op: str | None = None) -> Node | None:
    """What a node's name says: `layers.0.self_attn/MatMul_151`, `/layers.0/self_attn/MatMul` or `node_matmul_31`.

    Args:
        name: of the node. What a runtime appended to it, as in `mlp/Mul_236/QuickGeluFusion/`, is not its module.
        op: its operator, where the source says it; None reads it from the name.

    Returns:
        None where neither says an operator that is known, and there is no `op`.
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
    """The operators that a fused layer's own name lists: `Conv_62 + Relu_63`, `a/MatMul_87+b/MatMul_84_myl0_14`.

    A name that lists anything unknown says nothing: what is unknown may be what costs most.
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
    """The abbreviations in a Myelin kernel's name: `Mul`, `Mean`, `Add`, `Sqrt` of `__myl_MulMeanAddSqrt_myl0_12`.

    The last one is `Etc` where the name is cut off. Empty for any other name.
    """
    found = _KERNEL.fullmatch(name)
    return tuple(re.findall(r"[A-Z][a-z]+", found[1])) if found else ()


def is_cut(spelled: tuple[str, ...]) -> bool:
    """Whether a kernel's name tells only some of what it computes."""
    return spelled[-1:] == (_CUT,)
