"""Differential correction in the wavelet domain (DCW, arXiv:2604.16044), as ACE-Step v0.1.7 applies it.

After a step from `t` to `s`, the bands of the stepped state `x'` are moved away from those of the clean estimate
`y = x - t*v`. The transform is a one-level 1-D DWT along T with zero padding, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from typing import cast

import ptwt
import pywt
import torch
from ptwt.constants import Wavelet, WaveletTensorTuple
from torch import Tensor
from torch.nn import functional

RECONSTRUCTION_BOUND = 1e-5
"""Largest allowed error of transform and inverse on signals of magnitude 1; a wavelet above this bound is refused."""


class DCWMode(StrEnum):
    """The corrected bands: the low band, the high band, both, or the state itself (`pix`)."""

    LOW = "low"
    HIGH = "high"
    DOUBLE = "double"
    PIX = "pix"


Gains = tuple[Callable[[int], Tensor] | None, Callable[[int], Tensor] | None]
"""Functions from the length n of the low and the high band to its gain, `[1, n, 1]` or `[1, 1, 1]`; None: unchanged."""


def dwt(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """Low and high band of `x` `[1, T, D]` along T, each `[1, (T + filter_length - 1)//2, D]`."""
    with _ieee_convolutions(x.device):
        low, high = ptwt.wavedec(x.transpose(1, 2), _filters(wavelet, x.device), mode="zero", level=1)
    return low.transpose(1, 2), high.transpose(1, 2)


def idwt(low: Tensor, high: Tensor, wavelet: str, frames: int) -> Tensor:
    """The inverse of `dwt`, trimmed back to `frames`."""
    with _ieee_convolutions(low.device):
        bands = [low.transpose(1, 2), high.transpose(1, 2)]
        restored: Tensor = ptwt.waverec(bands, _filters(wavelet, low.device))
    return restored.transpose(1, 2)[:, :frames].contiguous()


def resample(scaler: Tensor, length: int) -> Tensor:
    """Resample a scaler `[1, n, 1]` to `[1, length, 1]`, linearly with `align_corners=False`; `[1, 1, 1]` is kept."""
    if scaler.shape[1] in (1, length):
        return scaler
    resampled = functional.interpolate(scaler.transpose(1, 2), size=length, mode="linear", align_corners=False)
    return resampled.transpose(1, 2)


def correct(
    mode: DCWMode, stepped: Tensor, clean: Tensor, t: float, a: Tensor | None, b: Tensor | None, wavelet: str
) -> Tensor:
    """The corrected state.

    Args:
        mode: `low`: `xl += t*a*(xl-yl)`; `high`: `xh += (1-t)*a*(xh-yh)`; `double`: low with `t*a` and high with
            `(1-t)*b`; `pix`: `x' += a*(x'-y)`.
        stepped: the state after the step, `x'`, `[1, T, D]`.
        clean: `y = x - t*v`, `[1, T, D]`.
        t: the time before the step, in (0, 1].
        a: the first scaler, `[1, n, 1]` or `[1, 1, 1]`; None if neutral (0).
        b: the second scaler, for `double` only; shape and None as for `a`.
        wavelet: a discrete wavelet of PyWavelets.
    """
    if mode is DCWMode.PIX:
        return stepped if a is None else _apart(stepped, clean, resample(a, stepped.shape[1]))
    low_gain, high_gain = _GAINS[mode](t, a, b)
    if low_gain is None and high_gain is None:
        return stepped
    bands = zip(dwt(stepped, wavelet), dwt(clean, wavelet), (low_gain, high_gain), strict=True)
    low, high = (x if gain is None else _apart(x, y, gain(x.shape[1])) for x, y, gain in bands)
    return idwt(low, high, wavelet, stepped.shape[1])


def _apart(x: Tensor, y: Tensor, gain: Tensor) -> Tensor:
    return x + gain * (x - y)


def _gain(factor: float, scaler: Tensor | None) -> Callable[[int], Tensor] | None:
    return None if scaler is None else lambda length: factor * resample(scaler, length)


_GAINS: dict[DCWMode, Callable[[float, Tensor | None, Tensor | None], Gains]] = {
    DCWMode.LOW: lambda t, a, _b: (_gain(t, a), None),
    DCWMode.HIGH: lambda t, a, _b: (None, _gain(1.0 - t, a)),
    DCWMode.DOUBLE: lambda t, a, b: (_gain(t, a), _gain(1.0 - t, b)),
}


@lru_cache(maxsize=256)
def reconstruction_error(wavelet: str) -> float:
    """The largest error of transform and inverse, over fixed signals of magnitude 1 with even, odd and short lengths.

    Raises:
        ValueError: `wavelet` is no discrete wavelet of PyWavelets.
    """
    if wavelet not in pywt.wavelist(kind="discrete"):
        raise ValueError(f"{wavelet!r} is not among pywt.wavelist(kind='discrete')")
    worst = 0.0
    for frames in (7, 40, 41):
        frame = torch.arange(frames, dtype=torch.float32, device="cpu").reshape(1, -1, 1)
        signal = torch.cat([torch.sin(1.7 * frame), torch.cos(0.3 * frame * frame)], dim=-1)
        with torch.autocast("cpu", enabled=False):
            restored = idwt(*dwt(signal, wavelet), wavelet, frames)
        worst = max(worst, float((restored - signal).abs().max()))
    return worst


_FILTERS: dict[tuple[str, torch.device], Wavelet] = {}


def prepare(wavelet: str, device: torch.device, move: Callable[[Tensor, torch.device], Tensor]) -> None:
    """Put the wavelet's filter bank on `device`, once; a transform by name would copy it, and wait, at each call.

    Args:
        wavelet: a discrete wavelet of PyWavelets.
        device: the device.
        move: function that moves a CPU tensor to the device.
    """
    if (wavelet, device) not in _FILTERS:
        banks = [torch.tensor(each, dtype=torch.float32, device="cpu") for each in pywt.Wavelet(wavelet).filter_bank]
        _FILTERS[wavelet, device] = cast(Wavelet, WaveletTensorTuple(*(move(each, device) for each in banks)))


def _filters(wavelet: str, device: torch.device) -> Wavelet:
    prepare(wavelet, device, Tensor.to)
    return _FILTERS[wavelet, device]


@contextmanager
def _ieee_convolutions(device: torch.device) -> Iterator[None]:
    """Switch TF32 off for convolutions inside the block, and restore the caller's setting."""
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # set at run time, not in the stubs
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
