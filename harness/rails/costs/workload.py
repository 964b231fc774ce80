"""Workloads of cost rails and benchmarks: full, steady rings that are fed like a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import lcm
from typing import Any

import torch

from harness.engine.config import PipelineConfig
from harness.engine.curve import Curve
from harness.engine.decoders import Decoder
from harness.engine.executors import Executor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Guidance, Request
from harness.engine.results import Finished, Stats, all_finished
from harness.engine.session import Session
from harness.engine.switches import Switches
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Guided, Masked, Script, Submit, Text, Toward, Wavelets

STEPS = 8

PROMPT, NEGATIVE = (Text(1, 7),), (Text(2, 5),)
PLAIN = Submit(texts=PROMPT)
GUIDED = {
    mode: replace(PLAIN, guided=Guided(2.5, NEGATIVE if mode.needs_negatives else (), str(mode)))
    for mode in GuidanceMode
}


def _rail(mode: GuidanceMode) -> str:
    return "cfg_full" if mode is GuidanceMode.FULL else f"rcfg_{mode}"


KINDS: Mapping[str, Sequence[Submit]] = {
    "plain": (PLAIN,),
    **{_rail(mode): (guided,) for mode, guided in GUIDED.items()},
    "mixed": (
        replace(GUIDED[GuidanceMode.FULL], velocity_scale=(0.9, 1.1)),
        replace(GUIDED[GuidanceMode.SELF], noise_injection=0.1),
        replace(GUIDED[GuidanceMode.INITIALIZE], source=5, masked=Masked(6, every=2)),
        replace(PLAIN, source=5, toward=Toward(7, strength=0.3), denoise=0.6),
    ),
}
"""Requests of each kind of ring, submitted in turn."""


@dataclass(frozen=True)
class Asked:
    """Arguments of a stream's tick besides the seed; the negative condition is the session's null condition.

    Attributes:
        denoise: denoising strength.
        mode: guidance mode, or None for no guidance.
    """

    denoise: float = 1.0
    mode: GuidanceMode | None = None

    def guidance(self) -> Guidance | float | None:
        """Make the argument `guidance`; in mode `full` a number, which the stream makes a `Guidance` of every time."""
        if self.mode is None:
            return None
        return 2.5 if self.mode is GuidanceMode.FULL else Guidance(2.5, mode=self.mode)


STREAMS: Mapping[str, Asked] = {
    "plain": Asked(),
    "source": Asked(denoise=0.6),
    **{_rail(mode): Asked(mode=mode) for mode in GuidanceMode},
}
"""Arguments of the ticks of each kind of stream."""


@dataclass(frozen=True)
class Workload:
    """A ring and its requests.

    Attributes:
        kind: a key of `KINDS`, or of `STREAMS` where `streamed`.
        depth: number of places, from 1 to `STEPS`.
        dcw: the wavelet correction is on.
        switches: switches of the pipeline.
        frames: number of frames T.
        streamed: the ticks are those of a session's stream, which makes and submits the requests.
    """

    kind: str
    depth: int
    dcw: bool = False
    switches: Switches = field(default_factory=Switches)
    frames: int = 16
    streamed: bool = False

    @property
    def period(self) -> int:
        """Number of ticks after which the ring repeats itself: every place has held every kind of request."""
        kinds = 1 if self.streamed else len(KINDS[self.kind])
        return STEPS * lcm(kinds, self.depth) // self.depth

    @property
    def config(self) -> PipelineConfig:
        """Configuration of the pipeline."""
        script = Script(dcw=Wavelets() if self.dcw else None, depth=self.depth, steps=STEPS, encoder_length=64)
        return script.config(self.switches)


def is_due(stats: Stats, submitted: int, depth: int, steps: int) -> bool:
    """Say whether a ring takes a request now: while it fills, at equal distances in time, then at every free place.

    Args:
        stats: the pipeline's statistics.
        submitted: number of requests submitted so far.
        depth: number of places.
        steps: number of steps of a request.
    """
    begins = submitted >= depth or stats.ticks >= submitted * max(1, steps // depth)
    return begins and stats.in_flight + stats.queued < depth


class Ring:
    """A pipeline that runs a workload; a free place is taken in the next tick.

    Args:
        workload: the workload.
        executor: runs the decoder; the caller closes the executor.
        channels: number of latent channels D.
        encoder_dim: encoder width E.
        device: device of the ring's tensors.
    """

    def __init__(
        self,
        workload: Workload,
        executor: Executor,
        channels: int = 4,
        encoder_dim: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        self.workload = workload
        self.pipeline = StreamPipeline(executor, workload.config)
        self._context = torch.zeros(1, workload.frames, 2 * channels, device=device)
        self._props = Props(Script(frames=workload.frames, channels=channels, encoder_dim=encoder_dim), device)
        self._submitted = 0

    def feed(self) -> None:
        """Submit the requests that are due; see `is_due`."""
        while is_due(self.pipeline.stats(), self._submitted, self.workload.depth, STEPS):
            self.pipeline.submit(self._request())

    def advance(self) -> list[Finished]:
        """Run one tick, after `feed`; return the latents that finished."""
        return all_finished(self.pipeline.tick())

    def tick(self) -> list[Finished]:
        """Feed the ring and run one tick; return the latents that finished."""
        self.feed()
        return self.advance()

    def warm_up(self) -> None:
        """Run until the ring is full and has gone through a whole period."""
        for _ in range(STEPS + self.workload.period):
            self.tick()

    def _request(self) -> Request:
        kinds = KINDS[self.workload.kind]
        submit = kinds[self._submitted % len(kinds)]
        self._submitted += 1
        # One context for all requests, as in a stream.
        request = self._props.request(replace(submit, seed=self._submitted))
        return replace(request, context_latents=self._context)


class StreamRing:
    """A session's stream that runs a workload; unlike in `Ring`, the tick makes and submits the request.

    Args:
        workload: the workload, with `streamed` on.
        decoder: the decoder, read for its null embedding.
        executor: runs the decoder; the caller closes the executor.
        channels: number of latent channels D.
        encoder_dim: encoder width E.
    """

    def __init__(
        self, workload: Workload, decoder: Decoder, executor: Executor, channels: int = 4, encoder_dim: int = 16
    ) -> None:
        self.workload = workload
        self._asked = STREAMS[workload.kind]
        self._guidance = self._asked.guidance()
        script = Script(frames=workload.frames, channels=channels, encoder_dim=encoder_dim)
        request = Props(script).request(replace(PLAIN, source=5))
        context = torch.zeros(1, workload.frames, 2 * channels)
        self._stream = Session(decoder, executor).stream(
            request.conditions, context, config=workload.config, source=request.source
        )
        self.pipeline = self._stream.pipeline
        self._submitted = 0

    def feed(self) -> None:
        """Do nothing: the stream's tick submits the request."""

    def advance(self) -> list[Finished]:
        """Run one tick of the stream, with a request where one is due; return the latents that finished."""
        if not is_due(self.pipeline.stats(), self._submitted, self.workload.depth, STEPS):
            return all_finished(self._stream.tick())
        self._submitted += 1
        return all_finished(
            self._stream.tick(seed=self._submitted, denoise=self._asked.denoise, guidance=self._guidance)
        )

    def warm_up(self) -> None:
        """Run until the ring is full and has gone through a whole period."""
        for _ in range(STEPS + self.workload.period):
            self.advance()


@contextmanager
def curves_touched(counts: Counter[str]) -> Iterator[None]:
    """Count in `counts["curves"]` the accesses to `Curve.values` inside a `with` block."""
    original = Curve.__getattribute__

    def counted(curve: Curve, name: str) -> Any:
        if name == "values":
            counts["curves"] += 1
        return original(curve, name)

    Curve.__getattribute__ = counted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Curve.__getattribute__ = original  # type: ignore[method-assign]
