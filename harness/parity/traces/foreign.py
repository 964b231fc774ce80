"""Recording of a ring of any make, through the protocol of `harness.parity.proofs.ring`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.bits import NotComparable
from harness.parity.proofs import randomness
from harness.parity.proofs.ring import Side, alone
from harness.parity.traces.recording import Made, Recording
from harness.parity.traces.writer import Writer
from harness.parity.trees import children, leaves

BEGIN, STEP = "begin", "step"
"""Calls of such a trace: the state before the first event, and an event."""
_BEHIND = 3


class RecordedRing(Recording):
    """A ring whose events are recorded; `step` is that of the ring. Everything else of the ring can be asked for here.

    The trace begins with the state of the random generators, so that a replay draws the same numbers.

    Args:
        ring: an object with `step` and `state`, newly made.
        path: the trace, a new file.
        hints: words on how the ring was made, for people.
        device: the device whose platform decides the bits.
        remember: see `REMEMBERED` of `writer`.

    Raises:
        InvalidInput: the ring has not `step` and `state`, or is recorded already; or there is such a file.
        RecordingStopped: the state of the ring or of its generators cannot be stored.
    """

    def __init__(self, ring: Any, path: Path, hints: dict[str, str], device: str, remember: int) -> None:
        side = alone(ring)
        if side.ring is None:
            raise InvalidInput(
                "ring", type(ring).__name__, "a StreamPipeline, a Stream, or an object with step and state"
            )
        self._side = side
        super().__init__(ring, lambda: Writer(path, "ring", hints, device, remember), _BEHIND)
        states = [source.read() for source in randomness.sources(side.generators())]
        self._recorded(BEGIN, [states], lambda: None, lambda _: state_of(side))
        if self.stopped:
            self.finish()

    def step(self, event: object) -> object:
        """Feed one event to the ring and record it; see `Ring.step`."""
        return self._recorded(STEP, [event], lambda: self._ring_step(event), lambda tree: made_by(self._side, tree))

    def __enter__(self) -> RecordedRing:
        """Return the recording."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the ring."""
        return getattr(self._side.engine, name)

    def _ring_step(self, event: object) -> object:
        return self._side.engine.step(event)

    def _ticks(self) -> int | None:
        return self._side.ticks()


def made_by(side: Side, tree: object) -> Made:
    """What an event made: the returned tree, and then the ring's state."""
    return [*_named("output", tree), *state_of(side)]


def state_of(side: Side) -> Made:
    """The state of a ring."""
    return [] if side.ring is None else _named("state", side.ring.state())


def _named(path: str, tree: object) -> Made:
    found: Made = []
    for name, leaf in leaves(tree, path):
        if isinstance(leaf, Tensor):
            found.append((name, leaf))
        elif leaf is None or children(leaf) is not None:
            found.append((name, "None" if leaf is None else "empty"))
        else:
            raise NotComparable(f"{name} cannot be compared: expected a tensor, got {type(leaf).__name__}")
    return found
