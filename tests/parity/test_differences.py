"""The words for many differences: each of them, or for a ring that was played the first one and where the rest lie."""

from __future__ import annotations

from typing import Any

import pytest

from harness.parity.compare import assert_identical
from harness.parity.differences import DEFAULT, Difference, DifferenceKind, ParityError, listed
from harness.parity.proofs.played import played
from tests.parity.proofs.rings import Slots, nudged


def moved_at(*names: str) -> list[Difference]:
    return [Difference(name, DifferenceKind.VALUE, 1, 2) for name in names]


PLAYED = moved_at(
    "event-6/tick-3/guidance/slot-1/velocity", "event-6/tick-3/step/slot-1/latent", "event-6/output/lane0",
    "event-7/tick-4/guidance/slot-1/velocity", "event-7/state/x", "event-9/state/x", "event-9/stages/draw/noise",
)  # fmt: skip


def test_of_a_ring_that_was_played_the_first_difference_is_told_and_the_rest_is_counted_with_its_places() -> None:
    first, rest = listed(PLAYED, DEFAULT)
    assert first == PLAYED[0].told(DEFAULT)
    assert rest == "and 6 more, in 3 events from 6 to 9: state 2, step 1, output 1, guidance 1, draw 1"


def test_a_ring_that_went_wrong_in_one_place_alone_has_one_line() -> None:
    assert listed(PLAYED[:1], DEFAULT) == [PLAYED[0].told(DEFAULT)]
    assert listed(PLAYED[:2], DEFAULT)[1] == "and 1 more, in event 6: step 1"


def test_a_tree_of_other_paths_lists_each_difference() -> None:
    mixed = [*PLAYED, *moved_at("weights/a")]
    assert listed(mixed, DEFAULT) == [each.told(DEFAULT) for each in mixed]
    assert len(listed(moved_at("event-a/x", "event-b/x"), DEFAULT)) == 2


def test_a_played_ring_that_went_wrong_early_is_told_in_two_lines_however_long_it_ran() -> None:
    wrong, right = (played(ring, [1.0] * 40) for ring in (Slots(2, nudged("guidance", 1)), Slots()))
    with pytest.raises(ParityError) as error:
        assert_identical(wrong, right, "stream")
    title, first, rest = str(error.value).splitlines()
    assert title == f"stream is not identical, {len(error.value.differences)} difference(s):"
    assert first.startswith("  event-2/tick-2/guidance/slot-1/value: bytes differ")
    assert rest.startswith(f"  and {len(error.value.differences) - 1} more, in 38 events from 2 to 39: ")


@pytest.mark.parametrize(("path", "place"), [
    ("event-5/tick-3/guidance/slot-1/velocity", (5, 3, "guidance", 1)),
    ("event-5/tick-3/decode/rows", (5, 3, "decode", None)),
    ("event-5/stages/gather/slot-0[a]", (5, None, "gather", 0)),
    ("event-12/output", (12, None, "output", None)),
    ("event-12/state[latents]", (12, None, "state", None)),
    ("event-2", (2, None, None, None)),
    ("slots[0]/event-2", (None, None, None, None)),
    ("event-2x/output", (None, None, None, None)),
])  # fmt: skip
def test_an_error_names_the_place_of_the_first_difference_of_a_ring_that_was_played(
    path: str, place: tuple[Any, ...]
) -> None:
    other = Difference("event-0/tick-0/gather/slot-0/x", DifferenceKind.DTYPE, "a", "b")
    error = ParityError("it", [Difference(path, DifferenceKind.DTYPE, "a", "b"), other])
    assert (error.event, error.tick, error.stage, error.slot) == place
