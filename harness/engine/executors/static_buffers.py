"""Static buffers: kept for the most recently used shapes, and filled with each batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

import torch
from torch import Tensor

from harness.engine.aot.signature import AXES
from harness.engine.executors.base import Batch

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The buffers of the most recently used shapes. Each change is one operation, so that no interrupt halves it.

    Args:
        most: the largest number of shapes.
        leaving: called with the buffers that are freed to make room.
    """

    def __init__(self, most: int, leaving: Callable[[V], object] = lambda _buffers: None) -> None:
        self._most = most
        self._leaving = leaving
        self._by_key: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        """Number of shapes."""
        return len(self._by_key)

    def __iter__(self) -> Iterator[K]:
        """The shapes, the least recently used one first."""
        return iter(self._by_key)

    def __contains__(self, key: K) -> bool:
        """Say whether a shape has buffers; this is no use of them."""
        return key in self._by_key

    def __getitem__(self, key: K) -> V:
        """Use the buffers of a shape.

        Raises:
            KeyError: it has none.
        """
        self._by_key.move_to_end(key)
        return self._by_key[key]

    def __setitem__(self, key: K, buffers: V) -> None:
        """Keep the buffers of a shape."""
        self._by_key[key] = buffers

    def get(self, key: K) -> V | None:
        """Use the buffers of a shape; None where it has none."""
        if key in self._by_key:
            self._by_key.move_to_end(key)
        return self._by_key.get(key)

    def values(self) -> ValuesView[V]:
        """All buffers; looking at them is no use of them."""
        return self._by_key.values()

    def make_room(self) -> None:
        """Free the least recently used buffers, so that there is room for one more shape.

        Call this before the new buffers are made: memory may not hold the old ones and the new ones at once.
        """
        while len(self) >= self._most:
            self._leaving(self._by_key.popitem(last=False)[1])

    def drop(self, key: K) -> None:
        """Free the buffers of a shape, if it has any."""
        self._by_key.pop(key, None)

    def clear(self) -> None:
        """Free all buffers."""
        self._by_key.clear()


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
