"""Weighted sums and masks: the mean velocity of several conditions, the latent mask, edits of the clean estimate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

SMALLEST_WEIGHT = 1e-8
"""Lower bound of the sum of weights in `weighted_mean`, against division by zero."""


def weighted_mean(velocities: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The weighted mean `sum(v_i * w_i) / max(sum(w_i), 1e-8)`, added in order of i.

    Args:
        velocities: one or more tensors `[1, T, D]`. A single velocity is returned unchanged, with any weight.
        weights: a weight `[1, T, 1]` or `[1, 1, 1]` for each velocity.
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
    """The state in which frames outside the mask are the original at noise level `t`.

    The formula is `mask*x + (1-mask)*(t*noise + (1-t)*original)`.

    Args:
        x: the state `[1, T, D]`.
        mask: `[1, T, 1]`; 1 keeps the state, 0 takes the original.
        original: the original latent `[1, T, D]`.
        noise: `[1, T, D]`.
        t: the noise level in [0, 1].
    """
    return mask * x + (1 - mask) * (t * noise + (1.0 - t) * original)


def mix(weight: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """The mixture `weight*inside + (1-weight)*outside`; `weight` is `[1, T, 1]` or `[1, 1, 1]`."""
    return weight * inside + (1 - weight) * outside


def toward(x0: Tensor, target: Tensor, strength: Tensor) -> Tensor:
    """The clean estimate moved toward a target: `(1-strength)*x0 + strength*target`."""
    return (1 - strength) * x0 + strength * target


def gate_ramp(step: int, total: int, gate: float) -> float:
    """The share of a gated target at `step`: 0 up to the gate, then linear to 1 at the last step.

    It is 0 at every step where the gate is 1, and where there is only one step: such a target edits nothing.

    Args:
        step: the index of the step, 0 to `total - 1`.
        total: the number of steps.
        gate: the share of the steps, in [0, 1], up to which the target is off.
    """
    progress = step / max(total - 1, 1)
    return max(0.0, progress - gate) / max(1.0 - gate, 1e-6)
