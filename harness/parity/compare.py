"""The byte comparison: two tensors are identical exactly if dtype, shape and bytes are equal.

The comparison reads integer views and never floating point values: for floating point values `-0.0 == 0.0` holds,
`nan == nan` does not hold, and a tolerance hides one ULP. Values are read only to describe a difference that the
integers have shown. Device, strides and `requires_grad` are not compared. A complex element counts as one element in
`index`, `count` and `total`; distances, NaN counts and sign counts treat its real and imaginary parts separately.

A `Difference` holds plain values and no tensor, so later writes do not change it. A view and its buffer share memory,
so they are always identical: to find out if a buffer was overwritten, keep a clone or a `digest` of the buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity import values
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
from harness.parity.differences import (
    LISTED,
    Difference,
    DifferenceKind,
    NothingCompared,
    ParityError,
)
from harness.parity.trees import children, joined, positional

__all__ = [
    "LISTED",
    "Difference",
    "DifferenceKind",
    "NotComparable",
    "NothingCompared",
    "ParityError",
    "assert_identical",
    "compare_named",
    "compare_trees",
    "copied",
    "difference",
    "digest",
    "digest_tree",
    "identical",
    "max_abs",
    "named_differences",
    "tree_differences",
    "ulp_distance",
]


Leaf = tuple[str, Tensor]
"""Type and tensor of a leaf."""
Compare = Callable[[Tensor, Tensor, str], Difference | None]


def difference(actual: object, expected: object, name: str = "tensor") -> Difference | None:
    """The difference between `actual` and `expected` in dtype, shape or bytes; None if they are identical.

    Two empty tensors of the same dtype and shape do not differ; `assert_identical` refuses such a comparison. An object
    that is no tensor, on either side, is a difference of kind `type`.

    Args:
        actual: the tensor to check.
        expected: the expected tensor.
        name: the tensor's name in the report.

    Raises:
        NotComparable: a tensor is meta, sparse, quantized, nested, of a wrapper subclass, or of a dtype that this
            module does not support.
    """
    if not isinstance(actual, Tensor) or not isinstance(expected, Tensor):
        return Difference(name, DifferenceKind.TYPE, summary(actual), summary(expected))
    got, wanted = parts(actual, name), parts(expected, name)
    if actual.dtype != expected.dtype:
        return Difference(name, DifferenceKind.DTYPE, actual.dtype, expected.dtype)
    if actual.shape != expected.shape:
        return Difference(name, DifferenceKind.SHAPE, tuple(actual.shape), tuple(expected.shape))
    moved = moved_bits(got, wanted)
    return _bytes_difference(name, got, wanted, moved, actual.is_complex()) if moved.any() else None


def identical(actual: Tensor, expected: Tensor) -> bool:
    """Return True if two tensors are identical. Faster than `difference`, which is the reference.

    Raises:
        NotComparable: as for `difference`.
    """
    got, wanted = parts(actual, "actual"), parts(expected, "expected")
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    words = WORDS[got.dtype.itemsize]
    return torch.equal(got.view(words), wanted.view(words))  # for integers, equal values mean equal bits


def compare_trees(actual: object, expected: object, name: str = "tensor") -> list[Difference]:
    """All differences between two trees: nested mappings, sequences and dataclasses with tensors as leaves.

    Mappings are compared by key, in any order of insertion, and dataclasses as mappings of their fields. Sequences are
    compared by position; lists and tuples are treated alike. None equals only None. A leaf that is neither a tensor nor
    None is a difference of kind `type`, even if both sides are equal. Names are the paths of `harness.parity.trees`
    (`slots[0]/x`).

    Args:
        actual: the tree to check.
        expected: the expected tree.
        name: the name, in the report, of a tensor that is the whole tree.

    Raises:
        NothingCompared: neither side has a tensor with at least one element.
        NotComparable: as for `difference`.
        InvalidInput: a key of a mapping is neither a string nor an integer.
    """
    _refuse_nothing(actual, expected, name)
    return list(_walk(actual, expected, "", name))


def compare_named(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[Difference]:
    """All differences between two flat mappings of tensors. The report uses their keys as they are.

    Raises:
        NothingCompared: neither side has a tensor with at least one element.
        NotComparable: as for `difference`.
    """
    _refuse_nothing(actual, expected, "tensors")
    return named_differences(actual, expected)


def named_differences(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[Difference]:
    """All differences between two flat mappings, as `compare_named`, but mappings without elements are allowed.

    For one comparison out of many: the caller must check that at least one of them compared an element.

    Raises:
        NotComparable: as for `difference`.
    """
    # As a path step, because the root takes one slash from a step's front.
    got, wanted = ({f"/{key}": tensor for key, tensor in side.items()} for side in (actual, expected))
    return list(_below(got, wanted, ""))


def tree_differences(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], compare: Compare = difference
) -> list[Difference]:
    """All differences between two trees that `trees.named` has named; what only `actual` has comes last.

    A leaf of another type is one difference of kind `type`. Mappings without elements are allowed, as for
    `named_differences`.

    Args:
        actual: the tree to check.
        expected: the expected tree.
        compare: compares a tensor with the expected one of the same path.

    Raises:
        NotComparable: as for `difference`.
    """
    got, wanted = ({path: (kind, side[name]) for name in side for path, kind in (values.parted(name),)}
                   for side in (actual, expected))  # fmt: skip
    found = [_leaf_difference(path, leaf, got.get(path), compare) for path, leaf in wanted.items()]
    added = [(path, leaf) for path, leaf in got.items() if path not in wanted]
    found += [Difference(path, DifferenceKind.UNEXPECTED, values.described(*leaf), None) for path, leaf in added]
    return [each for each in found if each is not None]


def assert_identical(actual: object, expected: object, name: str = "tensor") -> None:
    """Assert that two tensors or two trees are identical in keys, dtype, shape and bytes.

    Args:
        actual: the tensor or tree to check; for trees see `compare_trees`.
        expected: the expected tensor or tree.
        name: the name of the tensor or of the whole tree in the message.

    Raises:
        ParityError: the sides differ; the message lists the differences.
        NothingCompared: neither side has a tensor with at least one element.
        NotComparable: as for `difference`.
        InvalidInput: as for `compare_trees`.
    """
    found = compare_trees(actual, expected, name)
    if found:
        raise ParityError(name, found)


def max_abs(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute distance, in float64. For bounds on platforms on which bytes cannot be equal.

    The distance of a pair with equal bytes is 0, also for NaNs and infinities. A NaN in any other pair makes the result
    inf, which exceeds every finite bound. The distance of two empty tensors is 0.

    Raises:
        InvalidInput: dtypes or shapes differ.
        NotComparable: as for `difference`.
    """
    got, wanted = _alike_parts(actual, expected)
    moved = moved_bits(got, wanted)
    largest = float(distances(values_of(got)[moved], values_of(wanted)[moved]).max(initial=0.0))
    return math.inf if math.isnan(largest) else largest


