"""The cost of a recording: ticks of a stream that is recorded, in turn with ticks of one that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.parity.traces import record
from harness.rails.bench.load import Load
from harness.rails.bench.throughput import Advance, Driver, digest, silent

TURNS = 4
"""Windows of each stream."""


@dataclass(frozen=True)
class Recorded:
    """Medians of both streams.

    Attributes:
        plain_ms: a tick without a recording.
        recorded_ms: a tick with one.
        plain_host_ms: until `tick()` returned, without a recording.
        recorded_host_ms: the same with one.
        bytes_a_tick: growth of the trace.
        same: True where both streams made the same latents, to the bit.
    """

    plain_ms: float
    recorded_ms: float
    plain_host_ms: float
    recorded_host_ms: float
    bytes_a_tick: float
    same: bool


def recorded_ticks(load: Load) -> int:
    """Number of ticks that `recorded` runs."""
    return 2 * (load.warmup + TURNS * max(1, load.ticks // TURNS))


def recorded(load: Load, path: Path, advance: Advance = silent) -> Recorded:
    """Drive two streams of one load in turn, and record one of them to `path`.

    Args:
        load: what to drive them with.
        path: the trace, a new file.
        advance: called after every tick.

    Raises:
        InvalidInput: a load that no pipeline takes, or a file that is there.
        RecordingStopped: the recording could not go on.
    """
    drivers = Driver(load), Driver(load)
    tick_ms: tuple[list[float], list[float]] = ([], [])
    host_ms: tuple[list[float], list[float]] = ([], [])
    made: tuple[list[str], list[str]] = ([], [])
    with (
        drivers[0].session,
        drivers[1].session,
        record(drivers[1].stream, path, device=load.device, decoder=load.decoder, executor=load.executor),
    ):
        for driver in drivers:
            driver.warm_up(advance)
        before = path.stat().st_size
        for _ in range(TURNS):
            for side, driver in enumerate(drivers):
                window = driver.window(max(1, load.ticks // TURNS), advance)
                tick_ms[side].extend(window.tick_ms)
                host_ms[side].extend(window.host_ms)
                made[side].append(digest(window.finished))
        grown = path.stat().st_size - before
    plain, with_it = (median(each) for each in tick_ms)
    plain_host, host_with_it = (median(each) for each in host_ms)
    return Recorded(plain, with_it, plain_host, host_with_it, grown / len(tick_ms[1]), made[0] == made[1])
