"""Categories of layers, decided by a table of rules: the first rule that matches a layer gives its category.

Rules for opaque layers come first, so that names inside an opaque layer are never read. A fused kernel gets the
category of its most expensive operator. The order is: attention, matrix product, norm, elementwise operator, copy.

Rules use the best source that exists: the ONNX nodes in the plan's metadata, or the operator that the runtime reports,
else the name of the layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from harness.engine.aot.layers import Layer
from harness.rails.profile import operators as ops
from harness.rails.profile.operators import Node

RULES_VERSION = 1
"""The version of the table. Any change that moves a layer to another category increments the version."""


class Category(StrEnum):
    """The category of a layer.

    `attention` is softmax and the matrix products between activations, alone or fused. The projections before and after
    attention are `gemm`. `copy-reformat` layers compute no values: they move, convert, reshape or allocate data, or
    synchronize streams.
    """

    ATTENTION = "attention"
    GEMM = "gemm"
    NORM = "norm"
    POINTWISE = "pointwise"
    OPAQUE = "myelin-opaque"
    COPY = "copy-reformat"
    OTHER = "other"


KERNEL = "kernel"
"""The layer type of a kernel that ran on a GPU, in torch's profile."""

UNATTRIBUTED = (Category.OPAQUE, Category.OTHER)
"""Categories that cannot be attributed: opaque layers, and layers that no rule matches."""

_MODULE_OF_ATTENTION = re.compile(r"(?:self_|cross_)?(?:attn|attention)\d*")
_MODULE_OF_NORM = re.compile(r"(?:.*_)?(?:layer|rms|group)?norm(?:_.*|\d*)|ln_?\d*", re.IGNORECASE)

