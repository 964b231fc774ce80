"""Judges one mutated file: a named error, or the meaning that the file had; within a time and a size."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.kinds import KINDS, NAMED, Kind
from tests.fuzz.mutate import mutated

SECONDS = 10.0
"""The most processor time that reading a file may take: what other processes take meanwhile is no fault of it."""
MIB = 1024.0
"""The most memory in MiB that reading it may take."""


@dataclass(frozen=True)
class Judged:
    """What became of a mutated file.

    Attributes:
        kind: of the file.
        verdict: `refused`, `identical`, or `read` where no digest says what the file meant; else `traceback`,
            `silent` for another meaning, or `message` for an error of thousands of characters.
        seconds: the processor time that reading it took, or how long a process was waited for that gave no verdict.
        mib: the most memory in MiB that reading it took.
        detail: the traceback, or the message.
    """

    kind: str
    verdict: str
    seconds: float = 0.0
    mib: float = 0.0
    detail: str = ""

    @property
    def passes(self) -> bool:
        """True for a named error or the same meaning, in time and within the memory."""
        return self.verdict in ("refused", "identical", "read") and self.seconds < SECONDS and self.mib < MIB


@dataclass
class Judge:
    """Whole files of every kind in folders of their own, each mutated, read and put back."""

    kinds: Mapping[str, Kind] = field(default_factory=lambda: {kind.name: kind for kind in KINDS})

    def __post_init__(self) -> None:
        """Make the files, and read what they mean."""
        self._home = tempfile.TemporaryDirectory(prefix="harness-fuzz-")
        self._files: dict[str, tuple[Path, bytes, Any]] = {}
        for number, (name, kind) in enumerate(self.kinds.items()):
            folder = Path(self._home.name) / str(number)
            folder.mkdir()
            path = kind.make(folder)
            self._files[name] = path, path.read_bytes(), kind.read(path)

    def close(self) -> None:
        """Remove the files."""
        self._home.cleanup()

    def whole(self, kind: Kind) -> bytes:
        """The file of a kind as it was made."""
        return self._files[kind.name][1]

    def judged(self, seed: int, index: int) -> Judged:
        """The verdict about the mutation that `seed` and `index` draw; the kinds take turns."""
        draw = Random(f"{seed}/{index}")
        kind = list(self.kinds.values())[index % len(self.kinds)]
        data, renewed = mutated(self._files[kind.name][1], draw, seals=kind.seals)
        return self.read(kind, data, renewed=renewed)

    def read(self, kind: Kind, data: bytes, *, renewed: bool = False) -> Judged:
        """The verdict about one file of a kind; `renewed` is that its digest is right, so that it may mean anything."""
        path, whole, meaning = self._files[kind.name]
        path.write_bytes(data)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        before = _memory("VmRSS")
        started = time.process_time()
        found = None
        with _Outcome() as outcome:
            found = kind.read(path)
        seconds, mib = time.process_time() - started, _memory("VmHWM") - before
        path.write_bytes(whole)
        verdict = outcome.verdict
        if verdict == "identical" and found != meaning:
            verdict = "silent" if kind.digest and not renewed else "read"
        return Judged(kind.name, verdict, seconds, mib, outcome.detail)


class _Outcome:
    """Catches whatever reading a file raises, and says which of the verdicts that is."""

    verdict, detail = "identical", ""

    def __enter__(self) -> _Outcome:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _at: object) -> bool:
        if isinstance(error, NAMED):
            self.verdict, self.detail = "refused", str(error)
            if len(self.detail) > 5000:
                self.verdict = "message"
        elif error is not None:
            self.verdict, self.detail = "traceback", "".join(traceback.format_exception(error))
        return isinstance(error, Exception) or error is None


def _memory(field: str) -> float:
    """A figure of this process in MiB: `VmRSS` is its memory now, `VmHWM` the most since the peak was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(field + ":"))
    return int(found) / 1024
