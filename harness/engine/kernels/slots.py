"""What the kernels are given of a slot."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

BLOCK_FRAMES = 128
"""Number of partial sums of a sum over frames: the order of the sum depends on it."""


@dataclass(frozen=True, eq=False)
class Guided:
    """A guided slot. Tensors are float32 `[1, T, D]`, curves `[1, 1, 1]` or `[1, T, 1]`.

    Attributes:
        v_pos: velocity of the positive conditions.
        v_neg: negative velocity.
        average: running average of the guidance direction.
        scale: guidance scale.
        momentum: factor of the running average.
        rescale: guidance rescale, or None.
        norm_threshold: limit of the norm of the direction per channel, or None.
        eta: factor of the parallel part.
    """

    v_pos: Tensor
    v_neg: Tensor
    average: Tensor
    scale: Tensor
    momentum: Tensor
    rescale: Tensor | None
    norm_threshold: float | None
    eta: float


@dataclass(frozen=True, eq=False)
class Corrected:
    """A slot whose step is corrected in the Haar domain. Tensors are float32 `[1, T, D]`.

    Attributes:
        stepped: state after the step.
        x: state before the step.
        velocity: combined velocity of the step.
        t: time before the step.
        low: scaler of the low band, `[1, 1, 1]` or `[1, n, 1]` with n = ceil(T / 2); None leaves the band as it is.
        low_factor: factor of `low`.
        high: scaler of the high band, as `low`.
        high_factor: factor of `high`.
        pix: scaler of the state itself, `[1, 1, 1]` or `[1, T, 1]`, in place of the bands; None corrects the bands.
    """

    stepped: Tensor
    x: Tensor
    velocity: Tensor
    t: float
    low: Tensor | None
    low_factor: float
    high: Tensor | None
    high_factor: float
    pix: Tensor | None