_PRODUCT_PIECES = frozenset(("Fc", "Gemm", "Conv", "Dot", "Bmm", "Mm"))
_SOFTMAX_PIECES = frozenset(("Exp", "Maxr"))
_NORM_PIECES = frozenset(("Mean", "Sqrt", "Rsqr", "Div"))
_COPY_PIECES = frozenset(("Resh", "Slic", "Cast", "Tran", "Conc", "Repl", "Move", "Gath", "Pad"))
_POINTWISE_PIECES = frozenset(
    ("Mul", "Add", "Sub", "Div", "Sqrt", "Rsqr", "Neg", "Abs", "Exp", "Sin", "Cos", "Silu", "Sele", "Iota", "Isna",
     "Or", "And", "Not", "Lt", "Le", "Gt", "Ge", "Eql", "Pow", "Max", "Min", "Sigm", "Tanh", "Relu", "Gelu")
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """The known facts about a layer.

    Attributes:
        layer: the layer as the plan lists it, or a layer with a name only.
        op: the operator that the runtime reports; None if the runtime reports none.
    """

    layer: Layer
    op: str | None = None

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The abbreviations in a Myelin kernel's name; see `operators.pieces`."""
        return ops.pieces(self.layer.name)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The operators in the layer, from the best source."""
        if self.op is not None:
            named = ops.node(self.layer.name, self.op)
            return () if named is None else (named,)
        if self.layer.nodes:
            return tuple(each for each in map(ops.node, self.layer.nodes) if each is not None)
        return () if self.pieces else ops.nodes_in(self.layer.name)

    def spells(self, pieces: frozenset[str], *, told: bool = False) -> bool:
        """Return True if the name of a generated kernel contains one of `pieces`; True for every other layer.

        The check excludes neighbours. The metadata of a generated kernel may name nodes of neighbouring kernels: for
        example, the kernel that pads the input of a product names the product. The kernel's own name lists only what
        the kernel computes, unless TensorRT truncated the name.

        Args:
            pieces: the abbreviations to look for.
            told: True: check a truncated name as well, because these abbreviations stand at its beginning. False: a
                truncated name gives True.
        """
        if not self.pieces or (ops.is_cut(self.pieces) and not told):
            return True
        return not pieces.isdisjoint(self.pieces)


class Matcher(Protocol):
    """The condition of a rule."""

    def __call__(self, facts: Facts) -> bool:
        """Return True if the layer matches."""
        ...


@dataclass(frozen=True)
class Named:
    """Matches layers whose name contains a match of the regular expression `pattern`."""

    pattern: str

    def __call__(self, facts: Facts) -> bool:
        """Search the pattern in the name; see `Matcher`."""
        return re.search(self.pattern, facts.layer.name) is not None


@dataclass(frozen=True)
class OfKernel:
    """Matches kernels of torch's profile whose name, in lower case, contains a match of `pattern`."""

    pattern: str

    def __call__(self, facts: Facts) -> bool:
        """Search the pattern in the name of a kernel; see `Matcher`."""
        return facts.layer.kind == KERNEL and re.search(self.pattern, facts.layer.name.lower()) is not None


@dataclass(frozen=True)
class OfKind:
    """Matches layers by the builder's layer type; `kinds` are in lower case, the case of the type is ignored."""

    kinds: frozenset[str]

    def __call__(self, facts: Facts) -> bool:
        """Look up the layer type; see `Matcher`."""
        return facts.layer.kind.lower() in self.kinds


@dataclass(frozen=True)
class Does:
    """Matches layers with at least one operator of a family.

    Attributes:
        family: the operators.
        pieces: the abbreviations of which the name of a generated kernel must contain one; empty: no check.
        told: see `Facts.spells`.
        module: a pattern for the whole last part of the operator's module path; None: any module.
    """

    family: frozenset[str]
    pieces: frozenset[str] = frozenset()
    told: bool = False
    module: re.Pattern[str] | None = None

    def __call__(self, facts: Facts) -> bool:
        """Look for an operator of the family; see `Matcher`."""
        if self.pieces and not facts.spells(self.pieces, told=self.told):
            return False
        return any(
            node.op in self.family and (self.module is None or self.module.fullmatch(node.module) is not None)
            for node in facts.nodes
        )


@dataclass(frozen=True)
class OnlyDoes:
    """Matches layers with known operators that all belong to `family`."""

    family: frozenset[str]

    def __call__(self, facts: Facts) -> bool:
        """Check that all operators belong to the family; see `Matcher`."""
        return bool(facts.nodes) and all(node.op in self.family for node in facts.nodes)


@dataclass(frozen=True)
class Spelled:
    """Matches generated kernels whose name is not truncated, contains one of `some`, and nothing outside `within`."""

    some: frozenset[str]
    within: frozenset[str] | None = None

    def __call__(self, facts: Facts) -> bool:
        """Check the abbreviations in the name; see `Matcher`."""
        spelled = frozenset(facts.pieces)
        if ops.is_cut(facts.pieces) or spelled.isdisjoint(self.some):
            return False
        return self.within is None or spelled <= self.within


@dataclass(frozen=True)
class Rule:
    """One rule of the table.

    Attributes:
        name: the name of the rule.
        category: the category of the layers that the rule matches.
        matches: the condition.
    """

    name: str
    category: Category
    matches: Matcher


def _kinds(*kinds: str) -> OfKind:
    return OfKind(frozenset(kinds))


RULES: tuple[Rule, ...] = (
    # A batched product that is a part of attention counts as a product: the name of its kernel does not say more.
    Rule("kernel-copy", Category.COPY, OfKernel(r"memcpy|memset|direct_copy|cat_?array|index|gather|fill")),
    Rule("kernel-attention", Category.ATTENTION, OfKernel(r"flash|fmha|sdpa|attention|softmax")),
    Rule(
        "kernel-product",
        Category.GEMM,
        OfKernel(r"gemm|gemv|nvjet|cutlass|cublas|splitk|xmma|triton_(?:tem|mm)|convolve|implicit_con"),
    ),
    Rule("kernel-elementwise", Category.POINTWISE, OfKernel(r"^triton_poi_|elementwise|arange")),
    Rule("kernel-norm", Category.NORM, OfKernel(r"^triton_(?:per|red)_|reduce_kernel|norm")),
    Rule("reformat", Category.COPY, Named(r"^Reformatting CopyNode ")),
    Rule("foreign-node", Category.OPAQUE, Named(r"\{ForeignNode\[")),
    Rule("stream-order", Category.COPY, _kinds("signal", "wait")),
    Rule("stream-order-name", Category.COPY, Named(r"^(?:entry|exit)\^bb\^(?:signal|wait)\^")),
    Rule("host-shapes", Category.COPY, _kinds("shape_call")),
    Rule("fused-attention-kernel", Category.ATTENTION, Named(r"^_gemm_mha_v\d")),
    Rule("softmax", Category.ATTENTION, Does(ops.ATTENTION, _SOFTMAX_PIECES)),
    Rule(
        "product-of-activations",
        Category.ATTENTION,
        Does(ops.PRODUCT, _PRODUCT_PIECES, told=True, module=_MODULE_OF_ATTENTION),
    ),
    Rule("product", Category.GEMM, Does(ops.PRODUCT, _PRODUCT_PIECES, told=True)),
    Rule("norm", Category.NORM, Does(ops.NORM, _NORM_PIECES)),
    Rule("part-of-norm", Category.NORM, Does(ops.POINTWISE | {"sum"}, _NORM_PIECES, module=_MODULE_OF_NORM)),
    # ONNX Runtime splits softmax in float16. Its reductions are attention, its elementwise parts are pointwise.
    Rule("reduction-of-softmax", Category.ATTENTION, Does(ops.REDUCTION, _SOFTMAX_PIECES)),
    Rule("copies-by-spelling", Category.COPY, Spelled(_COPY_PIECES, within=_COPY_PIECES)),
    Rule("elementwise", Category.POINTWISE, Does(ops.POINTWISE)),
    Rule("copies", Category.COPY, OnlyDoes(ops.COPY)),
    Rule("softmax-by-spelling", Category.ATTENTION, Spelled(frozenset(("Maxr",)))),
    Rule("product-by-spelling", Category.GEMM, Spelled(_PRODUCT_PIECES)),
    Rule("norm-by-spelling", Category.NORM, Spelled(frozenset(("Mean",)))),
    Rule("elementwise-by-spelling", Category.POINTWISE, Spelled(_POINTWISE_PIECES, _POINTWISE_PIECES | _COPY_PIECES)),
    Rule("product-kernel", Category.GEMM, Named(r"^(?:sm\d+|ampere|volta|turing|hopper)_.*gemm")),
    Rule("product-kind", Category.GEMM, _kinds("gemm", "caskconvolution", "caskgemmconvolution", "convolution")),
    Rule("elementwise-kind", Category.POINTWISE, _kinds("scale", "pointwise", "pointwisev2")),
    Rule("shuffle-name", Category.COPY, Named(r"^shuffle_(?:before|between|after)_")),
)


def categorise(facts: Facts) -> tuple[Category, str]:
    """The category of a layer and the name of the rule that matched; `other` and an empty name if none did."""
    for rule in RULES:
        if rule.matches(facts):
            return rule.category, rule.name
    return Category.OTHER, ""
