"""The rings that costs are counted and times are taken on: full, steady, fed the way a stream is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

import torch

from harness.engine.config import PipelineConfig
from harness.engine.decoders import Decoder
from harness.engine.executors import Executor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Guidance, Request
from harness.engine.results import Finished, Stats
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
"""What the requests of a ring are, in turn."""


@dataclass(frozen=True)
class Asked:
    """What a tick of a stream asks for besides a seed; guidance is against the session's null condition."""

    denoise: float = 1.0
    mode: GuidanceMode | None = None

    def guidance(self) -> Guidance | float | None:
        """The guidance; in mode `full` the number alone, which the stream makes a record of at every request."""
        if self.mode is None:
            return None
        return 2.5 if self.mode is GuidanceMode.FULL else Guidance(2.5, mode=self.mode)


STREAMS: Mapping[str, Asked] = {
    "plain": Asked(),
    "source": Asked(denoise=0.6),
    **{_rail(mode): Asked(mode=mode) for mode in GuidanceMode},
}
"""What the ticks of a stream ask for."""


@dataclass(frozen=True)
class Workload:
    """A ring and what it is fed.

    Attributes:
        kind: of `KINDS`; of `STREAMS` where `streamed`.
        depth: places, at least 1 and at most `STEPS`.
        dcw: whether the wavelet correction is on.
        switches: of the pipeline.
        frames: T.
        streamed: whether the ticks are those of a session's stream, which submits the requests.
    """

    kind: str
    depth: int
    dcw: bool = False
    switches: Switches = field(default_factory=Switches)
    frames: int = 16
    streamed: bool = False

    @property
    def period(self) -> int:
        """After so many ticks everything repeats: every place had every kind of request in it."""
        kinds = 1 if self.streamed else len(KINDS[self.kind])
        return STEPS * lcm(kinds, self.depth) // self.depth

    @property
    def config(self) -> PipelineConfig:
        """Of its pipeline."""
        script = Script(dcw=Wavelets() if self.dcw else None, depth=self.depth, steps=STEPS, encoder_length=64)
        return script.config(self.switches)


def is_due(stats: Stats, submitted: int, depth: int, steps: int) -> bool:
    """Whether a ring takes a request now: the first ones as far apart as places, then whenever a place is free."""
    begins = submitted >= depth or stats.ticks >= submitted * max(1, steps // depth)
    return begins and stats.in_flight + stats.queued < depth


class Ring:
    """A pipeline on a workload, fed so that a place that gets free is taken at once.

    Args:
        workload: what it does.
        executor: runs the decoder; the caller closes it.
        channels: D.
        encoder_dim: E.
        device: where everything is.
    """

    def __init__(
        self,
        workload: Workload,
        executor: Executor,
        channels: int = 4,
        encoder_dim: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        """See the class."""
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
        """Run one tick; what is due was fed before."""
        return self.pipeline.tick()

    def tick(self) -> list[Finished]:
        """Feed the ring and run one tick."""
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
        # One context for all, as the requests of a stream have it.
        request = self._props.request(replace(submit, seed=self._submitted))
        return replace(request, context_latents=self._context)


class StreamRing:
    """A session's stream on a workload: as `Ring`, but its tick makes the request and submits it as well.

    Args:
        workload: what it does.
        decoder: has the null embedding; `executor` runs.
        executor: runs the decoder; the caller closes it.
        channels: D.
        encoder_dim: E.
    """

    def __init__(
        self, workload: Workload, decoder: Decoder, executor: Executor, channels: int = 4, encoder_dim: int = 16
    ) -> None:
        """See the class."""
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
        """Submit nothing: the tick does."""

    def advance(self) -> list[Finished]:
        """Run one tick of the stream, with a request where one is due."""
        if not is_due(self.pipeline.stats(), self._submitted, self.workload.depth, STEPS):
            return self._stream.tick()
        self._submitted += 1
        return self._stream.tick(seed=self._submitted, denoise=self._asked.denoise, guidance=self._guidance)

    def warm_up(self) -> None:
        """Run until the ring is full and has gone through a whole period."""
        for _ in range(STEPS + self.workload.period):
            self.advance()
