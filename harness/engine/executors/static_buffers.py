"""Static buffers: kept for the most recently used shapes, and filled with each batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, ValuesView
from typing import TypeVar

import torch
from cachetools import Cache, LRUCache
from torch import Tensor

from harness.engine.aot.signature import AXES
from harness.engine.executors.base import Batch

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(LRUCache[K, V]):
    """The buffers of the most recently used shapes.

    Args:
        most: the largest number of shapes.
        leaving: called with the buffers that are freed to make room.
    """

    def __init__(self, most: int, leaving: Callable[[V], object] = lambda _buffers: None) -> None:
        super().__init__(most)
        self._leaving = leaving

    def make_room(self) -> None:
        """Free the least recently used buffers, so that there is room for one more shape.

        Call this before the new buffers are made: memory may not hold the old ones and the new ones at once.
        """
        while len(self) >= self.maxsize:
            # Not in `popitem`, which some versions of cachetools call in `clear` too.
            self._leaving(self.popitem()[1])

    def values(self) -> ValuesView[V]:
        """All buffers. Looking at them is not a use, as it would be in an `LRUCache`."""
        return {key: Cache.__getitem__(self, key) for key in self}.values()


def fill(inputs: Mapping[str, Tensor], batch: Batch) -> None:
    """Copy a batch into input buffers, cast to their dtypes.

    Missing rows repeat the batch's first row, missing frames are zero.

    Args:
        inputs: the buffers by name, for some or all tensors of a batch.
        batch: a batch with at most the rows and frames of the buffers, and exactly their tokens.
    """
    given = batch.tensors()
    with torch.no_grad():
        for name, target in inputs.items():
            _fill(target, given[name], framed="frames" in AXES[name])


def _fill(target: Tensor, source: Tensor, *, framed: bool) -> None:
    rows = source.shape[0]
    if framed:
        frames = source.shape[1]
        # At every run, because an earlier run may have had more frames.
        target[:, frames:].zero_()
        target = target[:, :frames]
    target[:rows].copy_(source)
    target[rows:].copy_(source[:1].expand_as(target[rows:]))