def ulp_distance(actual: Tensor, expected: Tensor) -> int | None:
    """The largest distance in ULP: the number of steps between neighbouring representable values.

    Bit patterns are mapped to integers in the order of their values. Both zeros map to 0, so their distance is 0,
    although their bytes differ. Across a change of sign the distance is the sum of both distances from zero: the
    smallest positive and the smallest negative value are 2 ULP apart. An infinity is one step after the largest finite
    value. The result is None if a pair with different bytes has a NaN,
    because there is no such distance. None cannot be compared with a bound by mistake; a skipped NaN would pass.

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


def _leaf_difference(path: str, wanted: Leaf, found: Leaf | None, compare: Compare) -> Difference | None:
    """The difference of one leaf of the expected side; `found` is None where the other side lacks the path."""
    if found is None:
        return Difference(path, DifferenceKind.MISSING, None, values.described(*wanted))
    (kind, expected), (other, got) = wanted, found
    if kind != other:
        return Difference(path, DifferenceKind.TYPE, values.described(other, got), values.described(kind, expected))
    differs = compare(got, expected, path)
    if differs is None or kind not in values.EXACT:
        return differs
    return Difference(
        path, DifferenceKind.VALUE, *values.both(*(values.decoded(kind, each) for each in (got, expected)))
    )


def _alike_parts(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of both sides; dtypes and shapes must be equal, because broadcasting would hide a wrong shape."""
    got, wanted = parts(actual, "actual"), parts(expected, "expected")
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        raise InvalidInput("actual", summary(actual), summary(expected))
    return got, wanted


def _bytes_difference(name: str, got: Tensor, expected: Tensor, moved: Array, is_complex: bool) -> Difference:
    """Describe the difference of two tensors' parts; `moved` is True where bits differ, at least once."""
    elements = moved.any(axis=-1) if is_complex else moved
    index = tuple(int(i) for i in np.unravel_index(int(elements.reshape(-1).argmax()), elements.shape))
    got_values, wanted_values = values_of(got), values_of(expected)
    a, b = got_values[moved], wanted_values[moved]
    finite, numbers = np.isfinite(a) & np.isfinite(b), ~(np.isnan(a) | np.isnan(b))
    got_words, wanted_words = words(got)[moved], words(expected)[moved]
    return Difference(
        name,
        DifferenceKind.BYTES,
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
    """The ULP and sign fields of a `Difference`, from differing words without NaNs."""
    magnitude = split(got)[0]
    mirrored = magnitude == split(expected)[0]
    zeros = mirrored & (magnitude == 0)
    return {
        "max_ulp": int(ulps(got, expected).max()) if got.size else None,
        "zero_signs": int(zeros.sum()),
        "sign_flips": int((mirrored & ~zeros).sum()),
    }


def _walk(actual: object, expected: object, path: str, name: str) -> Iterator[Difference]:
    """Yield the differences at and below `path` in the order of the expected side; a tensor at `path` is `name`."""
    if actual is None and expected is None:
        return
    got, wanted = children(actual), children(expected)
    if got is None or wanted is None or positional(actual) != positional(expected):
        found = difference(actual, expected, name)
        if found is not None:
            yield found
        return
    yield from _below(got, wanted, path)


def _below(got: Mapping[str, object], wanted: Mapping[str, object], path: str) -> Iterator[Difference]:
    """Yield the differences between the children of two containers, given by path step; unexpected children last."""
    for step, value in wanted.items():
        name = joined(path, step)
        if step in got:
            yield from _walk(got[step], value, name, name)
        else:
            yield Difference(name, DifferenceKind.MISSING, None, summary(value))
    for step in got:
        if step not in wanted:
            yield Difference(joined(path, step), DifferenceKind.UNEXPECTED, summary(got[step]), None)


def _refuse_nothing(actual: object, expected: object, name: str) -> None:
    if not _holds_elements(actual) and not _holds_elements(expected):
        sides = f"got {summary(actual)}, expected {summary(expected)}"
        raise NothingCompared(f"{name}: neither side has a tensor with an element: {sides}")


def _holds_elements(tree: object) -> bool:
    """Return True if the tree contains a tensor with at least one element."""
    if isinstance(tree, Tensor):
        return tree.numel() > 0
    below = children(tree)
    return below is not None and any(_holds_elements(child) for child in below.values())
