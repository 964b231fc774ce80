"""Runs a decoder on static buffers, as CUDA graphs and TensorRT engines do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.errors import ExecutorError
from harness.engine.executors.base import Batch, ExecutorStream
from harness.engine.executors.eager import EagerExecutor

Shapes: TypeAlias = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]
"""Shape, dtype and device of every input; each such tuple has buffers of its own."""


@dataclass(frozen=True, eq=False)
class _Buffers:
    inputs: Batch
    output: Tensor


class StaticExecutor:
    """Calls a decoder on buffers that never move, and returns views of its output buffer.

    For each shape there is one buffer per input and one for the output. A run copies its inputs into them, poisons
    every output buffer with NaN, and writes the velocity. So whatever keeps a velocity past the next run without
    copying it holds NaN, or another run's velocity where shapes agree: on a CPU, the same trap as a captured graph.
    It is there to be compared with, and no faster than calling the decoder.

    Its bits are those of `EagerExecutor` with the same decoder and `pin_rows`, on contiguous inputs.

    Args:
        decoder: any callable with the decoder's signature; one with `takes_mask = False` is called without the mask.
            For each new shape it is called once more, to learn what its output looks like, and the host waits for it.
        max_rows: the most rows of one run.
        pin_rows: always run this many rows; see `EagerExecutor`.
        max_shapes: how many shapes keep their buffers; the one used longest ago goes first.
        stream: where runs go; None is torch's current stream, the only choice on a CPU.
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
        """See the class."""
        self._eager = EagerExecutor(decoder, max_rows, pin_rows)
        self._max_shapes = checks.integer("max_shapes", max_shapes, 1)
        self._buffers: OrderedDict[Shapes, _Buffers] = OrderedDict()
        self._running: Batch | None = None
        self.stream = stream
        self.max_rows = self._eager.max_rows
        self.takes_mask = self._eager.takes_mask

    @property
    def shapes(self) -> int:
        """How many shapes have buffers."""
        return len(self._buffers)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]`, a view of a buffer that the next run overwrites; see `Executor.run`.

        Raises:
            ExecutorError: the decoder's output has another shape or dtype than it had for this shape before.
        """
        prepared = self._eager.prepared(batch)
        buffers = self._buffers_for(prepared)
        # Kept until the next run: on a stream of its own this run reads it after the caller may have let go.
        self._running = prepared

        def work() -> None:
            for target, source in zip(buffers.inputs.tensors().values(), prepared.tensors().values(), strict=True):
                target.copy_(source)
            for each in self._buffers.values():
                each.output.fill_(torch.nan)
            velocity = self._eager.decode(buffers.inputs)
            if (velocity.shape, velocity.dtype) != (buffers.output.shape, buffers.output.dtype):
                expected = checks.describe(buffers.output)
                raise ExecutorError(f"the decoder returned a {checks.describe(velocity)}, expected a {expected}")
            buffers.output.copy_(velocity)

        self._launch(work)
        return buffers.output[: batch.rows]

    def close(self) -> None:
        """Refuse further runs and free the buffers, once no run uses them."""
        try:
            self._drain()
        finally:
            self._eager.close()
            self._buffers.clear()
            self._running = None

    def _buffers_for(self, prepared: Batch) -> _Buffers:
        key: Shapes = tuple((t.shape, t.dtype, t.device) for t in prepared.tensors().values())
        if key not in self._buffers:
            self._drain()
            while len(self._buffers) >= self._max_shapes:
                _, evicted = self._buffers.popitem(last=False)
                evicted.output.fill_(torch.nan)
            self._buffers[key] = self._allocated(prepared)
        self._buffers.move_to_end(key)
        return self._buffers[key]

    def _allocated(self, prepared: Batch) -> _Buffers:
        made: list[_Buffers] = []

        def work() -> None:
            # Outside inference mode: buffers that were made in it could be written to in it alone.
            with torch.inference_mode(False):
                inputs = Batch(
                    **{n: torch.empty(t.shape, dtype=t.dtype, device=t.device) for n, t in prepared.tensors().items()}
                )
                output = torch.full_like(self._eager.decode(prepared), torch.nan)
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
