"""Results on their way to a caller: nothing is lost where a call is interrupted while it hands them out.

A pipeline binds a parcel together with the change that made its content, and the call empties the parcel as the last
thing that it does. Whatever raises before that leaves the parcel full, and a later call hands its content out.

One gap is left, outside of the engine: between the end of a call and the line of the caller that keeps what the call
returned. CPython raises no `KeyboardInterrupt` there where the caller assigns the result as it is, `made =
pipeline.tick()`; a function that is called with the result, or a trace function, may be interrupted first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from harness.engine.results import Outcomes

R = TypeVar("R")


class Parcel:
    """What one call hands out.

    Attributes:
        content: what may not be lost; None once it was handed out.
        thread: the thread of the call; None where the call has failed.
    """

    def __init__(self) -> None:
        self.content: Outcomes | None = None
        self.thread: threading.Thread | None = threading.current_thread()

    @property
    def is_left(self) -> bool:
        """Say whether there is content that no call is handing out any more."""
        if self.content is None:
            return False
        thread = self.thread
        # A call inside another one of the same thread cannot be the one that hands this out.
        return thread is None or thread is threading.current_thread() or not thread.is_alive()


def handed_out(work: Callable[[Parcel], R]) -> R:
    """Call `work` with a new parcel, and return what it returns; the parcel is then empty.

    Args:
        work: puts into the parcel what may not be lost, in the same step in which it is taken from elsewhere.

    Raises:
        BaseException: any exception of `work`, or an interrupt. The parcel keeps its content.
    """
    parcel = Parcel()
    content: Outcomes | None = None
    try:
        made = work(parcel)
        content, parcel.content = parcel.content, None
        return made
    except BaseException:
        if content is not None:
            parcel.content = content
        parcel.thread = None
        raise
