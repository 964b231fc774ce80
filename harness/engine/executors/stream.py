"""A stream of an executor's own, beside torch's current one, and how the two are ordered.

An executor that runs on a stream of its own (a captured graph, a TensorRT engine) has three orders to keep, and none of
them may rest on the legacy default stream, which orders itself with some streams and not with others:

- inputs: its stream starts a run only after what the current stream has made for it, and after every stream that read
  the last run's output is done with it (`launch`);
- outputs: nobody reads a velocity before the run that makes it is done (`join`, or `wait` as its plain twin);
- buffers: none is allocated or freed while a run may still be using its memory (`wait`, before either).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.engine.executors.base import Batch, Executor


class CudaStream:
    """A CUDA stream as an `ExecutorStream`; for one host thread.

    Args:
        device: the GPU, None for torch's current one.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        """See the class."""
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # Streams that were told of a run's end: they may be reading its output, which the next run overwrites.
        self._readers: list[torch.cuda.Stream] = []

    @property
    def handle(self) -> int:
        """The raw stream, as CUDA's own interfaces take it."""
        return int(self._own.cuda_stream)

    def launch(self, work: Callable[[], None]) -> None:
        """See `ExecutorStream.launch`."""
        for stream in (self._current(), *self._readers):
            self._own.wait_stream(stream)
        self._readers.clear()
        with torch.cuda.stream(self._own):
            work()

    def join(self) -> None:
        """See `ExecutorStream.join`."""
        self._done.record(self._own)
        self._current().wait_event(self._done)
        self._readers.append(self._current())

    def wait(self) -> None:
        """See `ExecutorStream.wait`."""
        self._own.synchronize()
        self._readers.append(self._current())

    def _current(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self._own.device)


def joiner(executor: Executor, *, joined: bool) -> Callable[[], None]:
    """What to call between an executor's `run` and the first use of what it returned.

    Args:
        executor: one without a stream of its own needs nothing.
        joined: the current stream waits, by an event. False is the plain twin: the host waits.
    """
    if executor.stream is None:
        return _nothing
    return executor.stream.join if joined else executor.stream.wait


def run_to_end(executor: Executor, batch: Batch) -> Tensor:
    """`executor.run(batch)`, computed: it can be read at once, until the next run."""
    velocity = executor.run(batch)
    joiner(executor, joined=False)()
    return velocity


def _nothing() -> None:
    """There is one stream, and it is in order."""
