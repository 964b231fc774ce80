"""The kernels' computations by torch's operators, slot by slot: the plain twin, with the same bits.

Every operator works element by element and rounds once, sums over frames included: those are added in the kernels'
order, which `total` writes out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine import guidance, solver
from harness.engine.kernels.slots import BLOCK_FRAMES, Corrected, Guided


def guide(slots: Sequence[Guided]) -> list[tuple[Tensor, Tensor]]:
    """The guided velocity and the new running average of every slot, float32 `[1, T, D]`."""
    return [_guide(slot) for slot in slots]


def correct(slots: Sequence[Corrected]) -> list[Tensor]:
    """The corrected state of every slot, float32 `[1, T, D]`."""
    return [_pix(slot, slot.pix) if slot.pix is not None else _haar(slot) for slot in slots]


def total(values: Tensor) -> Tensor:
    """The sum of float64 `[1, T, D]` over T, as `[1, 1, D]`.

    Frame `t` is added to partial sum `t % BLOCK_FRAMES`, in ascending order of `t`. Then the upper half of the partial
    sums is added to the lower half, until one is left.
    """
    short = -values.shape[1] % BLOCK_FRAMES
    blocks = torch.split(functional.pad(values, (0, 0, 0, short)), BLOCK_FRAMES, dim=1)
    sums = torch.zeros_like(blocks[0])
    for block in blocks:
        sums = sums + block
    while sums.shape[1] > 1:
        lower, upper = sums.chunk(2, dim=1)
        sums = lower + upper
    return sums


def _guide(slot: Guided) -> tuple[Tensor, Tensor]:
    v_pos = slot.v_pos
    average = guidance.running_average(v_pos - slot.v_neg, slot.average, slot.momentum)
    wide = v_pos.double()
    v_norm = total(wide * wide).sqrt()
    unit = wide / _bounded(v_norm)
    direction = average
    if slot.norm_threshold is not None:
        norm = total(average.double() * average.double()).sqrt().float()
        share = torch.full_like(norm, slot.norm_threshold) / norm
        # Not a minimum: a NaN stays one.
        direction = average * torch.where(share > 1.0, 1.0, share)
    parallel = total(direction.double() * unit) * unit
    update = (direction.double() - parallel).float()
    if slot.eta != 0.0:
        update = update + (slot.eta * parallel).float()
    v = v_pos + (slot.scale - 1.0) * update
    if slot.rescale is not None:
        norm = total(v.double() * v.double()).sqrt().float()
        v = slot.rescale * (v * (v_norm.float() / _bounded(norm))) + (1.0 - slot.rescale) * v
    return v, average


def _bounded(norm: Tensor) -> Tensor:
    return torch.where(norm < guidance.SMALLEST_NORM, guidance.SMALLEST_NORM, norm)


def _clean(slot: Corrected) -> Tensor:
    return solver.denoised(slot.x, slot.velocity, slot.t)


def _pix(slot: Corrected, scaler: Tensor) -> Tensor:
    return slot.stepped + scaler * (slot.stepped - _clean(slot))


def _haar(slot: Corrected) -> Tensor:
    frames = slot.stepped.shape[1]
    x, y = (functional.pad(each.double(), (0, 0, 0, frames % 2)) for each in (slot.stepped, _clean(slot)))
    (x0, x1), (y0, y1) = ((each[:, ::2], each[:, 1::2]) for each in (x, y))
    low = torch.zeros_like(x0) if slot.low is None else _gain(slot.low_factor, slot.low) * ((x0 + x1) - (y0 + y1))
    high = torch.zeros_like(x0) if slot.high is None else _gain(slot.high_factor, slot.high) * ((x0 - x1) - (y0 - y1))
    pairs = torch.stack([x0 + 0.5 * (low + high), x1 + 0.5 * (low - high)], dim=2)
    return pairs.flatten(1, 2)[:, :frames].float()


def _gain(factor: float, scaler: Tensor) -> Tensor:
    return (factor * scaler).double()
