"""Reads a trace: every byte is checked, and a trace that was cut off is read up to its last whole event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from harness.files import FileRefused, documents, frames
from harness.files.refused import described
from harness.files.schema import Name, Natural, Text, Within, fit
from harness.parity.bits import digest
from harness.parity.traces.contents import restored
from harness.parity.traces.encoding import TENSORS, Decoder
from harness.parity.traces.writer import DOCUMENT, END, EVENT, FORGET, FORMAT, HEADER, REMEMBERED, TENSOR

PIPELINE, RING = "pipeline", "ring"
"""Subjects of traces."""
_VALUES = 200_000


@dataclass(frozen=True)
class Header:
    """The first record of a trace.

    Attributes:
        format: the format of the trace.
        subject: `pipeline` or `ring`.
        hints: words on how the ring was made.
        platform: name of the platform.
        fingerprint: facts that decide bits on it, while the trace was recorded.
        torch: version of torch.
        harness: version of this project.
    """

    format: Annotated[int, Within(FORMAT, FORMAT)]
    subject: Annotated[str, Text(16, f"{PIPELINE}|{RING}")]
    hints: Mapping[str, Name]
    platform: Name
    fingerprint: Mapping[str, Name]
    torch: Name
    harness: Name


@dataclass(frozen=True)
class Event:
    """One call of the recorded ring.

    Attributes:
        n: number of the event, from 0; event 0 is the beginning.
        call: name of the call.
        given: its arguments, as a document; see `encoding`.
        made: what the call made: names, and a digest or a text for each.
        raised: name of the exception's type; empty where the call returned.
        ticks: number of ticks that the ring had completed then, or None.
    """

    n: Natural
    call: Name
    given: Any
    made: tuple[tuple[Name, Name], ...]
    raised: Name
    ticks: Natural | None


@dataclass(frozen=True)
class _End:
    events: Natural
    stopped: str


class Trace:
    """An open trace.

    Attributes:
        path: the file.
        header: its header.
        events: number of events that were read.
        ticks: number of ticks that the ring had completed at the last of them, or None.
        cut: reason for which the trace has no end; known when all events were read, and empty where it has one.
        stopped: reason for which the recording ended before its ring did.
    """

    def __init__(self, path: Path, found: frames.Frames) -> None:
        self.path, self._frames = path, found
        self.events, self.cut, self.stopped = 0, "", ""
        self.ticks: int | None = None
        self._tensors: dict[str, tuple[int, int]] = {}
        self._records = iter(found)
        first = next(self._records, None)
        if first is None or first.kind != HEADER:
            raise FileRefused(path, "", "no header" + (f": {found.cut}" if found.cut else ""), "a trace")
        document = documents.parse(_bounded(path, first), path, _VALUES)
        version = document.get("format") if isinstance(document, dict) else None
        if version != FORMAT:
            raise FileRefused(path, "format", described(version), f"the format {FORMAT}")
        self.header: Header = fit(Header, document, path)

    def __iter__(self) -> Iterator[Event]:
        """Yield every whole event; once.

        Raises:
            FileRefused: an altered byte, or a record that is none of a trace.
        """
        ended = False
        for frame in self._records:
            if ended:
                raise FileRefused(self.path, "", "a record behind the end", "no more records")
            if frame.kind == EVENT:
                yield self._event(frame)
            elif frame.kind == TENSOR:
                self._keep(frame)
            elif frame.kind == FORGET:
                self._tensors.clear()
            elif frame.kind == END:
                ended = self._ended(frame)
            else:
                raise FileRefused(self.path, "", f"a record of the kind {ascii(frame.kind)}", "a record of a trace")
        if not ended:
            self.cut = self._frames.cut or "the file ends without the record of its end"

    def tensor(self, named: str, field: str = "") -> Tensor:
        """The tensor of a digest that a record before holds.

        Raises:
            FileRefused: there is none, or it is another one.
        """
        if named not in self._tensors:
            raise FileRefused(self.path, field, f"the tensor {named[:12]}", "a tensor that a record before holds")
        tensor = restored(self._frames.again(*self._tensors[named]), self.path)
        if digest(tensor) != named:
            raise FileRefused(self.path, field, "a tensor that changed while it was read", f"the tensor {named[:12]}")
        return tensor

    def decoder(
        self,
        device: torch.device | str = "cpu",
        records: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
    ) -> Decoder:
        """A decoder of what events were given; it puts tensors on `device`."""
        return Decoder(self.path, lambda named, field: self.tensor(named, field).to(device), records)

    def _event(self, frame: frames.Frame) -> Event:
        document = documents.parse(_bounded(self.path, frame), self.path, _VALUES)
        event: Event = fit(Event, document, self.path, (f"event {self.events}",))
        if event.n != self.events:
            raise FileRefused(self.path, "n", str(event.n), f"the event {self.events}")
        if event.ticks is not None and event.ticks < (self.ticks or 0):
            raise FileRefused(self.path, f"event {event.n}.ticks", str(event.ticks), f"at least {self.ticks}")
        self.events, self.ticks = event.n + 1, event.ticks
        return event

    def _keep(self, frame: frames.Frame) -> None:
        if len(self._tensors) > REMEMBERED + TENSORS:
            raise FileRefused(self.path, "", f"more than {len(self._tensors)} tensors", "a record to forget them")
        self._tensors[digest(restored(frame.payload, self.path))] = frame.at, len(frame.payload)

    def _ended(self, frame: frames.Frame) -> bool:
        end: _End = fit(_End, documents.parse(_bounded(self.path, frame), self.path, _VALUES), self.path, ("end",))
        if end.events != self.events:
            raise FileRefused(self.path, "end.events", str(end.events), f"{self.events}, as there are")
        self.stopped = end.stopped
        return True


@contextmanager
def opened(path: Path) -> Iterator[Trace]:
    """Open a trace for reading inside the block.

    Raises:
        FileMissing: there is no such file.
        FileRefused: it is no trace; see `harness.files.frames`.
    """
    with frames.opened(path) as found:
        yield Trace(path, found)


def verified(path: Path) -> Trace:
    """Read a whole trace, and return it closed, for its header and its counts.

    Raises:
        FileMissing: there is no such file.
        FileRefused: a byte is not what was written.
    """
    with opened(path) as trace:
        for _ in trace:
            pass
    return trace


def _bounded(path: Path, frame: frames.Frame) -> bytes:
    if len(frame.payload) > DOCUMENT:
        raise FileRefused(path, "", f"a record of {len(frame.payload)} bytes", f"at most {DOCUMENT} bytes")
    return frame.payload
