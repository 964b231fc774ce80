"""Coverage of scripts: which features of a ring were used, and which met; what never occurred is a failure.

A proof says nothing of a feature that no script used. The goals follow from the features that the adapter declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, combinations_with_replacement

from harness.engine.errors import InvalidInput
from harness.parity.foreign.journal import Journal, Moment
from harness.parity.foreign.records import Cancel, Depth, Features, Live, Submit, Tick

LISTED = 12
"""Number of goals that a message names."""

REPLACED = "a request enters in the tick after one ended, or in the same tick"
QUEUED = "a request waits for a place"
REFILLED = "a request enters a ring that has become empty"
AGAIN = "a request is submitted a second time, with equal values"
DROPPED_QUEUED, DROPPED_FLYING = "a waiting request is cancelled", "a request in flight is cancelled"
DROPPED_ENDED = "a request that has ended is cancelled"
SMALLER, LARGER = "the depth falls while requests are in flight", "the depth grows while requests are in flight"


class NotCovered(AssertionError):
    """The scripts did not bring about something that the ring can do.

    Attributes:
        missing: the goals that never occurred.
    """

    def __init__(self, missing: Iterable[str], total: int, scripts: int, size: int) -> None:
        """Name what never occurred, and what to add."""
        self.missing = tuple(missing)
        shown = [f"never: {goal}" for goal in self.missing[:LISTED]]
        if len(self.missing) > LISTED:
            shown.append(f"and {len(self.missing) - LISTED} more")
        advice = (
            f"draw more scripts (count={2 * scripts}) or longer ones (size={2 * size}), leave out values of features "
            f"that need not meet, or give a reason: waived={{{self.missing[0]!r}: 'why'}}"
        )
        title = f"{len(self.missing)} of {total} things did not occur in {scripts} scripts:"
        super().__init__("\n  ".join([title, *shown, advice]))


def goals(features: Features) -> tuple[str, ...]:
    """Return everything that scripts of these features have to bring about, in words."""
    values = _values(features)
    found = [_beside(*pair) for pair in combinations_with_replacement(values, 2)] + [_used(each) for each in values]
    found += [_changed(name) for name, each in features.request.items() if len(each) > 1]
    found += [_changed_live(name) for name in features.live]
    found += [_in_force(name, value) for name, each in features.live.items() for value in each]
    found += [REPLACED, QUEUED, REFILLED, AGAIN]
    found += [DROPPED_QUEUED, DROPPED_FLYING, DROPPED_ENDED] if features.cancel else []
    found += [SMALLER, LARGER] if len(features.depths) > 1 else []
    return tuple(found)


def happened(journal: Journal) -> set[str]:
    """Return what a script brought about."""
    submits = journal.submits()
    found = set(_of_life(journal, submits))
    for moment in journal.moments:
        found |= set(_of_moment(moment))
        if isinstance(moment.operation, Tick):
            flying = {number for number in (*moment.before.values(), *moment.present)}
            found |= set(_of_tick([submits[number] for number in sorted(flying)]))
    return found


def missing(features: Features, seen: set[str], waived: Mapping[str, str]) -> list[str]:
    """Return the goals that never occurred and are not waived.

    Raises:
        InvalidInput: a waiver of something that is no goal or that occurred, or one without a reason.
    """
    asked = goals(features)
    for goal, reason in waived.items():
        if goal not in asked or goal in seen or not reason.strip():
            why = "a goal that never occurred, with a reason"
            got = "no goal" if goal not in asked else "it occurred" if goal in seen else "no reason"
            raise InvalidInput(f"waived[{goal!r}]", got, why)
    return [goal for goal in asked if goal not in seen and goal not in waived]


def _of_life(journal: Journal, submits: Mapping[int, Submit]) -> Iterator[str]:
    """What follows from the order of the events."""
    values: set[str] = set()
    controls = {name: values[0] for name, values in journal.features.live.items()}
    depth = next(iter(journal.features.depths), 0)
    last: dict[int, int] = {}
    was_busy = False
    for moment in journal.moments:
        operation = moment.operation
        if isinstance(operation, Submit):
            if repr(operation.values) in values:
                yield AGAIN
            values.add(repr(operation.values))
        if isinstance(operation, Live):
            controls[operation.control] = operation.value
        if isinstance(operation, Depth) and moment.before and operation.depth != depth:
            yield SMALLER if operation.depth < depth else LARGER
        depth = operation.depth if isinstance(operation, Depth) else depth
        if isinstance(operation, Tick) and moment.present:
            yield from (_in_force(name, value) for name, value in controls.items())
        for slot, number in moment.flying.items():
            yield from _changes(submits, last.get(slot, number), number)
            last[slot] = number
        if moment.admitted and was_busy and not moment.before:
            yield REFILLED
        was_busy |= bool(moment.before)


def _changes(submits: Mapping[int, Submit], before: int, now: int) -> Iterator[str]:
    old, new = submits[before].values, submits[now].values
    yield from (_changed(name) for name in new if repr(old[name]) != repr(new[name]))


def _of_moment(moment: Moment) -> Iterator[str]:
    operation, flying = moment.operation, moment.before.values()
    if moment.queued and moment.before:
        yield QUEUED
    if moment.finished and moment.waiting or moment.finished and moment.admitted:
        yield REPLACED
    if isinstance(operation, Cancel):
        yield (
            DROPPED_FLYING
            if operation.number in flying
            else DROPPED_QUEUED
            if operation.number in moment.queued
            else DROPPED_ENDED
        )
    if isinstance(operation, Live) and flying:
        yield _changed_live(operation.control)


def _of_tick(flying: list[Submit]) -> Iterator[str]:
    """Values in flight in one tick, and pairs of them that two requests have."""
    yield from (_used(each) for submit in flying for each in submit.values.items())
    for one, other in combinations(flying, 2):
        for first in one.values.items():
            for second in other.values.items():
                yield _beside(first, second)


def _values(features: Features) -> list[tuple[str, object]]:
    return [(name, value) for name, values in features.request.items() for value in values]


def _used(value: tuple[str, object]) -> str:
    return f"{value[0]}={value[1]!r} is in flight"


def _beside(one: tuple[str, object], other: tuple[str, object]) -> str:
    first, second = sorted(f"{name}={value!r}" for name, value in (one, other))
    return f"{first} is in flight beside another request with {second}"


def _changed(name: str) -> str:
    return f"a slot gets a request with another {name} than the one before had"


def _changed_live(name: str) -> str:
    return f"{name} changes while a request is in flight"


def _in_force(name: str, value: object) -> str:
    return f"{name}={value!r} is in force while a request is in flight"
