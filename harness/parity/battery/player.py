"""Player: drives a pipeline, or two in lockstep, through a scenario and keeps the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.engine.noise import Purpose, noise
from harness.engine.request import Condition, Request
from harness.engine.results import Submission, all_finished
from harness.parity.battery.scripts import Driven
from harness.parity.compare import digest_tree


@dataclass(frozen=True)
class Sizes:
    """Sizes and device of a scenario's tensors.

    Attributes:
        frames: number of frames T.
        channels: number of latent channels D.
        encoder_dim: encoder width E.
        device: device of the tensors.
    """

    frames: int
    channels: int
    encoder_dim: int
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Played:
    """Results of a scenario.

    Attributes:
        finished: finished latents on the CPU, float32 `[1, T, D]`, by request id.
        ticks: one digest for each tick, over every slot's state and the latents that the tick finished.
    """

    finished: dict[str, Tensor]
    ticks: tuple[str, ...]


class Player:
    """Driver of a pipeline, or of two in lockstep, through a script; keeps the results.

    Args:
        pipeline: the pipeline to drive.
        sizes: sizes of the requests' tensors.

    Attributes:
        finished: finished latents by request id.
        ticks: one digest for each tick; see `Played`.
    """

    def __init__(self, pipeline: Driven, sizes: Sizes) -> None:
        self.pipeline = pipeline
        self.sizes = sizes
        self.finished: dict[str, Tensor] = {}
        self.ticks: list[str] = []

    def latent(self, seed: int, frames: int | None = None) -> Tensor:
        """Draw a fixed latent `[1, T, D]` by its seed."""
        return self._drawn(seed, frames or self.sizes.frames, self.sizes.channels)

    def condition(self, seed: int, length: int, **fields: Any) -> Condition:
        """Draw a fixed condition of `length` tokens by its seed; `fields` are those of `Condition`."""
        return Condition(self._drawn(seed, length, self.sizes.encoder_dim), **fields)

    def ramp(self, start: float, end: float, frames: int | None = None) -> Tensor:
        """Make a linear curve over the frames, `[T]`."""
        return torch.linspace(start, end, frames or self.sizes.frames, device=self.sizes.device)

    def frames(self) -> Tensor:
        """Number the frames from 0, `[T]`."""
        return torch.arange(self.sizes.frames, device=self.sizes.device)

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        """Make a constant tensor of `shape`."""
        return torch.full(shape, value, device=self.sizes.device)

    def submit(self, id: str, seed: int, *, frames: int | None = None, **fields: Any) -> Submission:
        """Submit a request with `fields` of `Request`; without `conditions` it has one condition of seven tokens."""
        conditions = fields.pop("conditions", None) or (self.condition(100 + seed, 7),)
        context = torch.cat([self.latent(200 + seed, frames), self.latent(300 + seed, frames)], dim=2)
        return self.pipeline.submit(Request(conditions=conditions, context_latents=context, seed=seed, id=id, **fields))

    def tick(self, count: int = 1) -> None:
        """Run `count` ticks."""
        for _ in range(count):
            handed_out = {str(finished.id): finished.latent for finished in all_finished(self.pipeline.tick())}
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
