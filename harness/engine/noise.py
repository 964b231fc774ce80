"""The only place where random numbers are drawn: a pure function of seed, purpose and step."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import torch
from torch import Tensor

MAX_SEED = 2**64 - 1
"""Seeds are what a torch generator takes: 0 to 2**64 - 1."""


class Purpose(StrEnum):
    """What a draw is for; each purpose has its own stream of noise."""

    INITIAL = "initial"
    STEP = "step"
    MASK = "mask"


def generator_seed(seed: int, purpose: Purpose, step: int) -> int:
    """The generator's seed for one draw.

    Initial noise uses the request's seed itself, so that a latent can be compared with another engine's. Every other
    purpose uses the first eight bytes, big-endian, of SHA-256 of `"{seed}/{purpose}/{step}"`.
    """
    if purpose is Purpose.INITIAL:
        return seed
    digest = hashlib.sha256(f"{seed}/{purpose.value}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def noise(
    seed: int, purpose: Purpose, step: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise, float32 `[1, T, D]`.

    Drawn on the CPU as `randn(1, D, T)` and transposed (the layout of ComfyUI's RandomNoise), then moved: the same
    bits on every device, whatever else was drawn before.

    Args:
        seed: the request's seed, 0 to 2**64 - 1.
        purpose: which stream.
        step: the slot's step; 0 for initial and mask noise.
        shape: `(1, T, D)`.
        device: where the result goes.
    """
    _, frames, channels = shape
    generator = torch.Generator(device="cpu").manual_seed(generator_seed(seed, purpose, step))
    drawn = torch.randn(1, channels, frames, generator=generator, dtype=torch.float32, device="cpu")
    return to_device(drawn.transpose(1, 2).contiguous(), torch.device(device))


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Move a CPU tensor to `device` without the host waiting for work that is queued there."""
    if device.type != "cuda":
        return host if device == host.device else host.to(device)
    return host.pin_memory().to(device, non_blocking=True)
