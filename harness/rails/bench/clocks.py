"""Clocks for work of a CPU and of a GPU."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    """Takes the time between marks."""

    def mark(self) -> None:
        """Take the time now."""
        ...

    def between(self) -> list[float]:
        """Milliseconds from each mark to the next; waits for the device."""
        ...


class HostClock:
    """Marks by the host's clock: a CPU has done its work when a call returns."""

    def __init__(self) -> None:
        """A clock without marks."""
        self._marks: list[float] = []

    def mark(self) -> None:
        """See `Clock.mark`."""
        self._marks.append(time.perf_counter())

    def between(self) -> list[float]:
        """See `Clock.between`."""
        return [1e3 * (b - a) for a, b in zip(self._marks, self._marks[1:], strict=False)]


class EventClock:
    """Marks by events on the current CUDA stream: what the device took, whatever the host did meanwhile."""

    def __init__(self) -> None:
        """A clock without marks."""
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """See `Clock.mark`."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append(event)

    def between(self) -> list[float]:
        """See `Clock.between`."""
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(self._marks, self._marks[1:], strict=False)]
