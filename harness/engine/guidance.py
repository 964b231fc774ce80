"""Adaptive projected guidance (Sadat et al. 2024, arXiv:2410.02416) per channel, and guidance rescale (Lin et al. 2023,
arXiv:2305.08891).

Tensors without a given shape are float32 `[1, T, D]`. Norms are over T, one per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12
"""Lower bound of norms in denominators, against division by zero."""


def running_average(diff: Tensor, average: Tensor, momentum: Tensor) -> Tensor:
    """The guidance direction with (reverse) momentum, `diff + momentum*average`; the first `average` is 0."""
    return diff + momentum * average


def clip(average: Tensor, threshold: float | None) -> Tensor:
    """Limit the norm of each channel to `threshold` (r): `avg * min(1, r / ||avg||)`; None is no limit."""
    if threshold is None:
        return average
    norm: Tensor = torch.linalg.vector_norm(average, dim=1, keepdim=True)
    # Divide a tensor by a tensor: torch computes float / tensor as reciprocal and product, which rounds differently.
    return average * (torch.full_like(norm, threshold) / norm).clamp(max=1.0)


def decompose(direction: Tensor, v_pos: Tensor) -> tuple[Tensor, Tensor]:
    """Split `direction` into its parts orthogonal and parallel to `v_pos`; computed and returned in float64."""
    v, d = v_pos.double(), direction.double()
    unit = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    parallel = (d * unit).sum(dim=1, keepdim=True) * unit
    return d - parallel, parallel


def guide(v_pos: Tensor, average: Tensor, scale: Tensor, threshold: float | None, eta: float) -> Tensor:
    """The guided velocity `v_pos + (g-1)*(orthogonal + eta*parallel)`.

    Args:
        v_pos: the velocity of the positive conditions.
        average: the running average of `v_pos - v_neg`.
        scale: the guidance scale `g`, `[1, 1, 1]` or `[1, T, 1]`.
        threshold: the limit `r` of the norm of the direction; None is no limit.
        eta: the factor of the parallel part; 0 removes the parallel part.
    """
    orthogonal, parallel = decompose(clip(average, threshold), v_pos)
    update = orthogonal.float()
    if eta != 0.0:
        update = update + (eta * parallel).float()
    return v_pos + (scale - 1) * update


def rescale(v: Tensor, v_pos: Tensor, amount: Tensor) -> Tensor:
    """Move the norm of the guided velocity toward the norm of `v_pos`.

    The formula is `k*v' + (1-k)*v` with `v' = v * (||v_pos|| / ||v||)`.

    Args:
        v: the guided velocity.
        v_pos: the velocity of the positive conditions.
        amount: `k`, `[1, 1, 1]` or `[1, T, 1]`; 0 keeps `v`.
    """
    wanted: Tensor = torch.linalg.vector_norm(v_pos, dim=1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    return amount * (v * (wanted / norm)) + (1 - amount) * v
