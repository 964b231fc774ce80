"""The ring over time: one table with a column for each tick, a row for each stage and a row for each slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.parity.proofs.evidence import DIFFERS, NONE, SAME, STATE, Evidence, TickSeen

COLUMNS = 120
"""The most ticks of a table; of a longer play those around the first difference."""
COLOURS = 6
"""Colours of requests, used in turn."""
_GLYPHS = {SAME: "·", DIFFERS: "✗", NONE: ""}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its classes, and whether the first difference is here."""

    text: str
    classes: str = ""
    first: bool = False


@dataclass(frozen=True)
class Grid:
    """The table: numbers of the ticks, and rows of stages and slots by name; `cut` counts ticks that are left out."""

    ticks: tuple[int, ...]
    stages: tuple[tuple[str, tuple[Cell, ...]], ...]
    slots: tuple[tuple[str, tuple[Cell, ...]], ...]
    cut: int

    @property
    def of_capture(self) -> bool:
        """True for a play that was held against a capture, which has one digest a tick and no stages."""
        return [name for name, _ in self.stages] == [STATE]


def grid(evidence: Evidence) -> Grid:
    """Make the table of an evidence."""
    ticks = _window(evidence)
    stages = list(dict.fromkeys(name for tick in ticks for name in tick.stages))
    depth = max((len(tick.seats) for tick in ticks), default=0)
    colours: dict[str, int] = {}
    for tick in ticks:
        for seat in tick.seats:
            if seat is not None:
                colours.setdefault(seat.id, len(colours) % COLOURS)
    return Grid(
        tuple(tick.number for tick in ticks),
        tuple((name, tuple(_stage(evidence, tick, name) for tick in ticks)) for name in stages),
        tuple(
            (f"slot {place}", tuple(_slot(evidence, tick, place, colours) for tick in ticks)) for place in range(depth)
        ),
        len(evidence.ticks) - len(ticks),
    )


def _window(evidence: Evidence) -> Sequence[TickSeen]:
    first = 0 if evidence.first is None or evidence.first.tick is None else evidence.first.tick
    start = max(0, min(first - COLUMNS // 2, len(evidence.ticks) - COLUMNS))
    return evidence.ticks[start : start + COLUMNS]


def _stage(evidence: Evidence, tick: TickSeen, name: str) -> Cell:
    state = tick.stages.get(name, NONE)
    here = evidence.first is not None and (evidence.first.tick, evidence.first.stage) == (tick.number, name)
    return Cell(_GLYPHS[state], {DIFFERS: "x", SAME: "s"}.get(state, ""), here)


def _slot(evidence: Evidence, tick: TickSeen, place: int, colours: dict[str, int]) -> Cell:
    here = evidence.first is not None and (evidence.first.tick, evidence.first.slot) == (tick.number, place)
    seat = tick.seats[place] if place < len(tick.seats) else None
    if seat is None:
        return Cell("", "d" if place in tick.slots else "", here)
    name = seat.id if len(seat.id) <= 14 else seat.id[:13] + "…"
    return Cell(f"{name} {seat.step}/{seat.total}", f"r{colours[seat.id]}{' d' * (place in tick.slots)}", here)
