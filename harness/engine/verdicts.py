"""Verdicts on requests in flight: what a ring finds out about them after it has accepted them.

A verdict that comes from a GPU is read before the tick that is `ahead + 1` ticks after the tick that asked for it: the
host has waited for that tick by then, for other reasons. A request may have ended meanwhile. On the CPU a verdict on a
velocity is there at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.engine.finite import Look
from harness.engine.memory import Asked, Key, Memory, Who
from harness.engine.plan import TickPlan
from harness.engine.records import replace
from harness.engine.results import Failed, FailReason, Finished, Outcomes
from harness.engine.slot import Slot


@dataclass(frozen=True)
class Due:
    """What is known before a tick.

    Attributes:
        ring: the ring without the requests that failed.
        failed: the requests that failed in the ring, by place.
        late: the requests that failed after their latent was handed out.
        memory: what was to be found out.
    """

    ring: tuple[Slot | None, ...]
    failed: Mapping[int, Failed]
    late: Mapping[Key, Failed]
    memory: Memory

    def among(self, seen: tuple[Slot | None, ...], now: tuple[Slot | None, ...]) -> Due:
        """Return what is known of the ring `now`, which another thread may have changed since it was `seen`."""
        same = {place for place, (one, other) in enumerate(zip(seen, now, strict=False)) if one is other}
        ring = tuple(self.ring[place] if place in same else slot for place, slot in enumerate(now))
        failed = {place: each for place, each in self.failed.items() if place in same}
        return Due(ring, failed, self.late, self.memory)


class Verdicts:
    """Reads what is known of the requests of a ring, for the thread that ticks.

    It changes no memory, so that a tick that fails can be run again.

    Args:
        ahead: number of ticks that the host may be ahead of a GPU.

    Attributes:
        waits: how often the host has waited for a verdict.
    """

    def __init__(self, ahead: int) -> None:
        self.waits = 0
        self._ahead = ahead

    def due(self, ring: tuple[Slot | None, ...], tick: int, memory: Memory) -> Due:
        """Read what is due before a tick."""
        left, failed = list(ring), {}
        for index, slot in enumerate(ring):
            if slot is None or slot.unread is None or not self._is_due(slot.admitted_at, tick):
                continue
            bad = self.not_finite(slot)
            left[index] = replace(slot, unread=None) if bad is None else None
            if bad is not None:
                failed[index] = Failed(slot.id, FailReason.INPUT_NOT_FINITE, slot.step, bad)
        found = self._read(each for each in memory.asked if self._is_due(each.tick, tick))
        for index, slot in enumerate(left):
            if slot is not None and (index, slot.admitted_at) in found:
                failed[index], left[index] = found[index, slot.admitted_at], None
        return Due(tuple(left), failed, _late(found, memory), memory)

    def last(
        self, plan: TickPlan, looks: Iterable[Look], slots: Mapping[int, Slot], moved: Mapping[int, Slot]
    ) -> dict[int, Finished | Failed]:
        """What ends in a tick, by place: latents, and requests that failed in it.

        Args:
            plan: the plan of the tick.
            looks: the looks at its runs.
            slots: its slots before their step, by place.
            moved: its slots after their step, by place.
        """
        ended = {p.index: self.outcome(moved[p.index], plan.tick) for p in plan.slots if p.finishes}
        here = failures((look for look in looks if look.fetched is None), _who(slots))
        ended |= {place: failed for (place, _admitted), failed in here.items()}
        return ended | {u.index: Failed(u.id, FailReason.CALLBACK, u.step, u.detail) for u in plan.failed}

    def after(
        self, due: Due, tick: int, looks: Sequence[Look], slots: Mapping[int, Slot], last: Mapping[int, object]
    ) -> Memory:
        """Return what is to be found out after a tick; what was due before it is forgotten.

        Args:
            due: what was due before the tick.
            tick: its number.
            looks: the looks at its runs.
            slots: its slots before their step, by place.
            last: what has ended in it, by place.
        """
        memory = due.memory
        asked = [Asked(tick, look, _who(slots)) for look in looks if look.fetched is not None]
        known = {key: at for key, at in memory.finished.items() if key not in due.late and not self._is_due(at, tick)}
        ended = [place for place, each in last.items() if isinstance(each, Finished)] if asked else []
        kept = (each for each in memory.asked if not self._is_due(each.tick, tick))
        return Memory((*kept, *asked), known | {(place, slots[place].admitted_at): tick for place in ended})

    def rest(self, memory: Memory) -> Iterable[Failed]:
        """Read everything, after the last tick; the host waits for a GPU. Return the requests that failed."""
        return _late(self._read(memory.asked), memory).values()

    def outcome(self, slot: Slot, tick: int) -> Finished | Failed:
        """What becomes of a slot that has made its last step."""
        bad = self.not_finite(slot)
        if bad is not None:
            return Failed(slot.id, FailReason.INPUT_NOT_FINITE, slot.step - 1, bad)
        return slot.finished(tick)

    def not_finite(self, slot: Slot) -> str | None:
        """Text that names a field with a value that is not finite, or None; counts the wait for it."""
        if slot.unread is None:
            return None
        before = slot.unread.waited
        bad = slot.unread.not_finite()
        self.waits += slot.unread.waited and not before
        return bad

    def _is_due(self, asked: int, tick: int) -> bool:
        return asked <= tick - self._ahead - 1

    def _read(self, asked: Iterable[Asked]) -> dict[Key, Failed]:
        """Requests that failed, each at its first bad step."""
        found: dict[Key, Failed] = {}
        for each in asked:
            fetched = each.look.fetched
            before = fetched is None or fetched.waited
            found = failures([each.look], each.slots) | found
            self.waits += fetched is not None and fetched.waited and not before
        return found


def failures(looks: Iterable[Look], slots: Mapping[int, Who]) -> dict[Key, Failed]:
    """Requests whose velocity is not finite; each names its first bad row.

    Args:
        looks: looks at the runs of a tick.
        slots: its slots before their step, by place.
    """
    found: dict[Key, Failed] = {}
    for row in (row for look in looks for row in look.bad()):
        slot = slots[row.index]
        detail = f"{row.name}: a velocity that is not finite in float32"
        failed = Failed(slot.id, FailReason.VELOCITY_NOT_FINITE, slot.step, detail)
        found.setdefault((row.index, slot.admitted_at), failed)
    return found


def _late(found: Mapping[Key, Failed], memory: Memory) -> dict[Key, Failed]:
    return {key: failed for key, failed in found.items() if key in memory.finished}


def _who(slots: Mapping[int, Slot]) -> dict[int, Who]:
    return {place: Who(slot.id, slot.step, slot.admitted_at) for place, slot in slots.items()}


def in_order(failed: Mapping[int, Failed], last: Mapping[int, Finished | Failed]) -> Outcomes:
    """Put what left the ring in the order of its places.

    Args:
        failed: requests that failed before the tick, by place. The tick may have admitted others there.
        last: what became of slots in the tick, by place.
    """
    ended = [each[place] for place in sorted({*failed, *last}) for each in (failed, last) if place in each]
    return Outcomes(
        (each for each in ended if isinstance(each, Finished)), (each for each in ended if isinstance(each, Failed))
    )
