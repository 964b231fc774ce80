"""The state of a pipeline under its lock, and what its calls hand out of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness.engine.errors import PipelineClosed
from harness.engine.parcels import Parcel, handed_out
from harness.engine.records import replace
from harness.engine.request import Request
from harness.engine.results import Outcomes
from harness.engine.state import Left, State


class Keeping:
    """Keeps what leaves a ring until a call has handed it out.

    Args:
        state: the first state.
    """

    def __init__(self, state: State) -> None:
        self._state = self._first = state
        # Held for a moment, never while the executor runs or the host waits.
        self._lock = threading.RLock()

    @property
    def untouched(self) -> bool:
        """Say whether no call has changed the pipeline since it was made."""
        return self._state is self._first

    def collect(self) -> Outcomes:
        """Return what failed or interrupted calls have kept: latents, and names of requests that left with such a call.

        The next `tick` or `drain` hands it out as well. No tick runs; allowed after `close`.
        """
        return handed_out(self._packed)

    def keep(self, outcomes: Outcomes) -> None:
        """Give back what a call has handed out and nobody has seen: the next call hands it out again, first."""
        with self._lock:
            self._state = replace(self._state, before=None, kept=outcomes.joined(self._state.kept))

    def keeps(self, id: str | int) -> bool:
        """Say whether a latent or a failure of a name was not handed out yet."""
        with self._lock:
            left = [each.content for each in self._state.parcels if each.is_left]
            kept = Outcomes().joined(*[each for each in left if each is not None], self._state.kept)
        return any((type(each.id), each.id) == (type(id), id) for each in (*kept, *kept.failed))

    def holds(self, id: str | int) -> bool:
        """Say whether a request of a name is queued or in flight; allowed after `close`."""
        return self._state.holds(id)

    def name_of(self, request: Request) -> str | int | None:
        """Return the name under which this very request is queued or in flight; None where it is not."""
        return self._state.name_of(request)

    def _packed(self, parcel: Parcel) -> Outcomes:
        with self._lock:
            self._state, made = self._state.packed(parcel)
        return made

    def _left(self, parcel: Parcel, change: Callable[[State], tuple[State, Left]]) -> Left:
        """Change the state; return what left it, which is also in the parcel."""
        with self._lock:
            self._check_open()
            state, left = change(self._state)
            parcel.content = Outcomes(dropped=left)
            self._state = state.sending(parcel) if left else state
        return left

    def _check_open(self) -> None:
        if self._state.closed:
            raise PipelineClosed("the pipeline is closed")
