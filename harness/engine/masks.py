"""Masks of attended tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.engine import checks, once
from harness.engine.errors import InvalidInput
from harness.engine.transfer import read

_MASKS: once.Remembered[Tensor] = once.Remembered()
"""Copies of masks on a GPU: each mask is read once, which makes the host wait, and again after a write."""


def token_mask(field: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Copy a mask of 0 and 1 (bool, integer or float) to a bool tensor.

    A mask on a GPU that was given before is not read again; the copy that was made then is returned.

    Raises:
        InvalidInput: another shape, a value that is neither 0 nor 1, or no 1.
    """
    expected = f"a mask of 0 and 1 of shape {list(shape)}"
    if not isinstance(value, Tensor) or tuple(value.shape) != shape or value.is_complex():
        raise InvalidInput(field, checks.describe(value), expected)
    return _MASKS.of_later(value, lambda: _token_mask(field, value, expected))


def _token_mask(field: str, value: Tensor, expected: str) -> Tensor:
    mask = value.detach() != 0
    is_binary, attends = read(torch.stack([(value == mask).all(), mask.any()]), "a mask")
    if not is_binary:
        raise InvalidInput(field, "values other than 0 and 1", expected)
    if not attends:
        raise InvalidInput(field, "a mask of zeros", "at least one attended token")
    return mask
