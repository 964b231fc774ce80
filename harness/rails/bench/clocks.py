"""Clocks that time work on a CPU or on a GPU."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    """The interface of a clock, which measures the time between marks."""

    def mark(self) -> None:
        """Set a mark at the current time."""
        ...

    def between(self) -> list[float]:
        """Milliseconds from each mark to the next. The call waits for the device."""
        ...


class HostClock:
    """A clock for work on a CPU: marks are times of the host's performance counter."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        """Read the host's clock; see `Clock.mark`."""
        self._marks.append(time.perf_counter())

    def between(self) -> list[float]:
        """Milliseconds between marks; see `Clock.between`."""
        return [1e3 * (b - a) for a, b in zip(self._marks, self._marks[1:], strict=False)]


class EventClock:
    """A clock for work on a GPU: marks are events on the current CUDA stream, which measure the time of the device."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Record an event on the current stream; see `Clock.mark`."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append(event)

    def between(self) -> list[float]:
        """Wait for the device; return milliseconds between marks; see `Clock.between`."""
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(self._marks, self._marks[1:], strict=False)]
