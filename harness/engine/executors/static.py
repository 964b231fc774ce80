"""The executor that runs an eager decoder on static buffers, as CUDA graphs and TensorRT plans do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.errors import WrongVelocity
from harness.engine.executors.base import Batch, ExecutorStream, velocity_of
from harness.engine.executors.eager import EagerExecutor
from harness.engine.executors.memory import relieved
from harness.engine.executors.static_buffers import Kept

Shapes: TypeAlias = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]
"""Shape, dtype and device of every input: the key of a set of buffers."""


@dataclass(frozen=True, eq=False)
class _Buffers:
    inputs: Batch
    output: Tensor


class StaticExecutor:
    """Calls a decoder on static buffers, and returns views of its output buffer.

    Each shape has one buffer per input and one for the output. A run copies the inputs into the buffers, fills every
    output buffer of every shape with NaN, and writes the velocity. A caller that keeps a velocity past the next run
    without a copy therefore sees NaN, or the velocity of another run of the same shape. So a test on a CPU finds a
    missing copy, which would also be a defect with a captured CUDA graph. The executor exists for such tests and is not
    faster than `EagerExecutor`.

    Where memory is out, every buffer is freed and the run is tried once more. A velocity of another shape or dtype than
    the first one frees the buffers of its shape, so that the next run learns them anew.

    The reference is `EagerExecutor` with the same decoder and `pin_rows`: on contiguous inputs both give the same bits.

    Args:
        decoder: any callable with the signature of `Decoder`; a decoder with `takes_mask = False` is called without the
            mask. Each new shape costs one more call, which finds the shape and dtype of the output, and the host waits
            for that call.
        max_rows: the largest number of rows of one run.
        pin_rows: run exactly this number of rows every time; see `EagerExecutor`.
        max_shapes: the number of shapes that keep their buffers; the least recently used shape is freed first.
        stream: the stream for runs; None is torch's current stream, the only choice on a CPU.

    Raises:
        InvalidInput: a number is below 1.
    """

    def __init__(
        self,
        decoder: Decoder,
        max_rows: int = 8,
        pin_rows: int | None = None,
        *,
        max_shapes: int = 8,
        stream: ExecutorStream | None = None,
    ) -> None:
        self._eager = EagerExecutor(decoder, max_rows, pin_rows)
        self._buffers: Kept[Shapes, _Buffers] = Kept(checks.integer("max_shapes", max_shapes, 1), _poison)
        self._running: Batch | None = None
        self.stream = stream
        self.max_rows = self._eager.max_rows
        self.takes_mask = self._eager.takes_mask
        self.declares = self._eager.declares

    @property
    def shapes(self) -> int:
        """The number of shapes that have buffers."""
        return len(self._buffers)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]`, a view of a buffer that the next run overwrites; see `Executor.run`.

        Raises:
            PipelineClosed: the executor is closed.
            BatchTooLarge: the batch has more than `max_rows` rows.
            WrongVelocity: the decoder's output is no velocity, or has another dtype than at the first call with this
                shape.
        """
        prepared = self._eager.prepared(batch)
        return relieved(lambda: self._run(prepared), self._free)[: batch.rows]

    def close(self) -> None:
        """Wait for the last run, then refuse further runs and free the buffers. A second call does nothing."""
        try:
            self._drain()
        finally:
            self._eager.close()
            self._buffers.clear()
            self._running = None

    def _run(self, prepared: Batch) -> Tensor:
        buffers = self._buffers_for(prepared)
        # Keep the batch until the next run: a run on another stream may read it after the caller has dropped it.
        self._running = prepared

        def work() -> None:
            with torch.no_grad():
                for target, source in zip(buffers.inputs.tensors().values(), prepared.tensors().values(), strict=True):
                    target.copy_(source)
            for each in self._buffers.values():
                _poison(each)
            velocity = self._eager.decode(buffers.inputs)
            try:
                made = velocity_of(velocity, buffers.output.shape, buffers.output.dtype, "decoder")
            except WrongVelocity:
                self._buffers.drop(_shapes(prepared))
                raise
            buffers.output.copy_(made)

        self._launch(work)
        return buffers.output

    def _free(self) -> None:
        """Free every buffer, behind the runs that use it."""
        self._drain()
        self._running = None
        self._buffers.clear()

    def _buffers_for(self, prepared: Batch) -> _Buffers:
        key = _shapes(prepared)
        if key not in self._buffers:
            self._drain()
            self._buffers.make_room()
            self._buffers[key] = self._allocated(prepared)
        return self._buffers[key]

    def _allocated(self, prepared: Batch) -> _Buffers:
        made: list[_Buffers] = []

        def work() -> None:
            # Outside inference mode, because tensors made inside it cannot be written to outside of it.
            with torch.inference_mode(False):
                inputs = Batch(
                    **{n: torch.empty(t.shape, dtype=t.dtype, device=t.device) for n, t in prepared.tensors().items()}
                )
                shape, dtype = prepared.hidden_states.shape, self.declares.dtype
                output = torch.full_like(velocity_of(self._eager.decode(prepared), shape, dtype, "decoder"), torch.nan)
            made.append(_Buffers(inputs, output))

        self._launch(work)
        self._drain()
        return made[0]

    def _launch(self, work: Callable[[], None]) -> None:
        if self.stream is None:
            work()
        else:
            self.stream.launch(work)

    def _drain(self) -> None:
        if self.stream is not None:
            self.stream.wait()


def _shapes(batch: Batch) -> Shapes:
    return tuple((t.shape, t.dtype, t.device) for t in batch.tensors().values())


def _poison(buffers: _Buffers) -> None:
    buffers.output.fill_(torch.nan)
