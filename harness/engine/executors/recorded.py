"""One decoder run, recorded: static inputs and output, and what replays it.

On a GPU a run is recorded as a CUDA graph. A graph keeps the address of every tensor that it reads or writes, so its
inputs are copied into tensors that never move, and its velocity lies in one that the next replay overwrites.

`HostRecorder` is the model on a CPU: a replay calls the decoder on the same static tensors. It shows every mistake but
those of the recording itself: an input that was not copied, a velocity that was read too late, a shape that was not
prepared.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engine.executors.base import Batch
from harness.engine.executors.static_buffers import fill
from harness.engine.versions import version

_MODE = threading.RLock()
"""Held while torch's mode for waits is changed, which is one for the whole process."""

ENCODER = "encoder_hidden_states"
STEADY = (ENCODER, "encoder_mask", "context_latents")
"""Inputs that stay the same tensors while the ring holds the same requests."""


class Pool(Protocol):
    """The memory that some recordings share.

    Attributes:
        nbytes: bytes that are reserved for the pool on the device.
    """

    @property
    def nbytes(self) -> int:
        """See the class."""
        ...


class Recording(Protocol):
    """A recorded run."""

    def replay(self) -> None:
        """Launch the run on the current stream."""
        ...

    def reset(self) -> None:
        """Free what the recording holds; it cannot be replayed any more."""
        ...


class Recorder(Protocol):
    """Records runs for one device.

    Attributes:
        device: the device.
    """

    device: torch.device

    def pool(self) -> Pool:
        """Make an empty pool."""
        ...

    def refuse_waits(self) -> AbstractContextManager[None]:
        """A block in which work that makes the host wait for the device raises RuntimeError; it cannot be recorded."""
        ...

    def record(self, call: Callable[[], None], pool: Pool) -> Recording:
        """Record what `call` launches on the current stream. The recorded work has not run when this returns."""
        ...

    def release(self) -> None:
        """Give memory that no recording uses back to the device."""
        ...

    def lost(self) -> str | None:
        """Say why the device cannot be used any more in this process, or None where it can. The host waits for it."""
        ...


class _HostPool:
    nbytes = 0


class _Called:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def replay(self) -> None:
        if self._call is None:
            raise RuntimeError("the recording was freed")
        self._call()

    def reset(self) -> None:
        self._call = None


class HostRecorder:
    """The model of a recorder on a CPU; see the module."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def pool(self) -> Pool:
        """See `Recorder.pool`."""
        return _HostPool()

    def refuse_waits(self) -> AbstractContextManager[None]:
        """See `Recorder.refuse_waits`."""
        return nullcontext()

    def record(self, call: Callable[[], None], pool: Pool) -> Recording:  # noqa: ARG002 - a CPU has no pools
        """See `Recorder.record`."""
        return _Called(call)

    def release(self) -> None:
        """See `Recorder.release`."""

    def lost(self) -> str | None:
        """See `Recorder.lost`."""
        return None


class _CudaPool:
    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()

    @property
    def nbytes(self) -> int:
        segments: list[dict[str, Any]] = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        return sum(each["total_size"] for each in segments if tuple(each["segment_pool_id"]) == tuple(self.handle))


class CudaRecorder:
    """Records CUDA graphs.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pool(self) -> Pool:
        """See `Recorder.pool`."""
        return _CudaPool()

    @contextmanager
    def refuse_waits(self) -> Iterator[None]:
        """See `Recorder.refuse_waits`; for the GPU calls of every thread in this process, and one block at a time."""
        with _MODE:
            before = torch.cuda.get_sync_debug_mode()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the mode is a prototype
                torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)

    def record(self, call: Callable[[], None], pool: Pool) -> Recording:
        """Record a graph on the current stream, which must not be the default stream.

        Other threads may use the GPU meanwhile.
        """
        if not isinstance(pool, _CudaPool):
            raise TypeError("the pool is not of this recorder")
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        raised: list[BaseException] = []

        def noted() -> None:
            try:
                call()
            except BaseException as error:
                raised.append(error)
                raise

        with _uncollected():
            try:
                with torch.cuda.graph(graph, pool.handle, current, capture_error_mode="thread_local"):
                    noted()
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Where the call fails, the end of the recording often fails too, with a message that hides the first.
                first = (raised or [error])[0]
                if not raised or error is not first:
                    self._end(pool)
                raise first from None
        return graph

    def _end(self, pool: _CudaPool) -> None:
        """End what torch leaves open where the end of a recording fails: allocations would go on to the pool."""
        index = self.device.index
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(index, pool.handle)  # noqa: SLF001 torch has no public name for it
            torch._C._cuda_releasePool(index, pool.handle)  # noqa: SLF001 as above

    def release(self) -> None:
        """See `Recorder.release`."""
        # Any stream may still read a velocity that lay there.
        torch.cuda.synchronize(self.device)
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()

    def lost(self) -> str | None:
        """See `Recorder.lost`."""
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            # A recording of another thread may forbid to wait; that passes.
            return None if "captur" in words else words
        return None


