"""A ring played alone over a script: where every request was after each event, and that none was lost.

No request may vanish without a result, end twice, end after it was cancelled, or enter the ring before one that was
submitted earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from harness.parity.foreign.records import Cancel, Drain, Features, Operation, Submit, Tick, scripted
from harness.parity.proofs.randomness import Isolation
from harness.parity.proofs.ring import Side, alone
from harness.parity.proofs.stages import Place, Recorder, Seen
from harness.parity.trees import named

PATIENCE = 1000
"""Number of ticks without any result after which a ring that is drained counts as stuck."""


class RequestLost(AssertionError):
    """A request is not where the operations so far must have brought it.

    Attributes:
        request: number of the request.
        event: number of the event, from 0.
    """

    def __init__(self, request: int, event: int, operation: Operation, what: str) -> None:
        """Name the request, the event and what happened to the request."""
        self.request, self.event = request, event
        super().__init__(f"request {request} {what} at event {event}, {operation!r}")


class Report(NamedTuple):
    """Name of a tensor that a ring reports of a request within one tick."""

    stage: str
    name: str
    again: int


@dataclass(frozen=True)
class Moment:
    """One event, and the requests before and after it.

    Attributes:
        operation: the operation; ticks are single.
        before: requests in flight before the event, by slot.
        queued: numbers of the requests that waited before the event.
        flying: requests in flight after the event, by slot.
        waiting: numbers of the requests that wait after the event.
        finished: tensors of each request that ended, by path.
    """

    operation: Operation
    before: Mapping[int, int]
    queued: tuple[int, ...]
    flying: Mapping[int, int]
    waiting: tuple[int, ...]
    finished: Mapping[int, dict[str, Tensor]]

    @property
    def admitted(self) -> list[int]:
        """Numbers of the requests that entered the ring."""
        return [number for number in self.present if number not in self.before.values()]

    @property
    def present(self) -> list[int]:
        """Numbers of the requests that were in the ring when the event ended, those that ended in it included."""
        return [*self.flying.values(), *self.finished]


@dataclass
class Journal:
    """Moments of a ring, and what it reported of every request.

    Attributes:
        features: the features of the ring.
        moments: the moments.
        stages: for each request the reports of its ticks, a mapping for each tick.
        reported: every stage and every `stage/name` that the ring reported.
    """

    features: Features
    moments: list[Moment] = field(default_factory=list)
    stages: dict[int, list[dict[Report, Tensor]]] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)

    @property
    def operations(self) -> list[Operation]:
        """The operations, with single ticks."""
        return [moment.operation for moment in self.moments]

    def submits(self) -> dict[int, Submit]:
        """Return the submissions by number."""
        return {each.number: each for each in self.operations if isinstance(each, Submit)}

    def ends(self) -> dict[int, int]:
        """Return for each request that ended the number of its last event."""
        return {number: event for event, moment in enumerate(self.moments) for number in moment.finished}


class Replay(Protocol):
    """Callback of a ring that is told of every tick."""

    def begin(self) -> None:
        """Note that a tick begins."""
        ...

    def __call__(self, stage: str, slot: int | None, name: str, tensor: Tensor, /) -> Tensor:
        """See `harness.parity.proofs.ring.Callback`."""
        ...


def play(ring: Any, operations: Iterable[Operation], replay: Replay | None = None, *, drain: bool = True) -> Journal:
    """Play operations on a new ring; return the journal.

    Args:
        ring: the adapter, newly made.
        operations: the operations. Those of requests that were not submitted are left out.
        replay: gets the ring's reports; None records them by request.
        drain: True drains the ring at the end.

    Raises:
        RequestLost: see the module.
        InvalidInput: the ring lacks a method that scripts need.
    """
    side = alone(scripted(ring))
    player = _Player(side, Journal(ring.features()))
    with player.observing(replay):
        for operation in operations:
            player.play(operation)
        if drain:
            player.play(Drain())
    return player.journal


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the global random state after a `with` block."""
    with Isolation([[]]).turn(0):
        yield


