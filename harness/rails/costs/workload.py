"""The rings that costs are counted and times are taken on: full, steady, fed the way a stream is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

import torch

from harness.engine.config import PipelineConfig
from harness.engine.executors import Executor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Request
from harness.engine.results import Finished, Stats
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

KINDS: Mapping[str, Sequence[Submit]] = {
    "plain": (PLAIN,),
    **{"cfg_full" if mode is GuidanceMode.FULL else f"rcfg_{mode}": (guided,) for mode, guided in GUIDED.items()},
    "mixed": (
        replace(GUIDED[GuidanceMode.FULL], velocity_scale=(0.9, 1.1)),
        replace(GUIDED[GuidanceMode.SELF], noise_injection=0.1),
        replace(GUIDED[GuidanceMode.INITIALIZE], source=5, masked=Masked(6, every=2)),
        replace(PLAIN, source=5, toward=Toward(7, strength=0.3), denoise=0.6),
    ),
}
"""What the requests of a ring are, in turn."""


@dataclass(frozen=True)
class Workload:
    """A ring and what it is fed.

    Attributes:
        kind: of `KINDS`.
        depth: places, at least 1 and at most `STEPS`.
        dcw: whether the wavelet correction is on.
        switches: of the pipeline.
        frames: T.
    """

    kind: str
    depth: int
    dcw: bool = False
    switches: Switches = field(default_factory=Switches)
    frames: int = 16

    @property
    def period(self) -> int:
        """After so many ticks everything repeats: every place had every kind of request in it."""
        return STEPS * lcm(len(KINDS[self.kind]), self.depth) // self.depth

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

    def tick(self) -> list[Finished]:
        """Feed the ring and run one tick."""
        self.feed()
        return self.pipeline.tick()

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
