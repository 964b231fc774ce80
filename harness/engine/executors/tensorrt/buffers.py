"""The static buffers that an engine reads and writes: aligned, of the engine's dtypes, kept for the last shapes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine.aot.signature import AXES
from harness.engine.executors.base import Batch

ALIGNMENT = 256
"""Bytes: what TensorRT wants the address of every tensor to be a multiple of."""

Key: TypeAlias = tuple[int, int, int]
"""Rows, frames as the engine takes them, and tokens."""


@dataclass(frozen=True, eq=False)
class Buffers:
    """One shape's buffers. They never move.

    Attributes:
        inputs: by name.
        output: the velocity `[rows, frames, D]`.
    """

    inputs: Mapping[str, Tensor]
    output: Tensor

    def fill(self, batch: Batch) -> None:
        """Write a batch into the inputs, cast to their dtypes.

        Rows that are missing repeat the first one; frames that are missing are zero.

        Args:
            batch: of at most as many rows and frames, and of as many tokens.
        """
        given = batch.tensors()
        with torch.no_grad():
            for name, target in self.inputs.items():
                _fill(target, given[name], framed="frames" in AXES[name])


class KeptBuffers:
    """The buffers of the shapes used last.

    Args:
        most: how many shapes are kept.
    """

    def __init__(self, most: int) -> None:
        """See the class."""
        self._most = most
        self._kept: OrderedDict[Key, Buffers] = OrderedDict()

    def __len__(self) -> int:
        """How many shapes have buffers."""
        return len(self._kept)

    def get(self, key: Key) -> Buffers | None:
        """A shape's buffers, which are now the ones used last; None where it has none."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def make_room(self) -> None:
        """Free the buffers used longest ago, so that one more shape fits."""
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)

    def add(self, key: Key, buffers: Buffers) -> None:
        """Keep a shape's buffers."""
        self._kept[key] = buffers

    def clear(self) -> None:
        """Free all."""
        self._kept.clear()


def aligned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A new contiguous tensor, not initialised, at an address that is a multiple of `ALIGNMENT`.

    torch's CUDA allocator aligns to more than that, and its CPU allocator to less: neither is relied on.
    """
    size = math.prod(shape) * dtype.itemsize
    # Outside inference mode: buffers that were made in it could be written to in it alone.
    with torch.inference_mode(False):
        raw = torch.empty(size + ALIGNMENT, dtype=torch.uint8, device=device)
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + size].view(dtype).view(shape)


def _fill(target: Tensor, source: Tensor, *, framed: bool) -> None:
    rows = source.shape[0]
    if framed:
        frames = source.shape[1]
        # At every run: the run before may have had a frame there.
        target[:, frames:].zero_()
        target = target[:, :frames]
    target[:rows].copy_(source)
    target[rows:].copy_(source[:1].expand_as(target[rows:]))
