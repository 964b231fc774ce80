"""Adaptive projected guidance (Sadat et al. 2024, arXiv:2410.02416) per channel, and guidance rescale (Lin et al. 2023,
arXiv:2305.08891).

All tensors are float32 `[1, T, D]` unless said otherwise; norms run over T, one per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12
"""Lower bound of a norm that is divided by."""


def running_average(diff: Tensor, average: Tensor, momentum: Tensor) -> Tensor:
    """`diff + momentum*average`: the guidance direction with (reverse) momentum; `average` starts at 0."""
    return diff + momentum * average


def clip(average: Tensor, threshold: float | None) -> Tensor:
    """Scale each channel whose norm exceeds `threshold` down to it: `avg * min(1, r / ||avg||)`; None leaves it."""
    if threshold is None:
        return average
    norm: Tensor = torch.linalg.vector_norm(average, dim=1, keepdim=True)
    # A tensor over a tensor: a Python float over a tensor is computed as a reciprocal and a product.
    return average * (torch.full_like(norm, threshold) / norm).clamp(max=1.0)


def decompose(direction: Tensor, v_pos: Tensor) -> tuple[Tensor, Tensor]:
    """Split `direction` into the parts orthogonal and parallel to `v_pos`, in float64."""
    v, d = v_pos.double(), direction.double()
    unit = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    parallel = (d * unit).sum(dim=1, keepdim=True) * unit
    return d - parallel, parallel


def guide(v_pos: Tensor, average: Tensor, scale: Tensor, threshold: float | None, eta: float) -> Tensor:
    """The guided velocity `v_pos + (g-1)*(orthogonal + eta*parallel)`.

    Args:
        v_pos: velocity of the positive conditions.
        average: running average of `v_pos - v_neg`.
        scale: guidance scale `g`, `[1, 1, 1]` or `[1, T, 1]`.
        threshold: norm bound `r` of the direction, or None.
        eta: how much of the parallel part to keep; 0 drops it.
    """
    orthogonal, parallel = decompose(clip(average, threshold), v_pos)
    update = orthogonal.float()
    if eta != 0.0:
        update = update + (eta * parallel).float()
    return v_pos + (scale - 1) * update


def rescale(v: Tensor, v_pos: Tensor, amount: Tensor) -> Tensor:
    """Bring the guided velocity's norm back toward `v_pos`'s: `k*v' + (1-k)*v`, `v' = v * (||v_pos|| / ||v||)`."""
    wanted: Tensor = torch.linalg.vector_norm(v_pos, dim=1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    return amount * (v * (wanted / norm)) + (1 - amount) * v
