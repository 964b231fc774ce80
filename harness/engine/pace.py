"""The order of a ring's ticks on a device: which work comes after which, and how far the host may run ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engine import transfer


class Pace(Protocol):
    """Orders the ticks of one ring.

    Attributes:
        waits: how often the host has waited for the device because it was too many ticks ahead.
    """

    waits: int

    def mark(self, held: Iterable[Tensor]) -> None:
        """Note that work on the current stream made something that the next tick reads: a request, a control.

        Args:
            held: tensors whose memory is kept until the current stream is done with them.
        """
        ...

    def wait(self) -> None:
        """Make the host wait if it is too many ticks ahead."""
        ...

    def begin(self, held: Callable[[], Iterable[Tensor]]) -> None:
        """Let the current stream wait for the last tick and for what was marked.

        Args:
            held: function that gives every tensor that the tick may read; called where the stream has changed.
        """
        ...

    def end(self) -> None:
        """Note that the tick is launched and committed."""
        ...


class HostPace:
    """The pace of a ring on the CPU, where every operator has ended when it returns."""

    def __init__(self) -> None:
        self.waits = 0

    def mark(self, held: Iterable[Tensor]) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Do nothing."""

    def begin(self, held: Callable[[], Iterable[Tensor]]) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class CudaPace:
    """The pace of a ring on a GPU.

    Successive ticks, and a submission and the tick after it, may run under different current streams: an event orders
    them, and the memory of what the tick reads is kept until the new stream is done with it.

    Args:
        device: the GPU.
        ahead: number of ticks that may be launched and not finished, at least 1.
    """

    def __init__(self, device: torch.device, ahead: int) -> None:
        self.waits = 0
        self._device = device
        self._ahead = ahead
        self._ends: deque[tuple[Any, torch.cuda.Stream]] = deque()
        # What the next tick waits for, or the running one has waited for; forgotten at its end.
        self._marks: dict[torch.cuda.Stream, Any] = {}
        # What was marked since the running tick has begun.
        self._fresh: dict[torch.cuda.Stream, Any] = {}
        self._marking = threading.Lock()

    def mark(self, held: Iterable[Tensor]) -> None:
        """See `Pace.mark`. A later mark on the same stream covers an earlier one."""
        stream = self._current()
        for tensor in held:
            if tensor.is_cuda:
                tensor.record_stream(stream)
        with self._marking:
            event = self._fresh.get(stream) or torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
            self._fresh[stream] = event

    def wait(self) -> None:
        """See `Pace.wait`."""
        if len(self._ends) == self._ahead and not self._ends[0][0].query():
            self.waits += 1
            self._ends[0][0].synchronize()

    def begin(self, held: Callable[[], Iterable[Tensor]]) -> None:
        """See `Pace.begin`. A tick that failed is begun again: nothing is forgotten before `end`."""
        current = self._current()
        transfer.catch_up(self._device)
        with self._marking:
            self._marks |= self._fresh
            self._fresh = {}
        before = [event for stream, event in self._marks.items() if stream != current]
        before += [event for event, stream in list(self._ends)[-1:] if stream != current]
        for event in before:
            current.wait_event(event)
        if before:
            for tensor in held():
                tensor.record_stream(current)

    def end(self) -> None:
        """See `Pace.end`."""
        event = self._ends.popleft()[0] if len(self._ends) == self._ahead else torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._current())
        self._ends.append((event, self._current()))
        self._marks.clear()

    def _current(self) -> torch.cuda.Stream:
        return transfer.current_stream(self._device)


def pace(device: torch.device, ahead: int) -> Pace:
    """The pace of a ring on `device`; see `CudaPace`."""
    return CudaPace(device, ahead) if device.type == "cuda" else HostPace()
