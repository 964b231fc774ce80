"""Slots for the kernels and their plain twin, and what they should make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from harness.engine import guidance, solver, wavelet
from harness.engine.kernels import Corrected, Guided
from harness.engine.wavelet import DCWMode

SIZES = [(1, 8), (2, 4), (7, 8), (40, 8), (129, 64), (750, 64), (1500, 64), (301, 20)]
FORMS = ["plain", "curves", "free"]
Drawn = Callable[..., Tensor]


def drawing(device: torch.device | str, seed: int = 3) -> Drawn:
    """A function from a size to a random tensor on `device`."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return lambda *size: torch.randn(size, generator=generator).to(device)


def scalar(value: float, device: torch.device | str) -> Tensor:
    return torch.full((1, 1, 1), value, device=device)


def ramp(low: float, high: float, frames: int, device: torch.device | str) -> Tensor:
    if frames == 1:
        return scalar(high, device)
    return torch.linspace(low, high, frames, device=device)[None, :, None].contiguous()


def guided(drawn: Drawn, frames: int, channels: int, form: str) -> Guided:
    v_pos, v_neg, average = (drawn(1, frames, channels) for _ in range(3))
    on = v_pos.device
    made = Guided(v_pos, v_neg, average, scalar(3.0, on), scalar(-0.75, on), None, 2.5, 0.0)
    if form == "curves":
        return replace(
            made,
            scale=ramp(1.0, 4.0, frames, on),
            momentum=ramp(-0.5, 0.5, frames, on),
            rescale=ramp(0.1, 0.7, frames, on),
        )
    return replace(made, norm_threshold=None, eta=0.3, rescale=scalar(0.5, on)) if form == "free" else made


def corrected(drawn: Drawn, frames: int, channels: int, mode: DCWMode, *, curves: bool) -> tuple[Corrected, Tensor]:
    """A slot, and its correction in torch's form."""
    stepped, x, velocity = (drawn(1, frames, channels) for _ in range(3))
    on, half, t = stepped.device, -(-frames // 2), 0.7
    length = frames if mode is DCWMode.PIX else half
    a, b = (ramp(0.0, 0.3, length, on), ramp(0.2, 0.0, length, on)) if curves else (scalar(0.05, on), scalar(0.02, on))
    low = a if mode in (DCWMode.LOW, DCWMode.DOUBLE) else None
    high = {DCWMode.HIGH: a, DCWMode.DOUBLE: b}.get(mode)
    slot = Corrected(stepped, x, velocity, t, low, t, high, 1.0 - t, a if mode is DCWMode.PIX else None)
    plain = wavelet.correct(mode, stepped, solver.denoised(x, velocity, t), t, a, b, "haar")
    return slot, plain


def wide(slot: Any) -> Any:
    """The slot with every tensor in float64."""
    return replace(
        slot, **{f.name: v.double() for f in fields(slot) if isinstance(v := getattr(slot, f.name), torch.Tensor)}
    )


def by_torch(slot: Guided) -> tuple[Tensor, Tensor]:
    average = guidance.running_average(slot.v_pos - slot.v_neg, slot.average, slot.momentum)
    return _guide(slot, average), average


def _guide(slot: Guided, average: Tensor) -> Tensor:
    orthogonal, parallel = guidance.decompose(guidance.clip(average, slot.norm_threshold), slot.v_pos)
    update = orthogonal.to(average.dtype) + (slot.eta * parallel).to(average.dtype)
    v = slot.v_pos + (slot.scale - 1) * update
    return v if slot.rescale is None else guidance.rescale(v, slot.v_pos, slot.rescale)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def exact_haar(slot: Corrected) -> Tensor:
    """The correction in float64, written out for pairs of frames."""
    s = wide(slot)
    frames = s.stepped.shape[1]
    odd = torch.zeros_like(s.stepped[:, :1]) if frames % 2 else s.stepped[:, :0]
    x, y = (torch.cat([each, odd], 1) for each in (s.stepped, s.x - s.t * s.velocity))
    root = 0.5**0.5
    bands = []
    for scaler, factor, sign in ((s.low, s.low_factor, 1), (s.high, s.high_factor, -1)):
        of_x, of_y = (root * (each[:, ::2] + sign * each[:, 1::2]) for each in (x, y))
        bands.append(of_x if scaler is None else of_x + factor * scaler * (of_x - of_y))
    low, high = bands
    return torch.stack([root * (low + high), root * (low - high)], 2).flatten(1, 2)[:, :frames]