class Recorded:
    """A recorded run of one shape and number of rows.

    A decoder that keeps conditions has one static tensor more: `given` holds the encoder states, and `inputs` what the
    decoder makes of them, once for each change.

    An input that stays is copied only where its source is another tensor than at the last copy, or was written to since
    then (by its version counter; `ConditioningCache` lists the writes that move none). The source is held meanwhile, so
    that no other tensor takes its identity. An inference tensor has no counter and is copied at every run.

    Args:
        given: the static tensors that batches are copied into.
        inputs: the static tensors that the decoder reads: those of `given`, or with other encoder states.
        output: see the attributes.
        recording: the recorded call.
        embedding: the recorded call that makes the encoder states of `inputs` from those of `given`; None where they
            are the same.

    Attributes:
        given: see the arguments.
        inputs: see the arguments.
        output: the velocity `[N, T, D]`, float32.
        copied: number of inputs that were copied.
        kept: number of inputs that were left as they were.
    """

    def __init__(
        self, given: Batch, inputs: Batch, output: Tensor, recording: Recording, embedding: Recording | None = None
    ) -> None:
        self.given = given
        self.inputs = inputs
        self.output = output
        self.copied = 0
        self.kept = 0
        self._recording = recording
        self._embedding = embedding
        self._held: dict[str, tuple[Tensor, int | None]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of inputs and output."""
        static = {id(each): each for batch in (self.given, self.inputs) for each in batch.tensors().values()}
        return sum(each.nbytes for each in (*static.values(), self.output))

    def run(self, batch: Batch) -> None:
        """Copy what changed, and replay, on the current stream."""
        given = batch.tensors()
        changed = [name for name in given if not self._is_kept(name, given[name])]
        for name in changed:
            # A copy that fails leaves an input that belongs to no source.
            self._held.pop(name, None)
        self._fill(changed, batch)
        for name in changed:
            if name in STEADY:
                self._held[name] = (given[name], version(given[name]))
        self.copied += len(changed)
        self.kept += len(given) - len(changed)
        self.replay()

    def refill(self, batch: Batch) -> None:
        """Copy every input, on the current stream; the next run copies every one of its own."""
        self._held.clear()
        self._fill(list(batch.tensors()), batch)

    def _fill(self, names: Sequence[str], batch: Batch) -> None:
        static = self.given.tensors()
        fill({name: static[name] for name in names}, batch)
        if self._embedding is not None and ENCODER in names:
            self._embedding.replay()

    def replay(self) -> None:
        """Launch the run on the inputs as they are, on the current stream."""
        self._recording.replay()

    def free(self) -> None:
        """Free the recording and let go of every tensor that it held."""
        self._held.clear()
        for each in (self._recording, self._embedding):
            with suppress(RuntimeError):  # of a GPU that is lost
                if each is not None:
                    each.reset()

    def _is_kept(self, name: str, source: Tensor) -> bool:
        held = self._held.get(name)
        return held is not None and held[0] is source and held[1] is not None and held[1] == version(source)


def device_of(decoder: object, named: torch.device | str | None) -> torch.device:
    """The device that is named, else the decoder's, else torch's current GPU; a GPU with its index."""
    device = torch.device(named or getattr(decoder, "device", None) or "cuda")
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage inside the block: a graph that is freed during a recording makes the recording invalid."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
