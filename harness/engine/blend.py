"""Weighted sums and masks: several conditions into one velocity, a latent mask, edits of the clean estimate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

SMALLEST_WEIGHT = 1e-8
"""Lower bound of a sum of weights that is divided by."""


def weighted_mean(velocities: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """`sum(v_i * w_i) / max(sum(w_i), 1e-8)`, summed in order from the first product.

    Args:
        velocities: one or more `[1, T, D]`. A single one is returned as it is, whatever its weight.
        weights: as many, each `[1, T, 1]` or `[1, 1, 1]`.
    """
    if len(velocities) == 1:
        return velocities[0]
    total = velocities[0] * weights[0]
    weight = weights[0]
    for v, w in zip(velocities[1:], weights[1:], strict=True):
        total = total + v * w
        weight = weight + w
    return total / weight.clamp(min=SMALLEST_WEIGHT)


def mask_state(x: Tensor, mask: Tensor, original: Tensor, noise: Tensor, t: float) -> Tensor:
    """The state with the frames outside the mask set to the original at noise level `t`.

    `mask*x + (1-mask)*(t*noise + (1-t)*original)`; `mask` is `[1, T, 1]`, the others `[1, T, D]`.
    """
    return mask * x + (1 - mask) * (t * noise + (1.0 - t) * original)


def mix(weight: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """`weight*inside + (1-weight)*outside`, with a weight of `[1, T, 1]` or `[1, 1, 1]`."""
    return weight * inside + (1 - weight) * outside


def toward(x0: Tensor, target: Tensor, strength: Tensor) -> Tensor:
    """The clean estimate moved toward a target: `(1-strength)*x0 + strength*target`."""
    return (1 - strength) * x0 + strength * target


def gate_ramp(step: int, total: int, gate: float) -> float:
    """How far a gated target is open at `step` of `total`: 0 up to the gate, then linear to 1 at the last step."""
    progress = step / max(total - 1, 1)
    return max(0.0, progress - gate) / max(1.0 - gate, 1e-6)
