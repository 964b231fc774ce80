"""Pipelines for the tests of traces, and scripts that use much of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine import (
    DCW,
    Condition,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    StreamPipeline,
    X0Target,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.traces import record

FRAMES, CHANNELS, WIDTH = 6, 4, 16


class Nudged(EagerExecutor):
    """Moves each element of the velocity by one ULP, in the run of that number."""

    def __init__(self, at: int) -> None:
        super().__init__(AffineDecoder(), 8)
        self.at, self.runs = at, 0

    def run(self, batch: Batch) -> Tensor:
        made = super().run(batch).clone()
        if self.runs == self.at:
            made = torch.nextafter(made, torch.tensor(torch.inf))
        self.runs += 1
        return made


def executor(rows: int = 8) -> EagerExecutor:
    return EagerExecutor(AffineDecoder(), rows)


def pipeline(**config: Any) -> StreamPipeline:
    return StreamPipeline(executor(), PipelineConfig(**{"depth": 2, "steps": 3, **config}))


def drawn(seed: int, frames: int = FRAMES, width: int = CHANNELS) -> Tensor:
    return torch.randn(1, frames, width, generator=torch.Generator().manual_seed(seed))


def request(seed: int, **fields: Any) -> Request:
    given = {"conditions": [Condition(drawn(seed, 5, WIDTH))], **fields}
    return Request(context_latents=drawn(100 + seed, FRAMES, 2 * CHANNELS), seed=seed, **given)


def rich(seed: int) -> Request:
    """A request that uses every field."""
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    first = Condition(drawn(1, 5, WIDTH), mask, torch.linspace(0.1, 1, FRAMES), (0.0, 0.9))
    return request(
        seed,
        conditions=[first, Condition(drawn(2, 4, WIDTH), temporal_weight=0.3)],
        id="rich",
        denoise=0.7,
        source=drawn(3),
        guidance=Guidance(torch.linspace(1, 3, FRAMES), [Condition(drawn(4, 3, WIDTH))], rescale=0.2, eta=0.1),
        velocity_scale=torch.linspace(0.9, 1.1, FRAMES),
        noise_injection=0.05,
        sde_curve=0.2,
        initial_noise=0.8,
        x0_target=X0Target(drawn(5), curve=0.1, gate=0.5),
        latent_mask=LatentMask(torch.linspace(0, 1, FRAMES), drawn(6), lambda step, total: 1 - step / total),
    )


def play(ring: Any) -> list[Any]:
    """Call everything that a pipeline has; return what its ticks handed out."""
    ring.submit(rich(1))
    ring.submit(request(2, id="plain"))
    made = [ring.tick()]
    ring.set_shared_curve("velocity_scale", torch.linspace(0.8, 1.2, FRAMES))
    ring.set_channel_gain(torch.full((1, 1, CHANNELS), 1.5))
    ring.set_dcw(DCW(a=torch.linspace(0, 0.1, 3)))
    ring.submit(request(3, id=7))
    ring.submit(request(4))
    made += [ring.tick(), ring.set_depth(1) and ring.tick() or ring.tick()]
    ring.cancel(7)
    ring.set_shared_curve("velocity_scale", None)
    ring.submit(request(5))
    return [*made, ring.collect(), ring.drain()]


def recorded(path: Path, **config: Any) -> Path:
    """A trace of `play`."""
    with record(pipeline(**config), path, decoder="affine") as ring:
        play(ring)
    return path
