"""Which category a layer belongs to: a table of rules, the first that matches decides.

The order is the precedence, also within a kernel that fuses several things. What nothing can be said of comes first, so
that no name inside an opaque blob is ever read. Of what is known a fused kernel counts as what costs most in it:
attention, then a matrix product, a norm, an elementwise operator, and as a copy only where it does nothing else.

What is known of a layer is, best first: the ONNX nodes that the engine's metadata names, or the operator that the
runtime reports; where there is neither, what the layer's own name says.
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
"""Of the table. Whatever moves a layer from one category to another makes it one more."""


class Category(StrEnum):
    """What a layer does.

    `attention` is softmax and the products between activations, alone or fused; the projections before and after it
    are `gemm`. `copy-reformat` computes no value: it moves, converts, reshapes, makes room, or orders streams.
    """

    ATTENTION = "attention"
    GEMM = "gemm"
    NORM = "norm"
    POINTWISE = "pointwise"
    OPAQUE = "myelin-opaque"
    COPY = "copy-reformat"
    OTHER = "other"


UNATTRIBUTED = (Category.OPAQUE, Category.OTHER)
"""What nobody can say what it is: opaque, or matched by no rule."""

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
    """What is known of a layer.

    Attributes:
        layer: as the engine lists it, or only its name.
        op: its operator, where the runtime reports one.
    """

    layer: Layer
    op: str | None = None

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """What a Myelin kernel's name spells; see `operators.pieces`."""
        return ops.pieces(self.layer.name)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The operators in it."""
        if self.op is not None:
            named = ops.node(self.layer.name, self.op)
            return () if named is None else (named,)
        if self.layer.nodes:
            return tuple(each for each in map(ops.node, self.layer.nodes) if each is not None)
        return () if self.pieces else ops.nodes_in(self.layer.name)

    def spells(self, pieces: frozenset[str], *, told: bool = False) -> bool:
        """Whether the name of a generated kernel has one of `pieces`, so that a node counts; True of any other layer.

        The metadata of a generated kernel names neighbours as well: the one that pads a product's input names the
        product. Its name says what it computes, unless it is cut off.

        Args:
            pieces: the abbreviations.
            told: a name that is cut off tells it too, as it begins with them.
        """
        if not self.pieces or (ops.is_cut(self.pieces) and not told):
            return True
        return not pieces.isdisjoint(self.pieces)


class Matcher(Protocol):
    """What a rule matches."""

    def __call__(self, facts: Facts) -> bool:
        """Whether a layer is one of them."""
        ...


@dataclass(frozen=True)
class Named:
    """A layer's name, by a pattern that is searched in it."""

    pattern: str

    def __call__(self, facts: Facts) -> bool:
        """See `Matcher`."""
        return re.search(self.pattern, facts.layer.name) is not None


@dataclass(frozen=True)
class OfKind:
    """A layer's type as the builder calls it, without case."""

    kinds: frozenset[str]

    def __call__(self, facts: Facts) -> bool:
        """See `Matcher`."""
        return facts.layer.kind.lower() in self.kinds


@dataclass(frozen=True)
class Does:
    """A node of the family in the layer, which the name of a generated kernel has to spell.

    Attributes:
        family: the operators.
        pieces: of which such a name has one; empty where it need not.
        told: see `Facts.spells`.
        module: a pattern that the whole last part of the node's module path matches.
    """

    family: frozenset[str]
    pieces: frozenset[str] = frozenset()
    told: bool = False
    module: re.Pattern[str] | None = None

    def __call__(self, facts: Facts) -> bool:
        """See `Matcher`."""
        if self.pieces and not facts.spells(self.pieces, told=self.told):
            return False
        return any(
            node.op in self.family and (self.module is None or self.module.fullmatch(node.module) is not None)
            for node in facts.nodes
        )


@dataclass(frozen=True)
class OnlyDoes:
    """A layer with nodes, all of them of the family."""

    family: frozenset[str]

    def __call__(self, facts: Facts) -> bool:
        """See `Matcher`."""
        return bool(facts.nodes) and all(node.op in self.family for node in facts.nodes)


@dataclass(frozen=True)
class Spelled:
    """A generated kernel whose name, not cut off, has one of `some` and nothing outside `within`."""

    some: frozenset[str]
    within: frozenset[str] | None = None

    def __call__(self, facts: Facts) -> bool:
        """See `Matcher`."""
        spelled = frozenset(facts.pieces)
        if ops.is_cut(facts.pieces) or spelled.isdisjoint(self.some):
            return False
        return self.within is None or spelled <= self.within


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        name: of the rule.
        category: of what it matches.
        matches: what it matches.
    """

    name: str
    category: Category
    matches: Matcher


def _kinds(*kinds: str) -> OfKind:
    return OfKind(frozenset(kinds))


RULES: tuple[Rule, ...] = (
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
    # Of a softmax that a runtime takes apart, as ONNX Runtime does in float16. Its elementwise parts stay elementwise.
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
    """A layer's category and the name of the rule that says so; `other` and an empty name where none does."""
    for rule in RULES:
        if rule.matches(facts):
            return rule.category, rule.name
    return Category.OTHER, ""
