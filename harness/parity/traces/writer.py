"""Writes a trace: a header, then for each event its new tensors and one record of what was given and made."""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import __version__
from harness.engine.errors import InvalidInput
from harness.files import frames
from harness.parity.baselines import platform
from harness.parity.bits import digest
from harness.parity.traces.contents import stored
from harness.parity.traces.encoding import NotStorable, filled
from harness.parity.traces.host import Arriving

FORMAT = 1
"""The format of traces; another one is refused, never guessed at."""
HEADER, TENSOR, EVENT, FORGET, END = b"H", b"T", b"E", b"F", b"Z"
"""Kinds of records: see `docs/files.md`."""
REMEMBERED = 65_536
"""Number of tensors whose digests the writer remembers. When there are more, it forgets all of them and stores a tensor
that comes again once more, so that a long recording takes no more memory than a short one."""
DOCUMENT = 16 * 2**20
"""The most bytes of one event without its tensors."""


@dataclass
class Happened:
    """One event of a ring.

    Attributes:
        call: name of the call, such as `tick`.
        given: the arguments, as an `Encoder` returns them.
        inputs: copies of their tensors.
        arriving: copies that may still be on their way.
        made: what the call made, in order: a name, and a text, a digest, or a copy to be digested.
        raised: name of the exception's type; empty where the call returned.
        ticks: number of ticks that the ring has completed then; None where it does not count them.
    """

    call: str
    given: Any
    inputs: list[Tensor]
    arriving: Arriving
    made: list[tuple[str, str | Tensor]] = field(default_factory=list)
    raised: str = ""
    ticks: int | None = None


class Writer:
    """A trace that grows.

    Args:
        path: the new file; its folder is there.
        subject: `pipeline` or `ring`.
        hints: words on how the ring was made, for people.
        device: the device whose platform decides the bits.
        remember: see `REMEMBERED`.

    Raises:
        InvalidInput: there is such a file, or `remember` is out of range.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, subject: str, hints: dict[str, str], device: str, remember: int) -> None:
        if not 1 <= remember <= REMEMBERED:
            raise InvalidInput("remember", remember, f"1 to {REMEMBERED}")
        header = {
            "format": FORMAT,
            "subject": subject,
            "hints": hints,
            "platform": platform.name(device),
            "fingerprint": platform.of_device(device),
            "torch": str(torch.__version__),
            "harness": __version__,
        }
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise InvalidInput("path", str(path), "the path of a new file: a trace is never overwritten") from None
        self._file = os.fdopen(handle, "wb")
        self._chain, self._remember = frames.Chain(), remember
        self._known: set[bytes] = set()
        self._waiting: deque[Happened] = deque()
        self.events = 0
        self._file.write(frames.MAGIC)
        self._write(HEADER, _json(header))
        self._file.flush()

    def add(self, happened: Happened, behind: int) -> None:
        """Write an event, as soon as its copies are on the host; wait for the oldest where more than `behind` are not.

        Raises:
            NotStorable: the event is too large.
            OSError: the file cannot be written.
        """
        self._waiting.append(happened)
        while self._waiting and (len(self._waiting) > behind or self._waiting[0].arriving.arrived):
            self._flush(self._waiting.popleft())
        self._file.flush()

    def end(self, why: str) -> None:
        """Write the end, sync the file and close it.

        Args:
            why: reason for which the recording ends before its ring does; empty at the end of a whole recording.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            while self._waiting:
                self._flush(self._waiting.popleft())
            self._write(END, _json({"events": self.events, "stopped": why}))
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        try:
            self._file.close()
        except OSError:  # the disk is full: what is buffered cannot be written either
            return

    def _flush(self, happened: Happened) -> None:
        happened.arriving.wait()
        document = _json({
            "n": self.events,
            "call": happened.call,
            "given": filled(happened.given, [digest(tensor) for tensor in happened.inputs]),
            "made": [[name, digest(what) if isinstance(what, Tensor) else what] for name, what in happened.made],
            "raised": happened.raised,
            "ticks": happened.ticks,
        })  # fmt: skip
        if len(document) > DOCUMENT:
            raise NotStorable(f"the event takes {len(document)} bytes without its tensors, more than {DOCUMENT}")
        if len(self._known) >= self._remember:
            self._known.clear()
            self._write(FORGET, b"")
        for tensor in happened.inputs:
            self._store(tensor)
        self._write(EVENT, document)
        self.events += 1

    def _store(self, tensor: Tensor) -> None:
        key = bytes.fromhex(digest(tensor))
        if key not in self._known:
            self._write(TENSOR, stored(tensor))
            self._known.add(key)

    def _write(self, kind: bytes, payload: bytes) -> None:
        self._file.writelines(self._chain.framed(kind, payload))


def _json(document: Any) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=True).encode()
