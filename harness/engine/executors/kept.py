"""The static buffers of the most recently used shapes, for executors that keep one set per shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, ValuesView
from typing import TypeVar

from cachetools import Cache, LRUCache

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
