"""Recordings: what every call of a ring was given and made goes to a trace, and the ring does what it does without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.traces.encoding import Encoder, NotStorable, Place
from harness.parity.traces.host import Arriving
from harness.parity.traces.writer import Happened, Writer

R = TypeVar("R")
Made = list[tuple[str, str | Tensor]]
"""What a call made: names, and a text or a tensor for each."""

_RECORDED: dict[int, object] = {}
"""The rings that are recorded now, by identity."""
_TABLE = threading.Lock()


class RecordingStopped(RuntimeError):
    """A recording ended before its ring did; the message says why, and the trace holds the events until then."""


class Recording:
    """Common part of recordings. Calls of several threads take turns, also with a tick that runs.

    What fails in a recording never fails a call of the ring: the recording stops, the ring goes on, and `finish` raises
    `RecordingStopped`.

    Args:
        ring: the ring.
        writer: makes the trace.
        behind: number of events whose copies may be on their way from a GPU before a call waits.

    Attributes:
        stopped: reason for which the recording has stopped; empty while it goes on.

    Raises:
        InvalidInput: the ring is recorded already.
    """

    def __init__(self, ring: object, writer: Callable[[], Writer], behind: int) -> None:
        with _TABLE:
            if id(ring) in _RECORDED:
                raise InvalidInput("ring", "a ring that is being recorded", "a ring that no recording has")
            self._writer = writer()
            _RECORDED[id(ring)] = ring
        self._ring, self._behind = ring, behind
        self._lock = threading.RLock()
        self._inside = self._finished = False
        self.stopped = ""

    def finish(self) -> None:
        """End the recording; the ring stays open. A second call does nothing.

        Raises:
            RecordingStopped: it has stopped before.
        """
        with self._lock:
            if self._finished:
                return
            if not self.stopped:
                self._guarded(lambda: self._end(""))
            self._finished = True
        with _TABLE:
            _RECORDED.pop(id(self._ring), None)
        if self.stopped:
            raise RecordingStopped(f"the recording stopped after {self._writer.events} events: {self.stopped}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording. An error of the block is not replaced."""
        try:
            self.finish()
        except RecordingStopped as stopped:
            if error is None:
                raise
            error.add_note(str(stopped))

    # Parts of a call.

    def _recorded(self, call: str, given: Sequence[Any], work: Callable[[], R], made: Callable[[R], Made]) -> R:
        """Call `work`, and record what it was given, and what `made` says of its result."""
        with self._lock:
            if self._inside and not self.stopped:
                self._stop(f"{call} was called from inside another call")
            if self.stopped or self._finished:
                return work()
            happened = self._begun(call, given)
            self._inside = True
            try:
                result = work()
            except BaseException as error:
                self._add(happened, lambda: [], type(error).__name__)
                raise
            finally:
                self._inside = False
            try:
                self._add(happened, lambda: made(result), "")
            except BaseException:
                self._give_back(result)
                raise
            return result

    def _begun(self, call: str, given: Sequence[Any]) -> Happened | None:
        begun: list[Happened] = []

        def work() -> None:
            encoder, arriving = Encoder(self._records(given)), Arriving()
            document = encoder.encoded(list(given))
            inputs = [arriving.copy(tensor, str(place)) for place, tensor in encoder.tensors]
            begun.append(Happened(call, document, inputs, arriving))

        self._guarded(work)
        return begun[0] if begun else None

    def _add(self, happened: Happened | None, made: Callable[[], Made], raised: str) -> None:
        if happened is None or self.stopped:
            return

        def work() -> None:
            found = [
                (name, happened.arriving.digest(what, name) if isinstance(what, Tensor) else what)
                for name, what in made()
            ]
            happened.made, happened.raised, happened.ticks = found, raised, self._ticks()
            self._writer.add(happened, self._behind)

        self._guarded(work)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Call `work`; an error that it raises stops the recording, and an interrupt is raised again."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - what fails in a recording, a ring's own state() too, fails no call
            self._stop(f"{type(error).__name__}: {error}", whole=not isinstance(error, OSError))
        except BaseException as error:
            self._stop(type(error).__name__, whole=False)
            raise

    def _stop(self, why: str, *, whole: bool = True) -> None:
        self.stopped = why
        if not whole:
            self._writer.abandon()
            return
        try:
            self._end(why)
        except (OSError, NotStorable, RuntimeError) as error:
            self.stopped += f"; {error}"

    def _end(self, why: str) -> None:
        self._writer.end(why)

    # What each kind of ring says.

    def _records(self, _given: Sequence[Any]) -> Mapping[type, Callable[[Encoder, Any, Place], Any]]:
        """Encoders of the records of this kind of ring."""
        return {}

    def _ticks(self) -> int | None:
        """Number of ticks that the ring has completed."""
        raise NotImplementedError

    def _give_back(self, result: object) -> None:
        """Keep the result of a call that is interrupted behind its end."""
