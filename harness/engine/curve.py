"""A per-frame multiplier in its normal form, with what the host needs to know about it decided once."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Curve:
    """A scalar or per-frame curve.

    Attributes:
        values: float32 `[1, 1, 1]` (a scalar) or `[1, T, 1]`; a copy of what the caller gave, never written to.
        uniform: the one value that every frame has, else None. Read from the tensor once, here, so that a tick
            can ask whether the curve is neutral without reading the device.
    """

    values: Tensor
    uniform: float | None

    @property
    def frames(self) -> int | None:
        """The number of frames T, or None where one value holds for every length."""
        return None if self.values.shape[1] == 1 else self.values.shape[1]

    def is_everywhere(self, value: float) -> bool:
        """Whether every frame has `value`: a host fact."""
        return self.uniform == value

    def to(self, device: torch.device) -> Curve:
        """The same curve on `device`; itself where it is there already."""
        if self.values.device == device:
            return self
        return replace(self, values=self.values.to(device))


CurveLike: TypeAlias = "float | Tensor | Curve"


def ask_host(curve: Curve, value: float) -> bool:
    """Whether `curve` has `value` at every frame, from the fact recorded when it was made."""
    return curve.is_everywhere(value)


def ask_tensor(curve: Curve, value: float) -> bool:
    """The plain twin of `ask_host`: reads the tensor, and on a GPU waits for it."""
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
    """Bring `value` into the normal form.

    Args:
        field: the caller's name for it, for error messages.
        value: a number, or a real tensor of shape `[]`, `[T]`, `[1, T]` or `[1, T, 1]`, or a `Curve`.
        frames: T, where it is known; a per-frame curve of another length is refused.
        low: smallest value allowed, if any.
        high: largest value allowed, if any.
        device: where the curve is needed; a number goes there, a tensor must already be there.

    Raises:
        InvalidInput: another type, rank, length or device, a value that is not finite or out of range.
    """
    made = value if isinstance(value, Curve) else _normal_form(field, value)
    if frames is not None and made.frames not in (None, frames):
        raise InvalidInput(field, f"a curve of {made.frames} frames", f"a scalar or {frames} frames")
    if low is not None and bool((made.values < low).any()):
        raise InvalidInput(field, f"a value of {made.values.min().item()}", f"values >= {low}")
    if high is not None and bool((made.values > high).any()):
        raise InvalidInput(field, f"a value of {made.values.max().item()}", f"values <= {high}")
    if device is not None:
        if isinstance(value, Tensor) and value.ndim > 0:
            checks.same_device(field, value, device)
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
    values = value.detach().to(torch.float32, copy=True).reshape(1, -1, 1)
    checks.finite(field, values)
    first = values[0, 0, 0].item()
    return Curve(values=values, uniform=first if bool((values == first).all()) else None)


def _of_number(field: str, value: float) -> Curve:
    """The curve of a number: what the host needs to know of it is known without reading the tensor."""
    values = torch.tensor(value, dtype=torch.float32).reshape(1, 1, 1)
    rounded = ctypes.c_float(value).value
    if not math.isfinite(rounded):
        checks.finite(field, values)
    return Curve(values=values, uniform=rounded)


def _is_per_frame(given: Tensor) -> bool:
    shape = tuple(given.shape)
    return len(shape) <= 1 or (len(shape) == 2 and shape[0] == 1) or (len(shape) == 3 and shape[0] == shape[2] == 1)
