"""Plays a trace of a `StreamPipeline`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.engine.config import PipelineConfig
from harness.engine.executors.base import Executor
from harness.engine.pipeline import StreamPipeline
from harness.engine.results import Outcomes
from harness.files import FileRefused
from harness.files.refused import described
from harness.parity.traces import records
from harness.parity.traces.pipeline import BEGIN, made_by
from harness.parity.traces.reading import PIPELINE, Event, Trace
from harness.parity.traces.recording import Made
from harness.parity.traces.replay import Replayed, TraceParted, play

CALLS: Mapping[str, int] = {
    "submit": 1, "tick": 0, "drain": 0, "collect": 0, "keep": 0, "cancel": 1, "set_shared_curve": 2,
    "set_channel_gain": 1, "set_dcw": 1, "set_depth": 1, "close": 0,
}  # fmt: skip
"""The calls of a pipeline that a trace may hold, with the number of their arguments."""
_MOST_ROWS = 4096
_MOST_TICKS = 1_000_000

MakeExecutor = Callable[[int], Executor]
"""Function that makes an executor of so many rows at most."""


def replayed_pipeline(
    path: Path | str,
    executor: MakeExecutor,
    *,
    device: torch.device | str = "cpu",
    until: int | None = None,
    any_platform: bool = False,
) -> Replayed:
    """Play a trace of a pipeline on a pipeline with the recorded configuration, and compare every digest.

    Calls that raised in the recording have changed nothing and are not played, but for the ticks that a `drain` had
    completed.

    Args:
        path: the trace.
        executor: makes the executor; its decoder must be the recorded one, which a trace does not hold.
        device: device of the requests' tensors.
        until: number of ticks after which the replay ends, or None.
        any_platform: True compares also where the fingerprint of the platform differs.

    Raises:
        TraceParted: something differs; the message names the first event, tick and request.
        OtherPlatform: the trace is of another platform.
        NothingCompared: the trace holds nothing to compare.
        FileMissing: there is no such file.
        FileRefused: the file is no trace of a pipeline, or a byte was altered.
    """
    return play(
        Path(path),
        PIPELINE,
        lambda trace: PipelinePlayer(trace, executor, device),
        until=until,
        any_platform=any_platform,
    )


class PipelinePlayer:
    """A pipeline that plays the events of a trace."""

    def __init__(self, trace: Trace, executor: MakeExecutor, device: torch.device | str) -> None:
        self._path, self._make = trace.path, executor
        self._decoder = trace.decoder(device, records.decoders(device))
        self._pipeline: StreamPipeline | None = None
        self._last = Outcomes()

    def play(self, event: Event) -> Made | None:
        """See `Player`."""
        given = self._decoder.decoded(event.given)
        if not isinstance(given, list):
            raise self._bad(event, described(given), "a list of arguments")
        if self._pipeline is None:
            self._pipeline = self._begun(event, given)
            return []
        if event.call not in CALLS or len(given) != CALLS[event.call]:
            raise self._bad(event, f"{ascii(event.call)[:80]} of {len(given)} arguments", f"one of {', '.join(CALLS)}")
        if event.raised:
            self._catch_up(event, self._pipeline)
            return None
        return made_by(self._pipeline, event.call, self._called(event, self._pipeline, given))

    def ticks(self) -> int | None:
        """See `Player`."""
        return None if self._pipeline is None else self._pipeline.stats().ticks

    def _begun(self, event: Event, given: list[Any]) -> StreamPipeline:
        if event.call != BEGIN or [type(each) for each in given] != [PipelineConfig, int, bool]:
            raise self._bad(event, ascii(event.call)[:80], "the beginning: a configuration, rows, and a mask or none")
        config, rows, takes_mask = given
        if not config.depth <= rows <= _MOST_ROWS:
            raise self._bad(event, f"max_rows {rows}", f"{config.depth} to {_MOST_ROWS}")
        made = self._make(rows)
        if (made.max_rows, made.takes_mask) != (rows, takes_mask):
            here = f"an executor with max_rows {made.max_rows} and takes_mask {made.takes_mask}"
            raise TraceParted(event, "executor", f"{here}, recorded {rows} and {takes_mask}")
        return StreamPipeline(made, config)

    def _called(self, event: Event, pipeline: StreamPipeline, given: list[Any]) -> Any:
        try:
            if event.call == "keep":
                return pipeline.keep(self._last)
            result = getattr(pipeline, event.call)(*given)
        except Exception as error:
            raise TraceParted(event, "the call", f"raises {type(error).__name__}: {error}") from error
        if isinstance(result, Outcomes):
            self._last = result
        return result

    def _catch_up(self, event: Event, pipeline: StreamPipeline) -> None:
        """Run the ticks that a call which raised had completed; what they hand out is kept, as it was then."""
        missing = (event.ticks or 0) - pipeline.stats().ticks
        if not 0 <= missing <= _MOST_TICKS:
            raise self._bad(event, f"{event.ticks} ticks", f"at least {pipeline.stats().ticks}")
        for _ in range(missing):
            pipeline.keep(pipeline.tick())

    def _bad(self, event: Event, got: str, expected: str) -> FileRefused:
        return FileRefused(self._path, f"event {event.n}", got, expected)
