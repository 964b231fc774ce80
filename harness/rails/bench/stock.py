"""Prompts and contexts that are made ahead, for requests that each have their own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.guidance_modes import GuidanceMode
from harness.engine.request import Condition, Guidance, Request
from harness.engine.session import Session


class Stock:
    """Random prompts and contexts on a device, each used once; the same ones in every stock of the same sizes.

    Args:
        tokens: tokens L of a prompt.
        encoder_dim: encoder width E.
        frames: latent frames T.
        channels: latent channels D.
        device: the device.
    """

    def __init__(self, tokens: int, encoder_dim: int, frames: int, channels: int, device: str) -> None:
        self._prompt = (1, tokens, encoder_dim)
        self._context = (1, frames, 2 * channels)
        self._device = device
        self._generator = torch.Generator(device="cpu").manual_seed(0)
        self._made: list[tuple[Tensor, Tensor]] = []

    def fill(self, requests: int) -> None:
        """Make what so many requests need, less what is there."""
        while len(self._made) < requests:
            self._made.append((self._drawn(self._prompt), self._drawn(self._context)))

    def request(
        self, session: Session, seed: int, denoise: float, source: Tensor | None, guidance: Guidance | None
    ) -> Request:
        """The next request, with a prompt and a context of its own; guided against the session's null condition."""
        self.fill(1)
        states, context = self._made.pop()
        prompt = Condition(states)
        if guidance is not None and GuidanceMode(guidance.mode).needs_negatives:
            guidance = replace(guidance, negatives=(session.null_condition(prompt),))
        return Request([prompt], context, seed, denoise=denoise, source=source, guidance=guidance)

    def _drawn(self, size: tuple[int, int, int]) -> Tensor:
        return torch.randn(size, generator=self._generator, dtype=torch.float32, device="cpu").to(self._device)
