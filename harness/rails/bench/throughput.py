"""Steady-state throughput: what a tick takes on the production path, and what the bare decoder takes of it.

A stream of a session is driven at a fixed depth; every tick of the window counts, those in which requests enter and
finish as well. Latents alone are made: no text is encoded, and nothing is decoded to sound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from harness import registry
from harness.engine.config import DCW, PipelineConfig
from harness.engine.errors import InvalidInput
from harness.engine.executors import PreparesShapes, Shape
from harness.engine.noise import Purpose, noise
from harness.engine.request import Condition, Guidance
from harness.engine.results import Finished, all_finished
from harness.engine.session import Session, Stream
from harness.parity.compare import digest_tree
from harness.rails.bench.bare import Bare, Tap, bare, merged, runs
from harness.rails.bench.clocks import EventClock, HostClock
from harness.rails.bench.load import Load as Load
from harness.rails.bench.stock import Stock
from harness.rails.costs.workload import is_due

TOKENS = 200
"""Of the prompt's condition."""

Advance = Callable[[str], None]


def silent(_what: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Spread:
    """Milliseconds: the median, and the least values that 95 and 99 in a hundred do not exceed."""

    median: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Latency:
    """From a control's setting to a latent, in ticks and in milliseconds; means over every phase of the ring.

    Attributes:
        touched_ticks: to the first latent that had a step under it.
        touched_ms: the same, until that latent is there.
        whole_ticks: to the first latent that was made wholly under it.
        whole_ms: the same, until that latent is there.
    """

    touched_ticks: float
    touched_ms: float
    whole_ticks: float
    whole_ms: float


@dataclass(frozen=True)
class Window:
    """Some ticks in a row.

    Attributes:
        tick_ms: from the end of each tick to the end of the next, by the host's clock on a CPU, by events on a GPU.
        host_ms: until `tick()` returned.
        finished: every latent that was made, in order.
        seconds: from the first tick's start until the device was done.
    """

    tick_ms: tuple[float, ...]
    host_ms: tuple[float, ...]
    finished: tuple[Finished, ...]
    seconds: float


@dataclass(frozen=True)
class Measured:
    """The measurements of one load.

    Attributes:
        load: of what.
        samples: `tick_ms` and `host_ms` of every tick of the window.
        latents: finished in the window.
        seconds: the window's.
        outputs: SHA-256 of these latents, in order.
        dropped: requests that the queue displaced.
        runs: decoder runs a tick.
        rows: decoder rows a tick.
        control: latency of a shared control.
        bare: the decoder alone, after the window.
    """

    load: Load
    samples: Mapping[str, Sequence[float]]
    latents: int
    seconds: float
    outputs: str
    dropped: int
    runs: float
    rows: float
    control: Latency
    bare: Bare

    @property
    def tick(self) -> Spread:
        """Ms a tick."""
        return spread(self.samples["tick_ms"])

    @property
    def host(self) -> Spread:
        """Ms until `tick()` returned."""
        return spread(self.samples["host_ms"])

    @property
    def latents_per_second(self) -> float:
        """Over the window."""
        return self.latents / self.seconds

    @property
    def realtime(self) -> float:
        """Seconds of audio a second."""
        return self.latents_per_second * self.load.duration

    @property
    def overhead_ms(self) -> float:
        """A tick's median less the bare decoder's."""
        return self.tick.median - self.bare.ms

    @property
    def overhead_ratio(self) -> float:
        """The same as a share of the bare decoder's time."""
        return self.overhead_ms / self.bare.ms

    @property
    def beyond(self) -> dict[str, float]:
        """A tick's median less the bare decoder's, in ms, by form: of the executor's own form it is the ring's work."""
        return {form: self.tick.median - ms for form, ms in self.bare.forms.items()}

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        derived = ("latents_per_second", "realtime", "overhead_ms", "overhead_ratio")
        return {
            **asdict(self),
            "tick": asdict(self.tick),
            "host": asdict(self.host),
            "bare": {**asdict(self.bare), "fastest": self.bare.fastest, "ms": self.bare.ms},
            "beyond_ms": self.beyond,
            **{name: getattr(self, name) for name in derived},
        }


class Driver:
    """Drives one stream of a session at a fixed depth: a request enters whenever one is due, see `is_due`.

    Args:
        load: what to drive it with.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        # Made once for all drivers that name the same.
        self.decoder = registry.decoder(
            load.decoder, dtype=getattr(torch, load.dtype), device=load.device, switches=load.decoder_switches
        )
        channels, encoder_dim = registry.widths(self.decoder)
        device = torch.device(load.device)

        def drawn(seed: int, length: int, width: int) -> Tensor:
            return noise(seed, Purpose.INITIAL, 0, (1, length, width), device)

        null = None if getattr(self.decoder, "null_embedding", None) is not None else drawn(4, 1, encoder_dim)
        engine = load.engine or registry.engine_for(load.executor, load.decoder, dtype=load.dtype, tokens=TOKENS)
        file = None if engine is None else Path(engine)
        if file is not None and load.decoder_switches.on:
            on = ", ".join(load.decoder_switches.on)
            raise InvalidInput("decoder_switches", on, f"none on: {load.executor} runs a file that has its own decoder")
        code = None if load.code is None else Path(load.code)
        executor = registry.executor(load.executor, self.decoder, load.max_rows, None, load.device, file, code)
        if isinstance(executor, PreparesShapes):
            executor.prepare([Shape(load.frames, TOKENS, channels, encoder_dim)])
        self.tap = Tap(executor)
        self.session = Session(self.decoder, self.tap, null_embedding=null)
        config = PipelineConfig(
            depth=load.depth,
            steps=load.steps,
            dcw=DCW() if load.dcw else None,
            switches=load.switches,
            encoder_length=TOKENS,
            max_ticks_ahead=load.max_ticks_ahead,
        )
        context = torch.cat(
            [drawn(2, load.frames, channels), torch.ones(1, load.frames, channels, device=device)], dim=2
        )
        self._source = drawn(3, load.frames, channels) if load.denoise < 1.0 else None
        prompt = Condition(drawn(1, TOKENS, encoder_dim))
        self.stream: Stream = self.session.stream([prompt], context, config=config, source=self._source)
        self.submitted = 0
        self.dropped = 0
        self._stock = Stock(TOKENS, encoder_dim, load.frames, channels, load.device)

    def stock(self, ticks: int) -> None:
        """Make the prompts and contexts of so many ticks ahead, where every request has its own."""
        if self.load.fresh:
            self._stock.fill(ticks * self.load.depth // self.load.steps + self.load.depth)

    def tick(self) -> list[Finished]:
        """One tick, with a request where one is due."""
        load = self.load
        self.tap.batches.clear()
        if not is_due(self.stream.pipeline.stats(), self.submitted, load.depth, load.steps):
            return all_finished(self.stream.tick())
        self.submitted += 1
        guidance = None if load.cfg is None else Guidance(load.guidance_scale, mode=load.cfg)
        if load.fresh:
            request = self._stock.request(self.session, self.submitted, load.denoise, self._source, guidance)
            self.dropped += len(self.stream.pipeline.submit(request).dropped)
            return all_finished(self.stream.pipeline.tick())
        finished = all_finished(self.stream.tick(seed=self.submitted, denoise=load.denoise, guidance=guidance))
        submission = self.stream.last_submission
        self.dropped += 0 if submission is None else len(submission.dropped)
        return finished

    def warm_up(self, advance: Advance = silent) -> None:
        """Run the ticks before the window."""
        self.stock(self.load.warmup)
        for _ in range(self.load.warmup):
            self.tick()
            advance("warm-up")
        self.synchronize()

    def window(self, ticks: int, advance: Advance = silent) -> Window:
        """Run and time so many ticks."""
        self.stock(ticks)
        clock = EventClock() if self.on_gpu else HostClock()
        host: list[float] = []
        finished: list[Finished] = []
        started = time.perf_counter()
        clock.mark()
        for _ in range(ticks):
            before = time.perf_counter()
            finished += self.tick()
            host.append(1e3 * (time.perf_counter() - before))
            clock.mark()
            advance("ticks")
        self.synchronize()
        seconds = time.perf_counter() - started
        return Window(tuple(clock.between()), tuple(host), tuple(finished), seconds)

    def latency(self) -> Latency:
        """Set a shared control at every phase of the ring, and see when a latent shows it."""
        period = max(1, self.load.steps // self.load.depth)
        found = [self._latency(phase) for phase in range(period)]
        return Latency(*(fmean(column) for column in zip(*found, strict=True)))

    def _latency(self, phase: int) -> tuple[int, float, int, float]:
        """Of a control that is set `phase` ticks after a latent finished."""
        while not self.tick():
            pass
        for _ in range(phase):
            self.tick()
        self.synchronize()
        started = time.perf_counter()
        self.stream.pipeline.set_shared_curve("velocity_scale", 0.9)
        shown: list[tuple[int, float]] = []
        ticks, whole = 0, False
        while not whole:
            finished, ticks = self.tick(), ticks + 1
            if finished:
                self.synchronize()
                shown.append((ticks, 1e3 * (time.perf_counter() - started)))
                whole = any(latent.ticks_in_flight <= ticks for latent in finished)
        self.stream.pipeline.set_shared_curve("velocity_scale", None)
        return *shown[0], *shown[-1]

    @property
    def on_gpu(self) -> bool:
        """True where the decoder is on a CUDA device."""
        return torch.device(self.load.device).type == "cuda"

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.load.device)


def bench(load: Load, advance: Advance = silent) -> Measured:
    """Drive a session and measure it: a window of ticks, then the latency of a control, then the decoder alone.

    Args:
        load: what to drive it with.
        advance: called with what is done, after every tick before the end of the window.

    Raises:
        InvalidInput: a load that no pipeline or decoder takes.
    """
    driver = Driver(load)
    with driver.session:
        driver.warm_up(advance)
        pipeline, dropped = driver.stream.pipeline, driver.dropped
        before, window, after = pipeline.stats(), driver.window(load.ticks, advance), pipeline.stats()
        batches = tuple(driver.tap.batches)
        engine = runs(driver.tap.inner, batches) if registry.ExecutorKind(load.executor).ahead_of_time else None
        return Measured(
            load=load,
            samples={"tick_ms": window.tick_ms, "host_ms": window.host_ms},
            latents=len(window.finished),
            seconds=window.seconds,
            outputs=digest(window.finished),
            dropped=driver.dropped - dropped,
            runs=(after.decoder_runs - before.decoder_runs) / load.ticks,
            rows=(after.decoder_rows - before.decoder_rows) / load.ticks,
            control=driver.latency(),
            bare=bare(driver.decoder, merged(batches), on_gpu=driver.on_gpu, engine=engine),
        )


def digest(finished: Sequence[Finished]) -> str:
    """SHA-256 of latents, in order."""
    return digest_tree({f"{number:06}": each.latent.cpu() for number, each in enumerate(finished)})


def spread(values: Sequence[float]) -> Spread:
    """Median and percentiles, these by the nearest rank."""
    ordered = sorted(values)

    def rank(hundredths: int) -> float:
        return ordered[max(0, -(-hundredths * len(ordered) // 100) - 1)]

    return Spread(median(ordered), rank(95), rank(99))
