"""`python -m tests.faults.long_run`: many ticks, then many streams that are closed; says whether memory and time grow.

It counts live objects and reads the process's memory. Times are medians of a tenth of the ticks each, in
processor time, which other processes disturb less than the clock.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from harness.engine import Condition, PipelineConfig, Session
from harness.engine.decoders import AffineDecoder
from tests.faults.script import CONDITIONS, CONTEXTS, LENGTH, LENGTHS, D, E

PARTS = 10
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        objects: live objects that Python's collector tracks, at its end.
        tensors: live tensors among them.
        mib: resident memory in MiB at its end; 0 where the system does not say.
        ms: median processor time of a tick or of a stream, in milliseconds.
    """

    objects: int
    tensors: int
    mib: float
    ms: float


def measured(times: list[float]) -> Part:
    """A part whose calls took `times`, in seconds."""
    gc.collect()
    live = gc.get_objects()
    tensors = sum(issubclass(type(each), torch.Tensor) for each in live)
    lines = STATUS.read_text(encoding="ascii").splitlines() if STATUS.is_file() else []
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    return Part(len(live), tensors, kib / 1024, 1000 * statistics.median(times))


def ticks(count: int) -> Iterator[Part]:
    """Parts of a run of `count` ticks of one stream, with a request each and a new seed each."""
    with Session(AffineDecoder(E)) as session:
        config = PipelineConfig(depth=4, steps=4, encoder_length=LENGTH)
        stream = session.stream(CONDITIONS[:1], CONTEXTS[LENGTHS[0]], config=config)
        for part in range(PARTS):
            times = []
            for tick in range(count // PARTS):
                start = time.process_time()
                stream.tick(seed=part * count + tick)
                times.append(time.process_time() - start)
            yield measured(times)


def streams(count: int, frames: int = 750) -> Iterator[Part]:
    """Parts of a run of `count` streams of one session, each with tensors of its own, ticked once and closed."""
    with Session(AffineDecoder(E)) as session:
        for part in range(PARTS):
            times = []
            for number in range(count // PARTS):
                start = time.process_time()
                own = Condition(torch.full((1, 64, E), float(part * count + number), dtype=torch.float32, device="cpu"))
                context = torch.zeros((1, frames, 2 * D), dtype=torch.float32, device="cpu")
                stream = session.stream([own], context, config=PipelineConfig(depth=2, steps=2))
                stream.tick(seed=number)
                stream.close()
                times.append(time.process_time() - start)
            yield measured(times)


def is_flat(parts: list[Part]) -> bool:
    """Say whether the last part has the objects and tensors of the second one; the first one warms up."""
    return (parts[-1].objects - parts[1].objects) < 50 and parts[-1].tensors <= parts[1].tensors


def is_steady(parts: list[Part]) -> bool:
    """Say whether the last three parts take at most one and a half times as long as the second to the fourth."""
    early, late = (statistics.fmean(part.ms for part in parts[three]) for three in (slice(1, 4), slice(-3, None)))
    return late <= 1.5 * early


@click.command()
@click.option("--ticks", "ticks_", default=100_000, show_default=True, type=click.IntRange(PARTS), help="Ticks.")
@click.option("--streams", "streams_", default=400, show_default=True, type=click.IntRange(PARTS), help="Streams.")
def main(ticks_: int, streams_: int) -> None:
    """Tick, then open and close streams; exits with 0 where no object stays and no time grows."""
    flat = True
    for name, parts in ((f"{ticks_:,} ticks", list(ticks(ticks_))), (f"{streams_:,} streams", list(streams(streams_)))):
        click.echo(f"{name:16}{'objects':>10}{'tensors':>10}{'MiB':>10}{'CPU ms':>10}")
        for number, part in enumerate(parts, start=1):
            counts, sizes = f"{part.objects:>10,}{part.tensors:>10,}", f"{part.mib:>10.1f}{part.ms:>10.3f}"
            click.echo(f"{f'part {number} of {PARTS}':16}{counts}{sizes}")
        flat = flat and is_flat(parts) and is_steady(parts)
    click.echo("flat" if flat else "grows")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
