"""Curves: scalars or per-frame values in one normal form, with the facts that the host needs read once."""

from __future__ import annotations

import ctypes
import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.engine import checks, once
from harness.engine.errors import InvalidInput
from harness.engine.transfer import read, to_device


@dataclass(frozen=True, eq=False)
class Curve:
    """A scalar or per-frame curve.

    Attributes:
        values: float32 `[1, 1, 1]` (a scalar) or `[1, T, 1]`; a copy of the caller's value, never written to.
        uniform: the value of every frame if all frames have the same value, else None. Read from the tensor once, when
            the curve is made, so that a tick can check for a neutral curve without a device read.
        smallest: smallest value, read once too, so that a range can be checked again without a device read.
        largest: largest value.
    """

    values: Tensor
    uniform: float | None
    smallest: float
    largest: float

    @property
    def frames(self) -> int | None:
        """Number of frames T, or None for a scalar, which fits every length."""
        return None if self.values.shape[1] == 1 else self.values.shape[1]

    def is_everywhere(self, value: float) -> bool:
        """Say whether every frame has `value`, without reading the tensor."""
        return self.uniform == value

    def to(self, device: torch.device) -> Curve:
        """Return the curve on `device`; the same object if the curve is on `device` already.

        Scalars of the same bits share one tensor on each device, so that a number that comes again is not copied again.
        """
        if self.values.device == device:
            return self
        if self.uniform is not None and self.values.numel() == 1:
            return replace(self, values=_scalar(struct.pack("<f", self.uniform), device))
        return replace(self, values=to_device(self.values, device))


@lru_cache(maxsize=4096)
def _scalar(bits: bytes, device: torch.device) -> Tensor:
    """A float32 `[1, 1, 1]` on a device, by its bits: 0 and -0 are two scalars."""
    # Outside inference mode, because the tensor serves outside of it as well.
    with torch.inference_mode(False):
        return to_device(
            torch.tensor(struct.unpack("<f", bits), dtype=torch.float32, device="cpu").view(1, 1, 1), device
        )


CurveLike: TypeAlias = "float | Tensor | Curve"


def ask_host(curve: Curve, value: float) -> bool:
    """Say whether `curve` has `value` at every frame, by the fact recorded when the curve was made.

    The reference is `ask_tensor`.
    """
    return curve.is_everywhere(value)


def ask_tensor(curve: Curve, value: float) -> bool:
    """Say whether `curve` has `value` at every frame by reading the tensor, which waits for a GPU."""
    return bool((curve.values.double() == value).all())


def curve(
    field: str,
    value: Any,
    *,
    frames: int | None = None,
    low: float | None = None,
    high: float | None = None,
    device: torch.device | None = None,
) -> Curve:
    """Convert `value` to a `Curve`.

    Args:
        field: name of the argument, for error messages.
        value: a number, or a real tensor of shape `[]`, `[T]`, `[1, T]` or `[1, T, 1]`, or a `Curve`.
        frames: number of frames T that a per-frame curve must have; None allows every length.
        low: smallest value allowed after rounding to float32, or None.
        high: largest value allowed after rounding to float32, or None.
        device: device of the curve, or None. A number and a tensor on the CPU are put there; a tensor on another
            device is refused.

    Raises:
        InvalidInput: another type, rank, length or device, a value that is not finite or out of range.
    """
    made = value if isinstance(value, Curve) else _normal_form(field, value)
    if frames is not None and made.frames not in (None, frames):
        raise InvalidInput(field, f"a curve of {made.frames} frames", f"a scalar or {frames} frames")
    if low is not None and made.smallest < low:
        raise InvalidInput(field, f"a value of {made.smallest}", f"values >= {low}")
    if high is not None and made.largest > high:
        raise InvalidInput(field, f"a value of {made.largest}", f"values <= {high}")
    if device is not None:
        if isinstance(value, Tensor) and value.ndim > 0:
            checks.movable(field, value, device)
        made = made.to(device)
    return made


def _normal_form(field: str, value: Any) -> Curve:
    expected = "a number or a real tensor of shape [T], [1, T] or [1, T, 1]"
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise InvalidInput(field, checks.describe(value), expected)
    if not isinstance(value, Tensor):
        return _of_number(field, checks.number(field, value))
    if value.is_complex() or value.numel() < 1 or not _is_per_frame(value):
        raise InvalidInput(field, checks.describe(value), expected)
    return _of_tensor(field, value, (1, -1, 1), _SEEN)


def per_channel(field: str, value: Tensor) -> Curve:
    """Copy factors `[1, T, D]` to a `Curve` whose values keep that shape.

    Raises:
        InvalidInput: a value that is not finite in float32.
    """
    return _of_tensor(field, value, tuple(value.shape), _SEEN_PER_CHANNEL)


_SEEN: once.Remembered[Curve] = once.Remembered()
"""Curves of tensors on a GPU: each tensor is read once, which makes the host wait, and again after a write."""

_SEEN_PER_CHANNEL: once.Remembered[Curve] = once.Remembered()
"""The same for `per_channel`."""


def _of_tensor(field: str, value: Tensor, shape: tuple[int, ...], seen: once.Remembered[Curve]) -> Curve:
    return seen.of_later(value, lambda: _copied(field, value, shape))


def _copied(field: str, value: Tensor, shape: tuple[int, ...]) -> Curve:
    values = value.detach().to(torch.float32, copy=True).reshape(shape)
    if value.device.type not in once.READ_LATER:
        checks.finite(field, values)
    made = of_values(values)
    if not math.isfinite(made.smallest) or not math.isfinite(made.largest):
        checks.finite(field, values)
    return made


def of_values(values: Tensor) -> Curve:
    """Make a curve of finite float32 values `[1, T, D]` that nobody writes to; reads the facts that the host needs."""
    first, smallest, largest = read(torch.stack([values.flatten()[0], *values.aminmax()]), "a curve")
    return Curve(values=values, uniform=first if smallest == largest else None, smallest=smallest, largest=largest)


def _of_number(field: str, value: float) -> Curve:
    """Make the curve of a number; `uniform` is known without reading the tensor."""
    values = torch.tensor(value, dtype=torch.float32, device="cpu").reshape(1, 1, 1)
    rounded = ctypes.c_float(value).value
    if not math.isfinite(rounded):
        checks.finite(field, values)
    return Curve(values=values, uniform=rounded, smallest=rounded, largest=rounded)


def _is_per_frame(given: Tensor) -> bool:
    shape = tuple(given.shape)
    return len(shape) <= 1 or (len(shape) == 2 and shape[0] == 1) or (len(shape) == 3 and shape[0] == shape[2] == 1)
