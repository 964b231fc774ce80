"""The CUDA stream of an executor, and its synchronization with torch's current stream.

An executor with an own stream (a captured graph, a TensorRT plan) must keep three orders. None of them may depend on
the legacy default stream, which synchronizes with some streams only:

- inputs: a run starts after the current stream has made the inputs, and after all streams have read the output of the
  last run (`launch`);
- outputs: a velocity is read after the run that computes it (`join`; the simple reference is `wait`);
- buffers: memory is allocated or freed only while no run uses the memory (`wait` before either).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.engine.executors.base import Batch, Executor
from harness.engine.transfer import current_stream


class CudaStream:
    """A CUDA stream as an `ExecutorStream`; for one host thread at a time.

    Args:
        device: the GPU; None is torch's current GPU.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # Streams that waited for a run: they may still read the output, which the next run overwrites.
        self._readers: list[torch.cuda.Stream] = []

    @property
    def handle(self) -> int:
        """The `cudaStream_t` as an integer."""
        return int(self._own.cuda_stream)

    def launch(self, work: Callable[[], None]) -> None:
        """Queue work on this stream; see `ExecutorStream.launch`."""
        for stream in (self._current(), *self._readers):
            self._own.wait_stream(stream)
        self._readers.clear()
        with torch.cuda.stream(self._own):
            work()

    def join(self) -> None:
        """Make the current stream wait, by an event; see `ExecutorStream.join`."""
        self._done.record(self._own)
        self._current().wait_event(self._done)
        self._readers.append(self._current())

    def wait(self) -> None:
        """Make the host wait; see `ExecutorStream.wait`."""
        self._own.synchronize()
        self._readers.append(self._current())

    def _current(self) -> torch.cuda.Stream:
        return current_stream(self._own.device)


def joiner(executor: Executor, *, joined: bool) -> Callable[[], None]:
    """The function to call between an executor's `run` and the first use of the velocity.

    Args:
        executor: for an executor without an own stream the function does nothing.
        joined: True: the current stream waits, by an event. False, the simple reference: the host waits.
    """
    if executor.stream is None:
        return _nothing
    return executor.stream.join if joined else executor.stream.wait


def run_to_end(executor: Executor, batch: Batch) -> Tensor:
    """Run a batch and wait for the velocity, which can be read at once, until the next run."""
    velocity = executor.run(batch)
    joiner(executor, joined=False)()
    return velocity


def _nothing() -> None:
    """Do nothing: there is only one stream."""
