"""Verdicts on requests in flight: what a ring finds out about them after it has accepted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.engine.plan import Unplanned
from harness.engine.results import Failed, FailReason, Finished, Outcomes
from harness.engine.slot import Slot


class Verdicts:
    """Reads what is known of the requests of a ring, by the thread that ticks.

    Args:
        ahead: number of ticks that the host may be ahead of a GPU.

    Attributes:
        waits: how often the host has waited for a verdict.
    """

    def __init__(self, ahead: int) -> None:
        self.waits = 0
        self._ahead = ahead

    def due(self, ring: tuple[Slot | None, ...], tick: int) -> tuple[tuple[Slot | None, ...], dict[int, Failed]]:
        """Read what is due before a tick; return the ring without the requests that failed, and those by place."""
        left, failed = list(ring), {}
        for index, slot in enumerate(ring):
            if slot is None or slot.unread is None or slot.admitted_at > tick - self._ahead - 1:
                continue
            bad = self.not_finite(slot)
            left[index] = replace(slot, unread=None) if bad is None else None
            if bad is not None:
                failed[index] = Failed(slot.id, FailReason.INPUT_NOT_FINITE, slot.step, bad)
        return tuple(left), failed

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


def refused(unplanned: Unplanned) -> Failed:
    """What becomes of a slot whose callback failed."""
    return Failed(unplanned.id, FailReason.CALLBACK, unplanned.step, unplanned.detail)


def in_order(failed: Mapping[int, Failed], last: Mapping[int, Finished | Failed]) -> Outcomes:
    """Put what left the ring in the order of its places.

    Args:
        failed: requests that failed before the tick, by place. The tick may have admitted others there.
        last: what became of slots that made their last step, by place.
    """
    ended = [each[place] for place in sorted({*failed, *last}) for each in (failed, last) if place in each]
    return Outcomes(
        (each for each in ended if isinstance(each, Finished)), (each for each in ended if isinstance(each, Failed))
    )
