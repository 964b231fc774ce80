"""Slots: frozen records of the requests in flight and their states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine import blend, solver
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.noise import Purpose, noise
from harness.engine.once import Unread
from harness.engine.request import Request, normal
from harness.engine.results import Finished
from harness.engine.transfer import to_device


@dataclass(frozen=True, eq=False)
class Slot:
    """A request in flight. Every tensor is float32 `[1, T, D]` and is never written to.

    Attributes:
        id: the request's name in the results.
        request: the request.
        admitted_at: number of the tick that admitted the request, from 0.
        times: the schedule, `total + 1` floats in [0, 1].
        step: number of the next step, from 0.
        x: the state at `times[step]`.
        initial_noise: the negative velocity of `self` guidance, else None.
        mask_noise: noise of the latent mask; None without a mask or with a neutral one.
        average: running average of the guidance direction; None without guidance.
        kept_negative: copy of the negative velocity of step 0 in mode `initialize`, else None.
        unread: tensors of the request that nobody has read yet, or None.
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
    unread: Unread | None = None

    @property
    def total(self) -> int:
        """Number of steps of the request."""
        return len(self.times) - 1

    def finished(self, tick: int) -> Finished:
        """The slot's latent, after its last step in tick number `tick`."""
        return Finished(
            id=self.id,
            latent=self.x,
            seed=self.request.seed,
            steps=self.total,
            denoise=self.request.denoise,
            ticks_in_flight=tick - self.admitted_at + 1,
        )

    def state(self) -> dict[str, Tensor]:
        """The tensors that a tick replaces, by name."""
        named = {"x": self.x, "average": self.average, "kept_negative": self.kept_negative}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def admit(
    id: str | int, request: Request, times: tuple[float, ...], tick: int, *, masked: bool, unread: Unread | None = None
) -> Slot:
    """Make the slot of a request that enters the ring: draw its noise and make its initial state.

    Args:
        id: the request's name.
        request: the request.
        times: the request's schedule, `total + 1` floats.
        tick: number of the tick that admits the request.
        masked: the request has a latent mask that acts; only such a mask gets noise.
        unread: tensors of the request that nobody has read yet, or None.
    """
    shape = (1, request.frames, request.channels)

    def drawn_for(purpose: Purpose) -> Tensor:
        return to_device(noise(request.seed, purpose, 0, shape), request.device, read_here=True)

    drawn = drawn_for(Purpose.INITIAL)
    guidance = request.guidance
    return Slot(
        id=id,
        request=request,
        admitted_at=tick,
        times=times,
        step=0,
        x=initial_state(request, drawn, times[0]),
        initial_noise=drawn if guidance is not None and GuidanceMode(guidance.mode).keeps_initial_noise else None,
        mask_noise=drawn_for(Purpose.MASK) if masked else None,
        average=None if guidance is None else torch.zeros_like(drawn),
        kept_negative=None,
        unread=unread,
    )


def initial_state(request: Request, drawn: Tensor, first: float) -> Tensor:
    """Initial state `[1, T, D]`: noise, mixed with the source where the request asks for it.

    Args:
        request: the request.
        drawn: its initial noise, float32 `[1, T, D]`.
        first: the first time of the schedule.
    """
    source = request.stand_in_source
    if source is None:
        return drawn
    share = normal(request.initial_noise)
    if share is not None:
        return blend.mix(share.values, drawn, source.float())
    if request.denoise < 1.0:
        return solver.renoised(source.float(), drawn, first)
    return drawn
