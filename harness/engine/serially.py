"""Copies on the CPU that the calling thread makes alone.

torch splits a copy of 32768 elements or more among its threads, and the caller waits for the slowest of them. Where
other work runs on the same cores, that takes milliseconds: more than the rest of a tick's host time.
"""

from __future__ import annotations

import torch
from torch import Tensor

GRAIN = 32768
"""Number of elements from which torch splits the work on a tensor among its threads."""


def dense(tensor: Tensor) -> Tensor:
    """A contiguous copy of a CPU tensor that is not contiguous, in pieces of fewer than `GRAIN` elements."""
    if tensor.numel() < GRAIN:
        return tensor.contiguous()
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    copy(made, tensor)
    return made


def copy(to: Tensor, source: Tensor) -> None:
    """Copy `source` to `to`, both of the same shape on the CPU, in pieces of fewer than `GRAIN` elements."""
    if source.numel() < GRAIN:
        to.copy_(source)
        return
    dim = max(range(source.dim()), key=source.shape.__getitem__)
    most = max(1, source.shape[dim] * (GRAIN - 1) // source.numel())
    for part, piece in zip(torch.split(to, most, dim), torch.split(source, most, dim), strict=True):
        copy(part, piece)
