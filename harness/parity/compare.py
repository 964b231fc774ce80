"""The byte comparison: two tensors are the same exactly when dtype, shape and bytes are.

The verdict is taken on integer views and never on floating point values: there `-0.0 == 0.0` holds, `nan == nan` does
not, and a tolerance hides one ULP. Values are read only to describe a difference that the integers have found. Device,
strides and `requires_grad` are not compared. A complex tensor's element is one element in `index`, `count` and `total`;
distances and the NaN and sign facts take its real and imaginary parts one by one.

Nothing here keeps a tensor or a view of one: a `Difference` holds plain values, so later writes do not change it.
For the same reason a view compared with the buffer it looks into is compared with itself; whoever wants to know whether
a buffer was overwritten keeps a clone, or a `digest`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.bits import (
    FLOATS,
    WORDS,
    Array,
    NotComparable,
    copied,
    digest,
    digest_tree,
    distances,
    element,
    hexadecimal,
    moved_bits,
    parts,
    split,
    summary,
    ulps,
    values_of,
    words,
)

__all__ = [
    "Difference",
    "Kind",
    "NotComparable",
    "NothingCompared",
    "ParityError",
    "assert_identical",
    "compare_trees",
    "copied",
    "difference",
    "digest",
    "digest_tree",
    "identical",
    "max_abs",
    "tree_differences",
    "ulp_distance",
]

LISTED = 20  # differences that a `ParityError` spells out


class Kind(StrEnum):
    """In what two things differ; of several, the first in this order is reported."""

    TYPE = "type"
    DTYPE = "dtype"
    SHAPE = "shape"
    BYTES = "bytes"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


class ParityError(AssertionError):
    """Two things that must be identical are not.

    Attributes:
        differences: all of them, also those that the message leaves out.
    """

    def __init__(self, name: str, differences: Sequence[Difference]) -> None:
        """List the first `LISTED` differences of `name` and count the rest."""
        lines = [f"{name} is not identical, {len(differences)} difference(s):", *map(str, differences[:LISTED])]
        if len(differences) > LISTED:
            lines.append(f"and {len(differences) - LISTED} more")
        super().__init__("\n  ".join(lines))
        self.differences = tuple(differences)


class NothingCompared(AssertionError):
    """Neither side of a comparison holds a tensor with an element, so agreement would mean nothing."""


@dataclass(frozen=True)
class Difference:
    """How one tensor differs from the one that was expected.

    The fields below `expected` are for kind `bytes` alone and keep their defaults otherwise.

    Attributes:
        name: the tensor's name, in a tree its path (`slots/0/x`).
        kind: what differs.
        got: the dtype, the shape (a tuple), the value at `index` or, for the other kinds, a short description.
        expected: the same of the expected side.
        index: the first differing element in row-major order, one number a dimension.
        count, total: how many elements differ, and how many there are.
        got_bits, expected_bits: bit patterns at `index` in hexadecimal, a complex element's parts joined by a comma.
        max_abs: largest absolute distance in float64 over the differing pairs that are finite on both sides (0.0 when
            only signs of zeros differ, inf where the distance overflows); None when no such pair is finite.
        max_ulp: largest distance, as `ulp_distance` counts it, over the differing pairs without a NaN; None when there
            is no such pair and for integer dtypes.
        nan_got, nan_expected: NaNs in the whole tensor.
        nan_payloads: NaNs on both sides with other bits, the NaN's sign bit included.
        zero_signs: zeros on both sides with another sign.
        sign_flips: nonzero values, infinities included, that became their negative.
    """

    name: str
    kind: Kind
    got: object
    expected: object
    index: tuple[int, ...] | None = None
    count: int = 0
    total: int = 0
    got_bits: str = ""
    expected_bits: str = ""
    max_abs: float | None = None
    max_ulp: int | None = None
    nan_got: int = 0
    nan_expected: int = 0
    nan_payloads: int = 0
    zero_signs: int = 0
    sign_flips: int = 0

    def __str__(self) -> str:
        """One line with every fact that is not zero."""
        if self.kind is Kind.MISSING:
            return f"{self.name}: missing, expected {self.expected}"
        if self.kind is Kind.UNEXPECTED:
            return f"{self.name}: unexpected {self.got}"
        if self.kind is not Kind.BYTES:
            return f"{self.name}: {self.kind} differs, got {self.got}, expected {self.expected}"
        where = f"{self.name}: bytes differ in {self.count} of {self.total} elements, first at {_place(self.index)}"
        values = f"got {self.got} ({self.got_bits}), expected {self.expected} ({self.expected_bits})"
        return "; ".join([f"{where}: {values}", *self._facts()])

    def _facts(self) -> Iterator[str]:
        """The distances, then the NaN and sign counts that are not zero."""
        yield "no finite pair" if self.max_abs is None else f"max |Δ| {self.max_abs:.3g}"
        if self.max_ulp is not None:
            yield f"max {self.max_ulp} ULP"
        if self.nan_got or self.nan_expected:
            yield f"NaN: got {self.nan_got}, expected {self.nan_expected}, payload changed in {self.nan_payloads}"
        if self.zero_signs:
            yield f"sign of zero changed in {self.zero_signs}"
        if self.sign_flips:
            yield f"sign flipped in {self.sign_flips}"


def difference(actual: object, expected: object, name: str = "tensor") -> Difference | None:
    """How `actual` differs from `expected` in dtype, shape or bytes; None when it does not.

    Two empty tensors of one dtype and shape do not differ; `assert_identical` is what refuses to call that a result.
    Anything that is not a tensor, on either side, is a difference of kind `type`. `name` is what the report calls it.

    Raises:
        NotComparable: a side is meta, sparse, quantized, nested, a wrapper subclass or of a dtype without a rule here.
    """
    if not isinstance(actual, Tensor) or not isinstance(expected, Tensor):
        return Difference(name, Kind.TYPE, summary(actual), summary(expected))
    got, wanted = parts(actual, name), parts(expected, name)
    if actual.dtype != expected.dtype:
        return Difference(name, Kind.DTYPE, actual.dtype, expected.dtype)
    if actual.shape != expected.shape:
        return Difference(name, Kind.SHAPE, tuple(actual.shape), tuple(expected.shape))
    moved = moved_bits(got, wanted)
    return _bytes_difference(name, got, wanted, moved, actual.is_complex()) if moved.any() else None


def identical(actual: Tensor, expected: Tensor) -> bool:
    """Whether `difference` is None, without finding out where: quicker.

    Raises:
        NotComparable: as for `difference`.
    """
    got, wanted = parts(actual, "actual"), parts(expected, "expected")
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    words = WORDS[got.dtype.itemsize]
    return torch.equal(got.view(words), wanted.view(words))  # integers: their equality is that of their bits


def compare_trees(actual: object, expected: object, name: str = "tensor") -> list[Difference]:
    """Every difference between two nestings of mappings and sequences with tensors as leaves.

    Mappings are compared by key set, whatever the order of insertion; sequences by position, a list like a tuple. None
    equals only None. A leaf that is neither a tensor nor None is a difference of kind `type`, even when both sides hold
    the same. Names are paths (`slots/0/x`); a tensor that is the whole tree is called `name`.

    Raises:
        NothingCompared: neither side holds a tensor with at least one element.
        NotComparable: as for `difference`.
    """
    if not _holds_elements(actual) and not _holds_elements(expected):
        sides = f"got {summary(actual)}, expected {summary(expected)}"
        raise NothingCompared(f"{name}: neither side holds a tensor with an element: {sides}")
    return tree_differences(actual, expected, name)


def tree_differences(actual: object, expected: object, name: str = "tensor") -> list[Difference]:
    """What `compare_trees` returns, also where there is nothing to compare: for one comparison of many.

    Whoever calls this answers for it that the many did compare something.

    Raises:
        NotComparable: as for `difference`.
    """
    return list(_walk(actual, expected, "", name))


def assert_identical(actual: object, expected: object, name: str = "tensor") -> None:
    """Pass exactly when two tensors, or two trees of them, are the same in keys, dtype, shape and bytes.

    Trees are as `compare_trees` takes them; `name` is what the report calls a tensor, or the tree as a whole.

    Raises:
        ParityError: they differ; it lists the differences.
        NothingCompared: neither side holds a tensor with at least one element.
        NotComparable: as for `difference`.
    """
    found = compare_trees(actual, expected, name)
    if found:
        raise ParityError(name, found)


def max_abs(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute distance, taken in float64, for bounds on platforms where bytes cannot match.

    Pairs with the same bytes are 0 apart, NaNs and infinities included. A NaN in any other pair makes the result inf:
    no finite bound lets it pass. Two empty tensors are 0 apart.

    Raises:
        InvalidInput: dtypes or shapes differ.
        NotComparable: as for `difference`.
    """
    got, wanted = _alike_parts(actual, expected)
    moved = moved_bits(got, wanted)
    largest = float(distances(values_of(got)[moved], values_of(wanted)[moved]).max(initial=0.0))
    return math.inf if math.isnan(largest) else largest


