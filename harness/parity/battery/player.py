"""Drives a pipeline, or two in lockstep, through a scenario and keeps the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.engine.noise import Purpose, noise
from harness.engine.request import Condition, Request
from harness.engine.results import Submission
from harness.parity.battery.scripts import Driven
from harness.parity.compare import digest_tree


@dataclass(frozen=True)
class Sizes:
    """Of a scenario's tensors: frames T, latent channels D, encoder width E, and where they are."""

    frames: int
    channels: int
    encoder_dim: int
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Played:
    """What a scenario made.

    Attributes:
        finished: finished latents by request id.
        ticks: digest, after each tick, of every slot's state and of what the tick finished.
    """

    finished: dict[str, Tensor]
    ticks: tuple[str, ...]


class Player:
    """Drives one pipeline, or two in lockstep, through a script and keeps what it made."""

    def __init__(self, pipeline: Driven, sizes: Sizes) -> None:
        """A player of `pipeline` whose requests have `sizes`."""
        self.pipeline = pipeline
        self.sizes = sizes
        self.finished: dict[str, Tensor] = {}
        self.ticks: list[str] = []

    def latent(self, seed: int, frames: int | None = None) -> Tensor:
        """A fixed latent `[1, T, D]`."""
        return self._drawn(seed, frames or self.sizes.frames, self.sizes.channels)

    def condition(self, seed: int, length: int, **fields: Any) -> Condition:
        """A fixed condition of `length` tokens."""
        return Condition(self._drawn(seed, length, self.sizes.encoder_dim), **fields)

    def ramp(self, start: float, end: float, frames: int | None = None) -> Tensor:
        """A linear curve over the frames."""
        return torch.linspace(start, end, frames or self.sizes.frames, device=self.sizes.device)

    def frames(self) -> Tensor:
        """The frames' numbers."""
        return torch.arange(self.sizes.frames, device=self.sizes.device)

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        """A constant."""
        return torch.full(shape, value, device=self.sizes.device)

    def submit(self, id: str, seed: int, *, frames: int | None = None, **fields: Any) -> Submission:
        """Submit a request; without `conditions` it has one of seven tokens."""
        conditions = fields.pop("conditions", None) or (self.condition(100 + seed, 7),)
        context = torch.cat([self.latent(200 + seed, frames), self.latent(300 + seed, frames)], dim=2)
        return self.pipeline.submit(Request(conditions=conditions, context_latents=context, seed=seed, id=id, **fields))

    def tick(self, count: int = 1) -> None:
        """Run `count` ticks."""
        for _ in range(count):
            handed_out = {str(finished.id): finished.latent for finished in self.pipeline.tick()}
            self.finished.update(handed_out)
            slots = enumerate(self.pipeline.slots)
            state = {f"{i}/{n}": t for i, slot in slots if slot is not None for n, t in slot.state().items()}
            state.update({f"finished/{id}": latent for id, latent in handed_out.items()})
            self.ticks.append(digest_tree(state))

    def drain(self) -> None:
        """Tick until nothing is queued or in flight."""
        while self.pipeline.stats().in_flight or self.pipeline.stats().queued:
            self.tick()

    def _drawn(self, seed: int, length: int, width: int) -> Tensor:
        return noise(seed, Purpose.INITIAL, 0, (1, length, width), torch.device(self.sizes.device))
