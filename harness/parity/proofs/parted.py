"""Verdicts about two engines in lockstep: where they part, or what was compared and is the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.parity.differences import LOCKSTEP, Difference, Words
from harness.parity.proofs.handed_out import Changed

LONGEST = 200
"""Largest number of characters of an event in a message."""


@dataclass(frozen=True)
class Where:
    """Place of a difference in a ring; None for what the ring does not say or what the difference does not have.

    Attributes:
        tick: number of the tick, from 0.
        slot: place in the ring.
        stage: name of the stage.
        ticks: number of ticks that the event ran.
    """

    tick: int | None = None
    slot: int | None = None
    stage: str | None = None
    ticks: int = 1

    def __str__(self) -> str:
        """The place in words, such as `tick 7, slot 2, stage guidance`; empty where nothing is known."""
        several = self.tick is not None and self.ticks > 1
        tick = f"one of ticks {self.tick} to {(self.tick or 0) + self.ticks - 1}" if several else f"tick {self.tick}"
        parts = {tick: self.tick, f"slot {self.slot}": self.slot, f"stage {self.stage}": self.stage}
        return ", ".join(words for words, known in parts.items() if known is not None)


class EnginesParted(AssertionError):
    """Two engines differ after the same events.

    Attributes:
        event: number of the first event after which the engines differ, from 0.
        tick: number of the tick, from 0, as the plain ring counts; what happens between two ticks belongs to the second
            one. None where the engines do not count ticks.
        slot: first place in the ring that differs at the stage; None for a difference that no stage shows.
        stage: first stage that differs, in the order in which the plain ring reports stages; else None.
        path: path of the first tensor that differs; empty where the difference is not one of tensors. Paths of a ring's
            state begin with `state/`.
        differences: all differences of the stage and slot, or all differences of output and state.
    """

    words: Words = LOCKSTEP

    def __init__(
        self,
        event: int,
        what: object,
        detail: str,
        differences: Iterable[Difference] = (),
        where: Where | None = None,
        who: str = "plain and fast differ",
        bounds: Iterable[str] = (),
    ) -> None:
        """Name the event after which the engines differ, the differences, and the bounds that are in force."""
        self.event, self.differences = event, tuple(differences)
        place = where or Where()
        self.tick, self.slot, self.stage = place.tick, place.slot, place.stage
        self.path = self.differences[0].name if self.differences else ""
        in_force = (f"not exact by request: {bound}" for bound in bounds)
        lines = [*([detail] if detail else []), *(each.told(self.words) for each in self.differences), *in_force]
        title = ", ".join(filter(None, [f"{who} at event {event}, {_short(what)}", str(place)]))
        super().__init__("\n  ".join([f"{title}:", *lines]))


class OutputChanged(EnginesParted):
    """An output that an engine handed out earlier was changed by a later event, so it lives in a reused buffer.

    Attributes:
        side: the side that handed the output out: `plain` or `fast`.
        made: number of the event that made the output; `event` is the number of the event that changed it.
        turn: the side that ran when the output changed.
    """

    words: Words = Words("now", "handed out")

    def __init__(self, event: int, what: object, changed: Changed, where: Where, bounds: Iterable[str] = ()) -> None:
        """Name the output, the event that made it and the event that changed it."""
        output = changed.output
        self.side, self.made, self.turn = output.side, output.event, changed.turn
        who = f"{output.side} handed out {output.path} at event {output.event}, and {changed.turn} changed it"
        super().__init__(event, what, "", [changed.difference], where, who, bounds)


@dataclass(frozen=True)
class Agreed:
    """Counts of what was compared and is the same.

    Attributes:
        events: number of events.
        tensors: number of returned tensors that have an element.
        states: number of tensors of state; 0 for engines without the protocol, whose state was not compared.
        stages: number of tensors of stages.
        again: number of comparisons of an earlier output with its copy; of no account when two objects are compared.
        skipped: members of `where_both` that only one side reported at some place.
        bounds: for each stage that need not be exact, its bound and the largest distance, in words.
    """

    events: int
    tensors: int
    states: int = 0
    stages: int = 0
    again: int = field(default=0, compare=False)
    skipped: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The counts in words, with every bound that was in force."""
        state = f"{self.states} of state" if self.states else "state not compared"
        stages = f", {self.stages} of stages" if self.stages else ""
        skipped = f", {', '.join(self.skipped)} only where both report it" if self.skipped else ""
        bounds = "".join(f"; {bound}" for bound in self.bounds)
        return f"{self.tensors} tensors after {self.events} events, {state}{stages}{skipped}{bounds}"


def _short(event: object) -> str:
    text = repr(event)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