class _Player:
    def __init__(self, side: Side, journal: Journal) -> None:
        self.side, self.journal = side, journal
        self._ring: Any = side.ring
        self._random = Isolation([side.generators()])
        self._recorder = Recorder(side.ticks)
        self._replay: Replay | None = None
        self._submitted: set[int] = set()
        self._cancelled: dict[int, int] = {}
        self._ended: set[int] = set()

    @contextmanager
    def observing(self, replay: Replay | None) -> Iterator[None]:
        self._replay = replay
        self.side.observe(self._recorder if replay is None else replay)
        try:
            yield
        finally:
            self.side.observe(None)

    def play(self, operation: Operation) -> None:
        if isinstance(operation, Drain):
            self._drain()
        elif isinstance(operation, Tick):
            for _ in range(operation.count):
                self._feed(Tick())
        elif not isinstance(operation, Cancel) or operation.number in self._submitted:
            self._feed(operation)

    def _drain(self) -> None:
        idle = 0
        while left := [*self._ring.flying().values(), *self._ring.waiting()]:
            idle = 0 if self._feed(Tick()).finished else idle + 1
            if idle == PATIENCE:
                event = len(self.journal.moments) - 1
                raise RequestLost(min(left), event, Tick(), f"has not ended after {PATIENCE} ticks without any result")

    def _feed(self, operation: Operation) -> Moment:
        before, queued = dict(self._ring.flying()), tuple(self._ring.waiting())
        self._recorder.seen.clear()
        if self._replay is not None and isinstance(operation, Tick):
            self._replay.begin()
        with self._random.turn(0):
            output = self.side.call(self._ring.event(operation))
        finished = {number: named(tree) for number, tree in self._ring.finished(output).items()}
        after = dict(self._ring.flying()), tuple(self._ring.waiting())
        moment = Moment(operation, before, queued, *after, finished)
        self.journal.moments.append(moment)
        if isinstance(operation, Submit):
            self._submitted.add(operation.number)
        self._judge(moment)
        if isinstance(operation, Cancel):
            self._cancelled.setdefault(operation.number, len(self.journal.moments) - 1)
        if isinstance(operation, Tick):
            self._keep(moment, self._recorder.seen)
        self._ended |= finished.keys()
        return moment

    def _judge(self, moment: Moment) -> None:
        """Check that every request is where it may be."""
        for number, what in self._wrong(moment):
            raise RequestLost(number, len(self.journal.moments) - 1, moment.operation, what)

    def _wrong(self, moment: Moment) -> Iterator[tuple[int, str]]:
        operation = moment.operation
        here = [*moment.present, *moment.waiting]
        known = {*moment.before.values(), *moment.queued}
        if isinstance(operation, Submit):
            known.add(operation.number)
        may_go = {*self._cancelled, *([operation.number] if isinstance(operation, Cancel) else [])}
        yield from ((number, "is in two places") for number in here if here.count(number) > 1)
        yield from ((number, "ended, though it was cancelled") for number in moment.finished if number in may_go)
        yield from ((number, "ended a second time") for number in moment.finished if number in self._ended)
        yield from ((number, "came from nowhere") for number in here if number not in known)
        if not self.journal.features.drops:
            lost = sorted(known - {*here} - may_go)
            yield from ((number, "left the ring without a result, and nobody cancelled it") for number in lost)
        if isinstance(operation, Tick):
            late = (number for number in here if number in self._cancelled)
            yield from ((number, "is still there a tick after it was cancelled") for number in late)
        if self.journal.features.in_order:
            later = max(moment.admitted, default=-1)
            passed = (number for number in moment.waiting if number < later)
            yield from ((number, f"still waits while request {later}, submitted later, entered") for number in passed)

    def _keep(self, moment: Moment, seen: Seen) -> None:
        """Keep the reports of a tick by request."""
        for number in moment.present:
            self.journal.stages.setdefault(number, []).append({})
        whose = _whose(moment)
        self.journal.reported |= {name for place in seen for name in (place.stage, f"{place.stage}/{place.name}")}
        for place, tensor in seen.items():
            number = -1 if place.slot is None else whose(place.slot)
            if number in self.journal.stages:
                self.journal.stages[number][-1][report(place)] = tensor


def report(place: Place) -> Report:
    """Return the name of a report without its slot and tick."""
    return Report(place.stage, place.name, place.again)


def _whose(moment: Moment) -> Callable[[int], int]:
    """Return the function that says whose reports a slot's reports of a tick are; -1 where it is not known."""
    unplaced = [number for number in moment.finished if number not in moment.before.values()]

    def number(slot: int) -> int:
        was = moment.before.get(slot)
        if was is not None and was in moment.present:
            return was
        return moment.flying.get(slot, unplaced[0] if len(unplaced) == 1 else -1)

    return number
