"""Traces: what happened to a ring in production, in a file that plays it again and compares every digest.

`record` writes a trace, `replayed` plays it in a test, `python -m harness replay` on a command line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engine.errors import InvalidInput
from harness.parity.traces.foreign import RecordedRing
from harness.parity.traces.recording import Recording, RecordingStopped
from harness.parity.traces.replay import Replayed, TraceParted, replayed
from harness.parity.traces.writer import REMEMBERED

if TYPE_CHECKING:
    from harness.parity.traces.pipeline import RecordedPipeline

__all__ = ["RecordingStopped", "Replayed", "TraceParted", "record", "replayed"]


def record(
    ring: Any,
    path: Path | str,
    *,
    device: str = "cpu",
    remember: int = REMEMBERED,
    **hints: str,
) -> RecordedPipeline | RecordedRing:
    """Record a ring to a new file; call the ring through what is returned, which is a context manager.

    Args:
        ring: a new `StreamPipeline`, a new `Stream`, or an object with the methods `step` and `state` of
            `harness.parity.proofs.ring`. A stream itself may go on to be called: its pipeline is replaced meanwhile.
        path: the trace. The file is new, its folder is there.
        device: the device on which the ring computes.
        remember: number of tensors that are remembered as stored; beyond it a tensor may be stored again.
        hints: words that the trace keeps for the replay, such as `decoder="tiny"`, `executor="eager"`, `pin_rows="8"`.

    Raises:
        InvalidInput: another object, a ring that was called before or is being recorded, or a file that is there.
        RecordingStopped: the beginning of the ring cannot be stored.
        OSError: the file cannot be made.
    """
    if isinstance(ring, Recording):
        raise InvalidInput("ring", "a recording, a ring that is being recorded", "a ring that no recording has")
    place = Path(os.fspath(path))
    if not any(each.__module__.startswith("harness.engine.") for each in type(ring).__mro__):
        return RecordedRing(ring, place, hints, device, remember)
    from harness.engine.session import Stream  # noqa: PLC0415 - needs the extra engine
    from harness.parity.traces.pipeline import RecordedPipeline, RecordedStream  # noqa: PLC0415 - the same

    if isinstance(ring, Stream):
        return RecordedStream(ring, place, hints, device, remember)
    return RecordedPipeline(ring, place, hints, device, remember)
