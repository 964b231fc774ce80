"""Turns: work that one thread does at a time, where no thread may begin it inside itself."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from torch.utils.weak import WeakIdKeyDictionary

from harness.engine import checks
from harness.engine.errors import InvalidInput, TickInside
from harness.engine.executors.base import Executor

R = TypeVar("R")


class Turn:
    """A lock with a name, which an exception at any line leaves free.

    Args:
        what: what is done in turns, for the error message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        # Reentrant, so that nothing a thread leaves behind can lock out that thread; `_is_inside` refuses nesting.
        self._lock = threading.RLock()
        self._inside: FrameType | None = None

    def take(self, work: Callable[[], R]) -> R:
        """Wait for the other threads, call `work` and return what it returns; they are kept out until then.

        Raises:
            TickInside: this thread is in such a call.
        """
        if self._is_inside():
            raise TickInside(f"a tick was asked for inside a tick of the same {self._what}, by the same thread")
        # The lock itself, because an exception in the code of a context manager that wraps it may leave it locked.
        with self._lock:
            self._inside = inspect.currentframe()
            try:
                return work()
            finally:
                self._inside = None

    def _is_inside(self) -> bool:
        """Say whether this thread is in the call that has the turn."""
        inside = self._inside
        if inside is None:
            return False
        # The variable ends on another frame than its own: that would be a cycle, which only a collection frees.
        frame = inspect.currentframe()
        while frame is not None and frame is not inside:
            frame = frame.f_back
        return frame is not None


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
