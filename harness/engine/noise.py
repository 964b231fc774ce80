"""Random noise, a pure function of seed, purpose and step. No other module of the engine draws random numbers."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import torch
from torch import Tensor

from harness.engine.serially import dense

MAX_SEED = 2**64 - 1
"""The largest seed of a torch generator; the smallest is 0."""


class Purpose(StrEnum):
    """The purpose of a draw. Each purpose has its own sequence of noise."""

    INITIAL = "initial"
    STEP = "step"
    MASK = "mask"


def generator_seed(seed: int, purpose: Purpose, step: int) -> int:
    """The seed of torch's generator for one draw.

    Initial noise uses the request's seed unchanged, so that latents can be compared with those of other engines. The
    CPU generator of torch reads the low 32 bits of its seed: seeds that are equal modulo 2**32 draw equal initial
    noise. The other purposes use the first eight bytes, big-endian, of the SHA-256 of `"{seed}/{purpose}/{step}"`.
    """
    if purpose is Purpose.INITIAL:
        return seed
    digest = hashlib.sha256(f"{seed}/{purpose.value}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def noise(
    seed: int, purpose: Purpose, step: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise, float32 `[1, T, D]`.

    The noise is drawn on the CPU as `randn(1, D, T)`, transposed (the layout of ComfyUI's RandomNoise) and moved. So
    its bits are the same on every device and do not depend on earlier draws.

    Args:
        seed: the request's seed, 0 to `MAX_SEED`.
        purpose: the purpose of the draw.
        step: the slot's step; 0 for initial noise and mask noise.
        shape: `(1, T, D)`.
        device: the device of the result. The host waits for a copy to a GPU; a ring moves its noise itself.
    """
    _, frames, channels = shape
    generator = torch.Generator(device="cpu").manual_seed(generator_seed(seed, purpose, step))
    drawn = torch.randn(1, channels, frames, generator=generator, dtype=torch.float32, device="cpu")
    made = dense(drawn.transpose(1, 2))
    return made if made.device == torch.device(device) else made.to(device)
