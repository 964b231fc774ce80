"""One place of the ring: a frozen record of a request in flight and its state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine import blend, solver
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.noise import Purpose, noise
from harness.engine.request import Request, normal


@dataclass(frozen=True, eq=False)
class Slot:
    """A request in flight. Every tensor is float32 `[1, T, D]` and is never written to.

    Attributes:
        id: the request's name in the results.
        request: what is generated.
        admitted_at: number of the tick that took it in.
        times: the schedule, `total + 1` floats.
        step: the next step, 0 to `total - 1`.
        x: the state at `times[step]`.
        initial_noise: what `self` guidance takes for its negative velocity, else None.
        mask_noise: the latent mask's noise, None without a mask or with a neutral one.
        average: the guidance direction's running average, else None.
        kept_negative: the negative velocity of step 0 in mode `initialize`, a copy, else None.
    """

    id: str | int
    request: Request
    admitted_at: int
    times: tuple[float, ...]
    step: int
    x: Tensor
    initial_noise: Tensor | None
    mask_noise: Tensor | None
    average: Tensor | None
    kept_negative: Tensor | None

    @property
    def total(self) -> int:
        """How many steps the request runs."""
        return len(self.times) - 1

    def state(self) -> dict[str, Tensor]:
        """The tensors that a tick moves, by name."""
        named = {"x": self.x, "average": self.average, "kept_negative": self.kept_negative}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def admit(id: str | int, request: Request, times: tuple[float, ...], tick: int, *, masked: bool) -> Slot:
    """The slot of a request that enters the ring at `tick`, its noise drawn and its initial state made.

    `masked` says whether its latent mask will ever act; one that never does draws no noise.
    """
    shape = (1, request.frames, request.channels)
    drawn = noise(request.seed, Purpose.INITIAL, 0, shape, request.device)
    guidance = request.guidance
    return Slot(
        id=id,
        request=request,
        admitted_at=tick,
        times=times,
        step=0,
        x=initial_state(request, drawn, times[0]),
        initial_noise=drawn if guidance is not None and GuidanceMode(guidance.mode).keeps_initial_noise else None,
        mask_noise=noise(request.seed, Purpose.MASK, 0, shape, request.device) if masked else None,
        average=None if guidance is None else torch.zeros_like(drawn),
        kept_negative=None,
    )


def initial_state(request: Request, drawn: Tensor, first: float) -> Tensor:
    """The state at the first time: noise, mixed with the source where the request says so."""
    source = request.stand_in_source
    if source is None:
        return drawn
    share = normal(request.initial_noise)
    if share is not None:
        return blend.mix(share.values, drawn, source.float())
    if request.denoise < 1.0:
        return solver.renoised(source.float(), drawn, first)
    return drawn
