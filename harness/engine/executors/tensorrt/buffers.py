"""The static buffers of a plan: aligned, in the plan's dtypes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine.executors.base import Batch
from harness.engine.executors.static_buffers import fill

ALIGNMENT = 256
"""Alignment, in bytes, that TensorRT requires of the address of every tensor."""

Key: TypeAlias = tuple[int, int, int]
"""Rows, frames (padding included) and tokens."""


@dataclass(frozen=True, eq=False)
class Buffers:
    """The buffers of one shape. Their addresses never change.

    Attributes:
        inputs: the input buffers by name.
        output: the buffer of the velocity `[rows, frames, D]`.
    """

    inputs: Mapping[str, Tensor]
    output: Tensor

    def fill(self, batch: Batch) -> None:
        """Copy a batch into the input buffers; see `static_buffers.fill`."""
        fill(self.inputs, batch)


def aligned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A new, uninitialised, contiguous tensor at an address that is a multiple of `ALIGNMENT`.

    The function does not rely on torch's allocators: the CUDA allocator aligns more strictly, the CPU allocator less.
    """
    size = math.prod(shape) * dtype.itemsize
    # Outside inference mode, because tensors made inside it cannot be written to outside of it.
    with torch.inference_mode(False):
        raw = torch.empty(size + ALIGNMENT, dtype=torch.uint8, device=device)
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + size].view(dtype).view(shape)
