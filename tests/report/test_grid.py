"""The ring over its ticks: which ticks are shown, what a cell says, and where the first difference is framed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.parity.proofs.evidence import Evidence, Place, Seat, TickSeen
from harness.report.grid import COLUMNS, Cell, grid
from tests.report.made import evidence


def played(first: int, ticks: int) -> Evidence:
    return replace(evidence(ticks=ticks), first=Place(first, 1, "step"))


@pytest.mark.parametrize("first", [0, 1, 59, 60, 250, 439, 440, 499])
def test_the_tick_of_the_first_difference_is_shown_and_framed_wherever_it_is_in_a_long_play(first: int) -> None:
    made = grid(played(first, 500))
    assert len(made.ticks) == COLUMNS and made.cut == 500 - COLUMNS
    for rows, name in ((made.stages, "step"), (made.slots, "slot 1")):
        framed = [(row, made.ticks[at]) for row, cells in rows for at, cell in enumerate(cells) if cell.first]
        assert framed == [(name, first)]


def test_ticks_before_and_after_the_first_difference_are_shown() -> None:
    ticks = grid(played(250, 500)).ticks
    assert ticks == tuple(range(ticks[0], ticks[0] + COLUMNS))
    assert min(250 - ticks[0], ticks[-1] - 250) > COLUMNS // 3


def test_a_slot_says_its_request_and_the_steps_that_are_done() -> None:
    rows = dict(grid(evidence(ticks=3, id="a request with a long name")).slots)
    assert [cell.text for cell in rows["slot 1"]] == [f"a request wit… {done}/3" for done in (1, 2, 3)]
    assert [cell.text for cell in rows["slot 0"]] == ["", "", ""]


def test_a_slot_that_differs_is_red_also_where_no_request_is_in_it() -> None:
    seat = Seat("a", 1, 8)
    tick = TickSeen(0, (seat, None, seat, None), {}, frozenset({0, 1}))
    cells = [row[0] for _, row in grid(Evidence((tick,))).slots]
    assert cells == [Cell("a 1/8", "r0 d"), Cell("", "d"), Cell("a 1/8", "r0"), Cell("", "")]


def test_requests_have_colours_of_their_own_which_they_keep() -> None:
    seats = [(Seat("a", 1, 8), Seat("b", 1, 8)), (Seat("c", 1, 8), Seat("b", 2, 8)), (None, Seat("a", 8, 8))]
    made = grid(Evidence(tuple(TickSeen(number, each, {}) for number, each in enumerate(seats))))
    assert [[cell.classes for cell in cells] for _, cells in made.slots] == [["r0", "r2", ""], ["r1", "r1", "r0"]]
