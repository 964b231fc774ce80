"""Records of differences between two tensors, and the words in which they are told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

LISTED = 20  # the number of differences in the message of a `ParityError`
_PLAYED = re.compile(r"event-(\d+)(?:/(?:tick-\d+|stages))?/?(\[[^\]]*\]|[^/\[]+)")
"""The event of a path, and the stage, `output` or `state` below it."""
_PLACE = re.compile(r"event-(\d+)(?:/tick-(\d+)|/stages)?(?:/([^/\[]+))?(?:/slot-(\d+))?(?=[/\[]|$)")
"""Event, tick, stage and slot of a path of `played`."""


@dataclass(frozen=True)
class Words:
    """Words for the two sides of a comparison, and for the axes of its tensors.

    Attributes:
        got: the side that is checked.
        expected: the side that it is checked against.
        axes: names of the axes of tensors that have as many; an index of any other tensor is told as numbers.
    """

    got: str = "got"
    expected: str = "expected"
    axes: tuple[str, ...] = ()

    def place(self, index: tuple[int, ...] | None) -> str:
        """The position of an element."""
        if not index:
            return "the only element"
        if len(index) == len(self.axes):
            return ", ".join(f"{axis} {number}" for axis, number in zip(self.axes, index, strict=True))
        return f"index {list(index)}"


DEFAULT = Words()
"""Words for any two tensors."""
LATENTS = Words(axes=("row", "frame", "channel"))
"""Words for the latents of this project's pipelines, `[rows, frames, channels]`; those of one slot have one row."""
BLESSED = Words("got", "blessed")
"""Words for a tree against its capture."""
LOCKSTEP = Words("fast", "plain")
"""Words for two engines that get the same events."""


class DifferenceKind(StrEnum):
    """The kind of a difference; if several kinds apply, the first in this order is reported."""

    TYPE = "type"
    DTYPE = "dtype"
    SHAPE = "shape"
    BYTES = "bytes"
    VALUE = "value"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


class ParityError(AssertionError):
    """Two tensors or trees that must be identical differ.

    Attributes:
        differences: all differences; the message tells the first ones, see `listed`.
        event: number of the event of the first difference, where the tree is one of `played`; else None.
        tick: number of its tick; None where the ring counts none.
        stage: its stage, `output` or `state`; else None.
        slot: its slot, from 0; None where the path has none.
    """

    def __init__(self, name: str, differences: Sequence[Difference], words: Words = DEFAULT) -> None:
        """Make the message: the first differences of `name`, and the number of the others."""
        lines = [f"{name} is not identical, {len(differences)} difference(s):", *listed(differences, words)]
        super().__init__("\n  ".join(lines))
        self.differences = tuple(differences)
        place = _PLACE.match(differences[0].name) if differences else None
        event, tick, stage, slot = (None,) * 4 if place is None else place.groups()
        self.stage: str | None = stage
        self.event, self.tick, self.slot = (None if each is None else int(each) for each in (event, tick, slot))


class NothingCompared(AssertionError):
    """Neither side of a comparison has a tensor with an element, so the comparison would prove nothing."""


@dataclass(frozen=True)
class Difference:
    """The difference between a tensor and the expected one.

    The fields after `expected` have values for kind `bytes` only; for other kinds they keep their defaults.

    Attributes:
        name: the tensor's name; in a tree its path (`slots[0]/x`).
        kind: the kind of the difference.
        got: the dtype, the shape (a tuple), the value at `index`, or for other kinds a short description; the
            number or text as Python writes it for kind `value`.
        expected: the same for the expected side.
        index: the index of the first differing element in row-major order.
        count: the number of differing elements.
        total: the number of elements.
        got_bits: the bit pattern at `index` in hexadecimal; a complex element's parts are joined by a comma.
        expected_bits: the same for the expected side.
        max_abs: the largest absolute distance, in float64, over the differing pairs that are finite on both sides; 0.0
            if only signs of zeros differ, inf if the distance overflows, None if no differing pair is finite.
        max_ulp: the largest distance in ULP (see `ulp_distance`) over the differing pairs without a NaN; 0 if all of
            them are zeros of different signs, None if there is no such pair, and for integer dtypes.
        nan_got: the number of NaNs in the whole tensor.
        nan_expected: the number of NaNs in the whole expected tensor.
        nan_payloads: the number of pairs of two NaNs with different bits, the sign bit included.
        zero_signs: the number of pairs of two zeros with different signs.
        sign_flips: the number of nonzero values, infinities included, whose sign alone differs.
    """

    name: str
    kind: DifferenceKind
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
        """The difference in one line; counts that are zero are left out."""
        return self.told(DEFAULT)

    def told(self, words: Words) -> str:
        """The difference in one line, in these words for its sides and axes."""
        if self.kind is DifferenceKind.MISSING:
            return f"{self.name}: missing, {words.expected} {self.expected}"
        if self.kind is DifferenceKind.UNEXPECTED:
            return f"{self.name}: unexpected, {words.got} {self.got}"
        if self.kind is not DifferenceKind.BYTES:
            return f"{self.name}: {self.kind} differs, {words.got} {self.got}, {words.expected} {self.expected}"
        where = f"{self.name}: bytes differ in {self.count} of {self.total} elements"
        return "; ".join([f"{where}, first at {self.first(words)}", *self.facts(words)])

    def first(self, words: Words) -> str:
        """Place and values of the first differing element."""
        got, expected = f"{self.got} ({self.got_bits})", f"{self.expected} ({self.expected_bits})"
        return f"{words.place(self.index)}: {words.got} {got}, {words.expected} {expected}"

    def facts(self, words: Words) -> Iterator[str]:
        """The distances, then the NaN and sign counts that are not zero."""
        yield "no finite pair" if self.max_abs is None else f"max |Δ| {self.max_abs:.3g}"
        if self.max_ulp is not None:
            # Zeros of different signs have the same value and other bytes.
            yield f"max {self.max_ulp} ULP" + (", zeros of different signs" if self.max_ulp == 0 else "")
        if self.nan_got or self.nan_expected:
            counts = f"{words.got} {self.nan_got}, {words.expected} {self.nan_expected}"
            yield f"NaN: {counts}, payload changed in {self.nan_payloads}"
        if self.zero_signs:
            yield f"sign of zero changed in {self.zero_signs}"
        if self.sign_flips:
            yield f"sign flipped in {self.sign_flips}"


def listed(differences: Sequence[Difference], words: Words) -> list[str]:
    """The first `LISTED` differences, one a line, and the number of the others.

    Where all paths begin with an event, as those of `harness.parity.proofs.played` do, what differs later mostly
    follows from the first difference: then that one, and in one line the number of the others and where they lie.
    """
    places = [found for each in differences if (found := _PLAYED.match(each.name))]
    if places and len(places) == len(differences):
        return [differences[0].told(words), *_after([(int(found[1]), found[2]) for found in places[1:]])]
    lines = [difference.told(words) for difference in differences[:LISTED]]
    return lines + [f"and {len(differences) - LISTED} more"] * (len(differences) > LISTED)


def _after(places: Sequence[tuple[int, str]]) -> Iterator[str]:
    """The number of differences at these places, an event and what differs in it each; nothing for none."""
    if not places:
        return
    events = {event for event, _ in places}
    first, last = min(events), max(events)
    where = f"event {first}" if first == last else f"{len(events)} events from {first} to {last}"
    counts = Counter(what for _, what in places).most_common()
    yield f"and {len(places)} more, in {where}: " + ", ".join(f"{what} {count}" for what, count in counts)
