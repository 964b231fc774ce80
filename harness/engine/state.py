"""Everything that a pipeline holds, as one frozen record, and the changes that a thread may make to it.

A pipeline binds a new record in the place of the old one, under its lock, so that every thread sees all of a change or
none of it. A change returns the new record, and names the requests that left with it.

A running tick holds the slots of the ring and the requests that it has taken from the queue to admit them. No other
thread may move these. A request among them that is displaced is condemned: it leaves when that tick ends, and the next
tick names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from harness.engine import names
from harness.engine.controls import Controls
from harness.engine.errors import InvalidInput
from harness.engine.geometry import Geometry
from harness.engine.memory import Memory
from harness.engine.once import Unread
from harness.engine.parcels import Parcel
from harness.engine.records import replace
from harness.engine.request import Request
from harness.engine.results import Dropped, DropReason, Failed, Outcomes, Stats
from harness.engine.slot import Slot

Ring = tuple[Slot | None, ...]


@dataclass(frozen=True)
class Queued:
    """A submitted request that waits for a slot.

    Attributes:
        id: the request's name.
        request: the request.
        times: its schedule, `total + 1` floats.
        unread: tensors of the request that nobody has read yet, or None.
    """

    id: str | int
    request: Request
    times: tuple[float, ...]
    unread: Unread | None = None


Left = tuple[Dropped, ...]
"""Requests that a change has displaced, in order."""


@dataclass(frozen=True, eq=False)
class State:
    """What a pipeline holds.

    Attributes:
        depth: number of places that take new requests.
        ring: the slots by place, as the last tick left them.
        controls: the live controls in force.
        queue: requests that wait, oldest first.
        geometry: sizes that a request has fixed, or None.
        proven: a tick has run with these sizes, so that they stay.
        stats: counts of committed ticks and of submissions.
        unused_name: number of an automatic name from which on none was used.
        running: a tick runs.
        before: the record from before that tick, while nothing but the tick has changed it.
        taken: requests that the running tick admits, by place.
        condemned: places whose request leaves when the running tick ends, each with the reason.
        gone: requests that left with a tick and are named by the next one.
        kept: what left the ring and was not handed out yet.
        parcels: what calls are handing out, or have failed to hand out.
        memory: what is to be found out about requests.
        closed: the pipeline is closed.
    """

    depth: int
    ring: Ring
    controls: Controls
    queue: tuple[Queued, ...] = ()
    geometry: Geometry | None = None
    proven: bool = False
    stats: Stats = field(default_factory=Stats)
    unused_name: int = 0
    running: bool = False
    before: State | None = None
    taken: Mapping[int, Queued] = field(default_factory=dict)
    condemned: Mapping[int, DropReason] = field(default_factory=dict)
    gone: Left = ()
    kept: Outcomes = field(default_factory=Outcomes)
    parcels: tuple[Parcel, ...] = ()
    memory: Memory = field(default_factory=Memory)
    closed: bool = False

    # Facts.

    @property
    def unfinished(self) -> bool:
        """Say whether a tick has anything to do: a request, or a name to give."""
        return bool(self.queue or self.taken or self.gone) or any(slot is not None for slot in self.ring)

    @property
    def frames(self) -> int | None:
        """Number of frames T of the requests that stay; None where there are none."""
        staying = [request for place, _name, request in self.held if place not in self.condemned]
        requests = [*staying, *(queued.request for queued in self.queue)]
        return requests[0].frames if requests else None

    @property
    def fixed(self) -> Geometry | None:
        """Sizes that a request must have; None where no tick has proven them and nothing is held that has them."""
        return self.geometry if self.proven or self.queue or self.held else None

    @property
    def counts(self) -> Stats:
        """Counts, with what is held now: what a running tick admits still counts as queued."""
        return replace(
            self.stats,
            depth=self.depth,
            in_flight=sum(slot is not None for slot in self.ring),
            queued=len(self.queue) + len(self.taken),
        )

    @property
    def held(self) -> list[tuple[int, str | int, Request]]:
        """Place, name and request of everything in the ring, and of what a running tick puts there."""
        slots = [(place, slot.id, slot.request) for place, slot in enumerate(self.ring) if slot is not None]
        return [*slots, *((place, queued.id, queued.request) for place, queued in self.taken.items())]

    def holds(self, id: str | int) -> bool:
        """Say whether a request of a name waits or is in the ring."""
        names_held = [*(name for _place, name, _request in self.held), *(queued.id for queued in self.queue)]
        return (type(id), id) in [(type(name), name) for name in names_held]

    def name_of(self, request: Request) -> str | int | None:
        """The name of a request that waits or is in the ring, this very record; None where it is not."""
        held = [(name, owner) for _place, name, owner in self.held]
        held += [(queued.id, queued.request) for queued in self.queue]
        return next((name for name, owner in held if owner is request), None)

    def name(self, request: Request) -> tuple[str | int, int]:
        """The name of a new request, and the number of the first automatic name that is unused then.

        Raises:
            InvalidInput: its id is the automatic name of a request that is held, or `request-` and too many digits.
        """
        if request.id is None:
            number = max(self.stats.submitted, self.unused_name)
            return names.automatic(number), number + 1
        held = [(name, owner) for _place, name, owner in self.held]
        held += [(queued.id, queued.request) for queued in self.queue]
        if request.id in [name for name, owner in held if owner.id is None]:
            raise InvalidInput("id", repr(request.id), "another name than an automatic one that is in the pipeline")
        return request.id, max(self.unused_name, names.beyond(request.id))

    # Changes by any thread.

    def submitted(self, queued: Queued, unused_name: int) -> tuple[State, Left]:
        """Add a request to the queue. Of a full queue the oldest leaves; for another length everything leaves."""
        counted = replace(self.stats, submitted=self.stats.submitted + 1)
        state, left = replace(self, before=None, stats=counted, unused_name=unused_name), Left()
        if self.frames not in (None, queued.request.frames):
            state, left = _without(state, lambda _name: True, DropReason.LENGTH_CHANGED)
        state, full = _trimmed(replace(state, queue=(*state.queue, queued)))
        return state, (*left, *full)

    def resized(self, depth: int) -> tuple[State, Left]:
        """Change the depth. Of a queue that is longer the oldest leave; slots beyond the depth stay."""
        ring = self.ring if self.running else fitted(self.ring, depth)
        return _trimmed(replace(self, before=None, depth=depth, ring=ring))

    def cancelled(self, id: str | int) -> tuple[State, Left]:
        """Take out every request of a name."""
        asked = (type(id), id)
        return _without(replace(self, before=None), lambda name: (type(name), name) == asked, DropReason.CANCELLED)

    def controlled(self, controls: Controls) -> State:
        """Change the live controls."""
        return replace(self, before=None, controls=controls)

    def over(self) -> State:
        """Close: nothing is held any more, but for what was not handed out."""
        return replace(self, before=None, closed=True, ring=(), queue=())

    # Changes by the thread that ticks.

    def started(self) -> State:
        """Begin a tick: from now on no other thread moves a slot."""
        rested = self.abandoned() if self.running else self
        return replace(rested, running=True, before=rested)

    def taking(self, places: Iterable[int]) -> State:
        """Take requests from the queue, oldest first, for the free places, which are given in order."""
        taken = dict(zip(places, self.queue, strict=False))
        return replace(self, taken=taken, queue=self.queue[len(taken) :])

    def abandoned(self) -> State:
        """End a tick that failed: what it took waits again, before what came meanwhile, and the slots are as before."""
        if self.before is not None:
            return self.before
        why = self.condemned
        back = [queued for place, queued in self.taken.items() if place not in why]
        lost = tuple(Dropped(queued.id, why[place]) for place, queued in self.taken.items() if place in why)
        return _ended(self, self.ring, (*back, *self.queue), lost)

    def committed(self, ring: Ring, outcomes: Outcomes, stats: Stats, memory: Memory, *, proven: bool) -> State:
        """End a tick.

        Args:
            ring: the slots after the tick, by place.
            outcomes: what left the ring, without the names of `gone`.
            stats: the counts after the tick, made of those of this record, but for what left the ring.
            memory: what is still to be found out.
            proven: the tick has moved a slot.
        """
        finished, failed = stats.finished + len(outcomes), stats.failed + len(outcomes.failed)
        made = replace(
            self,
            stats=replace(stats, finished=finished, failed=failed),
            kept=self.kept.joined(outcomes, Outcomes(dropped=self.gone)),
            gone=(),
            memory=memory,
            proven=self.proven or proven,
        )
        return _ended(made, ring, self.queue)

    def told(self, late: Iterable[Failed]) -> State:
        """Keep the names of requests that failed after their latent was handed out; they are not counted again."""
        return replace(self, kept=self.kept.joined(Outcomes(failed=late)))

    def packed(self, parcel: Parcel) -> tuple[State, Outcomes]:
        """Put into a parcel everything that waits to be handed out, and what other calls have failed to hand out."""
        left = [each for each in self.parcels if each.is_left]
        made = Outcomes().joined(*[each.content for each in left if each.content is not None], self.kept)
        parcel.content = made
        return replace(self.sending(parcel, left), kept=Outcomes()), made

    def sending(self, parcel: Parcel, instead_of: Iterable[Parcel] = ()) -> State:
        """Note a parcel. The parcels `instead_of` it are forgotten, as are those that have arrived."""
        gone = [id(each) for each in instead_of]
        stay = [each for each in self.parcels if each.content is not None and id(each) not in gone]
        return replace(self, before=None, parcels=(*stay, parcel))


def fitted(ring: Ring, depth: int) -> Ring:
    """Resize the ring to `depth` places, or up to the last occupied place where that lies beyond `depth`."""
    last = max((index for index, slot in enumerate(ring) if slot is not None), default=-1)
    size = max(depth, last + 1)
    return (*ring[:size], *(None,) * (size - len(ring)))


def _without(state: State, leaves: Callable[[str | int], bool], reason: DropReason) -> tuple[State, Left]:
    """Take out the requests whose name is one that leaves; what a running tick holds is condemned."""
    waiting = [queued.id for queued in state.queue if leaves(queued.id)]
    queue = tuple(queued for queued in state.queue if not leaves(queued.id))
    if state.running:
        condemned = {place: reason for place, name, _request in state.held if leaves(name)}
        state, left = replace(state, queue=queue, condemned={**condemned, **state.condemned}), waiting
    else:
        left = [slot.id for slot in state.ring if slot is not None and leaves(slot.id)] + waiting
        ring = tuple(None if slot is None or leaves(slot.id) else slot for slot in state.ring)
        state = replace(state, queue=queue, ring=fitted(ring, state.depth))
    return _counting(state, tuple(Dropped(name, reason) for name in left))


def _trimmed(state: State) -> tuple[State, Left]:
    """Drop the oldest requests of a queue that is longer than the depth."""
    full = max(len(state.queue) - state.depth, 0)
    left = tuple(Dropped(queued.id, DropReason.QUEUE_FULL) for queued in state.queue[:full])
    return _counting(replace(state, queue=state.queue[full:]), left)


def _counting(state: State, left: Left) -> tuple[State, Left]:
    return replace(state, stats=replace(state.stats, dropped=state.stats.dropped + len(left))), left


def _ended(state: State, ring: Ring, queue: tuple[Queued, ...], lost: Left = ()) -> State:
    """End a tick with a ring and a queue. Condemned slots leave; `lost` never got a slot."""
    why = state.condemned
    leaving = {place: slot.id for place, slot in enumerate(ring) if slot is not None and place in why}
    stays = tuple(None if place in leaving else slot for place, slot in enumerate(ring))
    state, gone = _counting(state, (*(Dropped(name, why[place]) for place, name in leaving.items()), *lost))
    return replace(
        state,
        ring=() if state.closed else fitted(stays, state.depth),
        queue=() if state.closed else queue,
        gone=(*state.gone, *gone),
        running=False,
        before=None,
        taken={},
        condemned={},
    )
