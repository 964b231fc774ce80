"""The times of a denoising run, computed on the host."""

from __future__ import annotations

from functools import lru_cache

import torch

SMALLEST_DENOISE = 1e-6
"""At or below this a request runs one step at time zero."""


def timesteps(steps: int, denoise: float = 1.0, shift: float = 3.0) -> tuple[float, ...]:
    """`steps + 1` times from noise (1) to clean (0), float32 values read as Python floats.

    `linspace(t0, 0, steps + 1)`, shifted by `shift*t / (1 + (shift-1)*t)` (the flow-matching shift of Esser et al.
    2024, arXiv:2403.03206). Below a `denoise` of 1 the run starts at `t0 = steps / int(steps / denoise)`: the tail of
    the longer schedule that a full run would have, without building it.

    Args:
        steps: how many steps, 1 to 1000.
        denoise: how much of the way to go, at least 0; 1 and above start from pure noise.
        shift: 0.001 to 1000; 1 leaves the times evenly spaced.

    Returns:
        `steps + 1` floats, decreasing to 0; `(0.0, 0.0)` for a `denoise` of at most 1e-6.
    """
    if denoise <= SMALLEST_DENOISE:
        return (0.0, 0.0)
    first = 1.0 if denoise >= 1.0 else steps / int(steps / denoise)
    times = torch.linspace(first, 0.0, steps + 1, dtype=torch.float32, device="cpu")
    if shift != 1.0:
        # Clamped: below 1 the shift amplifies the rounding of the denominator, and the first time could exceed 1.
        times = ((shift * times) / (1.0 + (shift - 1.0) * times)).clamp(max=1.0)
    return tuple(times.tolist())


@lru_cache(maxsize=128)
def known_timesteps(steps: int, denoise: float, shift: float) -> tuple[float, ...]:
    """`timesteps`, its plain twin, remembered: the same times are asked for request after request."""
    return timesteps(steps, denoise, shift)
