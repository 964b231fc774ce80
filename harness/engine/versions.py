"""The version of a tensor: a number that every write to it increases."""

from __future__ import annotations

from torch import Tensor


def version(tensor: Tensor) -> int | None:
    """The version counter of a tensor; None for an inference tensor, which has none."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001 torch has no public counter
