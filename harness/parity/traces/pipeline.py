"""Recording of a `StreamPipeline`: its calls, digests of every slot after every tick, and all that leaves the ring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.engine.config import DCW
from harness.engine.curve import CurveLike
from harness.engine.errors import InvalidInput
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Request
from harness.engine.results import Dropped, Outcomes, Submission
from harness.engine.schedule import known_timesteps
from harness.engine.session import Stream
from harness.files.refused import described
from harness.parity.traces import records
from harness.parity.traces.encoding import Encoder, Place
from harness.parity.traces.recording import Made, R, Recording
from harness.parity.traces.writer import Writer

BEGIN = "begin"
"""The first event: the configuration of the pipeline and the limits of its executor."""


class RecordedPipeline(Recording):
    """A pipeline whose calls are recorded. Each method is that of `StreamPipeline`.

    Args:
        pipeline: a pipeline that nobody has called yet.
        path: the trace, a new file.
        hints: words on how the executor was made, for the replay.
        device: the device of the decoder.
        remember: see `REMEMBERED` of `writer`.

    Raises:
        InvalidInput: the pipeline was called before, or is recorded already; or there is such a file.
        RecordingStopped: the configuration cannot be stored.
    """

    def __init__(self, pipeline: StreamPipeline, path: Path, hints: dict[str, str], device: str, remember: int) -> None:
        if not pipeline.untouched:
            raise InvalidInput(
                "ring", "a pipeline that was called before", "a new one: a replay begins at the beginning"
            )
        self._pipeline = pipeline
        self._seen = _counts(pipeline)
        self._last: Outcomes | None = None
        behind = pipeline.config.max_ticks_ahead + 1
        super().__init__(pipeline, lambda: Writer(path, "pipeline", hints, device, remember), behind)
        given = [pipeline.config, pipeline.executor.max_rows, pipeline.executor.takes_mask]
        self._recorded(BEGIN, given, lambda: None, lambda _: [])
        if self.stopped:
            self.finish()

    def submit(self, request: Request) -> Submission:
        """See `StreamPipeline.submit`."""
        return self._told("submit", [request], lambda: self._pipeline.submit(request))

    def tick(self) -> Outcomes:
        """See `StreamPipeline.tick`."""
        return self._told("tick", [], self._pipeline.tick)

    def drain(self) -> Outcomes:
        """See `StreamPipeline.drain`."""
        return self._told("drain", [], self._pipeline.drain)

    def collect(self) -> Outcomes:
        """See `StreamPipeline.collect`."""
        return self._told("collect", [], self._pipeline.collect)

    def keep(self, outcomes: Outcomes) -> None:
        """See `StreamPipeline.keep`. A recording stops where these are not the last outcomes that were handed out."""
        given: list[Any] = [] if outcomes is self._last else [outcomes]
        self._told("keep", given, lambda: self._pipeline.keep(outcomes))

    def cancel(self, id: str | int) -> tuple[Dropped, ...]:
        """See `StreamPipeline.cancel`."""
        return self._told("cancel", [id], lambda: self._pipeline.cancel(id))

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """See `StreamPipeline.set_shared_curve`."""
        self._told("set_shared_curve", [name, value], lambda: self._pipeline.set_shared_curve(name, value))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """See `StreamPipeline.set_channel_gain`."""
        self._told("set_channel_gain", [gain], lambda: self._pipeline.set_channel_gain(gain))

    def set_dcw(self, dcw: DCW | None) -> None:
        """See `StreamPipeline.set_dcw`."""
        self._told("set_dcw", [dcw], lambda: self._pipeline.set_dcw(dcw))

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        """See `StreamPipeline.set_depth`."""
        return self._told("set_depth", [depth], lambda: self._pipeline.set_depth(depth))

    def close(self) -> None:
        """See `StreamPipeline.close`; the recording goes on until `finish`."""
        self._told("close", [], self._pipeline.close)

    def __enter__(self) -> RecordedPipeline:
        """Return the recording."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the pipeline, such as `slots` or `stats`."""
        return getattr(self._pipeline, name)

    def _told(self, call: str, given: Sequence[Any], work: Callable[[], R]) -> R:
        with self._lock:
            if self._seen != _counts(self._pipeline) and not (self.stopped or self._finished or self._inside):
                self._stop("a call of the pipeline went past the recording")
            try:
                result = self._recorded(call, given, work, lambda made: made_by(self._pipeline, call, made))
            finally:
                self._seen = _counts(self._pipeline)
            if isinstance(result, Outcomes):
                self._last = result
            return result

    def _records(self, given: Sequence[Any]) -> Mapping[type, Callable[[Encoder, Any, Place], Any]]:
        config, total = self._pipeline.config, self._pipeline.config.steps
        if given and isinstance(given[0], Request):
            total = len(known_timesteps(config.steps, given[0].denoise, config.shift)) - 1
        return records.encoders(total)

    def _ticks(self) -> int:
        return self._pipeline.stats().ticks

    def _give_back(self, result: object) -> None:
        if isinstance(result, Outcomes):
            self._pipeline.keep(result)


class RecordedStream(RecordedPipeline):
    """The recording of a stream's pipeline, which takes the pipeline's place in the stream until it ends."""

    def __init__(self, stream: Stream, path: Path, hints: dict[str, str], device: str, remember: int) -> None:
        super().__init__(stream.pipeline, path, hints, device, remember)
        self._stream = stream
        vars(stream)["pipeline"] = self

    def finish(self) -> None:
        """See `Recording.finish`."""
        if "_stream" in vars(self):
            vars(self._stream)["pipeline"] = self._pipeline
        super().finish()


def made_by(pipeline: StreamPipeline, call: str, result: object) -> Made:
    """What a call of a pipeline has made: slots after a tick, and everything that left the ring."""
    if isinstance(result, Submission):
        return [("submitted", described(result.id)), *_dropped(result.dropped)]
    if isinstance(result, tuple):
        return _dropped(result)
    if isinstance(result, Outcomes):
        return [*(_slots(pipeline) if call == "tick" else []), *_left(result)]
    return []


def _slots(pipeline: StreamPipeline) -> Made:
    return [
        (f"slot {place}, request {described(slot.id)}, step {slot.step}: {name}", tensor)
        for place, slot in enumerate(pipeline.slots)
        if slot is not None
        for name, tensor in slot.state().items()
    ]


def _left(outcomes: Outcomes) -> Made:
    made: Made = []
    for each in outcomes:
        name = f"finished request {described(each.id)}"
        counts = f"seed {each.seed}, {each.steps} steps, {each.ticks_in_flight} ticks in flight"
        made += [(f"{name}: counts", counts), (f"{name}: latent", each.latent)]
    made += [(f"failed request {described(each.id)}", f"{each.reason} at step {each.step}") for each in outcomes.failed]
    return [*made, *_dropped(outcomes.dropped)]


def _dropped(dropped: Iterable[Dropped]) -> Made:
    return [(f"dropped request {described(each.id)}", str(each.reason)) for each in dropped]


def _counts(pipeline: StreamPipeline) -> tuple[int, int]:
    stats = pipeline.stats()
    return stats.ticks, stats.submitted
