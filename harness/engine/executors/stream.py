"""A stream of an executor's own, beside torch's current one, and how the two are ordered.

An executor that runs on a stream of its own (a captured graph, a TensorRT engine) has three orders to keep, and none of
them may rest on the legacy default stream, which orders itself with some streams and not with others:

- inputs: its stream starts a run only after what the current stream has made for it, and after the current stream has
  read the buffers that the run overwrites (`launch`);
- outputs: nobody reads a velocity before the run that makes it is done (`join`, or `wait` as its plain twin);
- buffers: none is allocated or freed while a run may still be using its memory (`wait`, before either).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.executors.base import Batch, Executor


class ExecutorStream(Protocol):
    """Work that runs in the order it was launched, beside torch's current stream."""

    def launch(self, work: Callable[[], None]) -> None:
        """Queue `work` after everything launched so far, and after what the current stream holds at this moment."""
        ...

    def join(self) -> None:
        """Make the current stream wait for everything launched so far. The host goes on at once."""
        ...

    def wait(self) -> None:
        """Make the host wait for everything launched so far, and for what that waited for."""
        ...


@runtime_checkable
class Streamed(Protocol):
    """An executor that may have a stream of its own.

    What its `run` returns is not computed yet when `run` returns: `stream.join()` or `stream.wait()` comes first.

    Attributes:
        stream: its stream; None where it runs on torch's current one.
    """

    stream: ExecutorStream | None


class CudaStream:
    """A CUDA stream as an `ExecutorStream`.

    Args:
        device: the GPU, None for torch's current one.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        """See the class."""
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def launch(self, work: Callable[[], None]) -> None:
        """See `ExecutorStream.launch`."""
        self._own.wait_stream(torch.cuda.current_stream(self._own.device))
        with torch.cuda.stream(self._own):
            work()

    def join(self) -> None:
        """See `ExecutorStream.join`."""
        self._done.record(self._own)
        torch.cuda.current_stream(self._own.device).wait_event(self._done)

    def wait(self) -> None:
        """See `ExecutorStream.wait`."""
        self._own.synchronize()


def joiner(executor: Executor, *, joined: bool) -> Callable[[], None]:
    """What to call between an executor's `run` and the first use of what it returned.

    Args:
        executor: one without a stream of its own needs nothing.
        joined: the current stream waits, by an event. False is the plain twin: the host waits.
    """
    stream = executor.stream if isinstance(executor, Streamed) else None
    if stream is None:
        return _nothing
    return stream.join if joined else stream.wait


def run_to_end(executor: Executor, batch: Batch) -> Tensor:
    """`executor.run(batch)`, computed: it can be read at once, until the next run."""
    velocity = executor.run(batch)
    joiner(executor, joined=False)()
    return velocity


def _nothing() -> None:
    """There is one stream, and it is in order."""
