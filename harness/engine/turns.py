"""Turns: work that one thread does at a time, where no thread may begin it inside itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.weak import WeakIdKeyDictionary

from harness.engine import checks
from harness.engine.errors import InvalidInput, TickInside
from harness.engine.executors.base import Executor


class Turn:
    """A lock with a name.

    Args:
        what: what is done in turns, for the error message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the other threads, then keep them out of the block.

        Raises:
            TickInside: this thread is in such a block.
        """
        here = threading.get_ident()
        if self._owner == here and self._lock.locked():
            raise TickInside(f"a tick was asked for inside a tick of the same {self._what}, by the same thread")
        with self._lock:
            self._owner = here
            try:
                yield
            finally:
                self._owner = None


_TURNS = WeakIdKeyDictionary()
_MAKING = threading.Lock()


def turn_of(executor: Executor) -> Turn:
    """The turn of an executor, the same for every pipeline that has it.

    A velocity that an executor hands out may lie in a buffer that the next run overwrites. A tick therefore takes the
    executor's turn from its first run until it has launched everything that reads the velocity.

    Raises:
        InvalidInput: an executor of a class that allows no weak reference, such as one with `__slots__` alone.
    """
    with _MAKING:
        try:
            known: Turn | None = _TURNS.get(executor)  # type: ignore[no-untyped-call]
            if known is None:
                known = _TURNS[executor] = Turn("executor")
        except TypeError:
            expected = "an executor of a class that allows weak references"
            raise InvalidInput("executor", checks.describe(executor), expected) from None
        return known