def ulp_distance(actual: Tensor, expected: Tensor) -> int | None:
    """Largest distance in units in the last place, the number of steps between neighbouring representable values.

    Bit patterns are mapped to integers in the order of their values; both zeros map to 0 and are 0 apart, an infinity
    is the step after the largest finite value. None when a pair with other bytes has a NaN: there is no such distance,
    and comparing None with a bound is an error where a skipped NaN would be a pass.

    Raises:
        InvalidInput: dtypes or shapes differ, or the dtype is neither floating point nor complex.
        NotComparable: as for `difference`.
    """
    got, wanted = _alike_parts(actual, expected)
    if got.dtype not in FLOATS:
        raise InvalidInput("actual", summary(actual), "a floating point or complex tensor")
    moved = moved_bits(got, wanted)
    if any(np.isnan(values_of(side)[moved]).any() for side in (got, wanted)):
        return None
    return int(ulps(words(got)[moved], words(wanted)[moved]).max(initial=0))


def _place(index: tuple[int, ...] | None) -> str:
    """An element's place in words; three dimensions are a latent's slot, frame and channel."""
    if index is not None and len(index) == 3:
        return f"slot {index[0]}, frame {index[1]}, channel {index[2]}"
    return f"index {index}" if index else "the only element"


def _alike_parts(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides' parts, of one dtype and shape: a broadcast distance would answer another question."""
    got, wanted = parts(actual, "actual"), parts(expected, "expected")
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        raise InvalidInput("actual", summary(actual), summary(expected))
    return got, wanted


def _bytes_difference(name: str, got: Tensor, expected: Tensor, moved: Array, is_complex: bool) -> Difference:
    """Describe two tensors' parts that differ where `moved` is set (somewhere)."""
    elements = moved.any(axis=-1) if is_complex else moved
    index = tuple(int(i) for i in np.unravel_index(int(elements.reshape(-1).argmax()), elements.shape))
    got_values, wanted_values = values_of(got), values_of(expected)
    a, b = got_values[moved], wanted_values[moved]
    finite, numbers = np.isfinite(a) & np.isfinite(b), ~(np.isnan(a) | np.isnan(b))
    got_words, wanted_words = words(got)[moved], words(expected)[moved]
    return Difference(
        name,
        Kind.BYTES,
        element(got_values, index),
        element(wanted_values, index),
        index=index,
        count=int(elements.sum()),
        total=elements.size,
        got_bits=hexadecimal(words(got), index),
        expected_bits=hexadecimal(words(expected), index),
        max_abs=float(distances(a[finite], b[finite]).max()) if finite.any() else None,
        nan_got=int(np.isnan(got_values).sum()),
        nan_expected=int(np.isnan(wanted_values).sum()),
        nan_payloads=int((np.isnan(a) & np.isnan(b)).sum()),
        **(_ulp_and_signs(got_words[numbers], wanted_words[numbers]) if got.dtype in FLOATS else {}),
    )


def _ulp_and_signs(got: Array, expected: Array) -> dict[str, Any]:
    """A `Difference`'s ULP and sign fields, of differing words without NaNs."""
    magnitude = split(got)[0]
    mirrored = magnitude == split(expected)[0]
    zeros = mirrored & (magnitude == 0)
    return {
        "max_ulp": int(ulps(got, expected).max()) if got.size else None,
        "zero_signs": int(zeros.sum()),
        "sign_flips": int((mirrored & ~zeros).sum()),
    }


def _walk(actual: object, expected: object, path: str, root: str) -> Iterator[Difference]:
    """The differences below `path`, in the expected side's order, unexpected keys last."""
    if actual is None and expected is None:
        return
    got, wanted = _children(actual), _children(expected)
    if got is None or wanted is None or isinstance(actual, Mapping) != isinstance(expected, Mapping):
        found = difference(actual, expected, path or root)
        if found is not None:
            yield found
        return
    prefix = f"{path}/" if path else ""
    for key, value in wanted.items():
        if key in got:
            yield from _walk(got[key], value, f"{prefix}{key}", root)
        else:
            yield Difference(f"{prefix}{key}", Kind.MISSING, None, summary(value))
    for key in got:
        if key not in wanted:
            yield Difference(f"{prefix}{key}", Kind.UNEXPECTED, summary(got[key]), None)


def _children(tree: object) -> Mapping[Any, object] | None:
    """A mapping as it is, a sequence by position, None for a leaf; text is a leaf."""
    if isinstance(tree, Mapping):
        return tree
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes | bytearray):
        return dict(enumerate(tree))
    return None


def _holds_elements(tree: object) -> bool:
    """Whether a tensor with at least one element is anywhere in the tree."""
    if isinstance(tree, Tensor):
        return tree.numel() > 0
    children = _children(tree)
    return children is not None and any(_holds_elements(child) for child in children.values())
