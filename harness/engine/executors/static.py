"""Runs a decoder on static buffers, as CUDA graphs and TensorRT engines do."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.executors.base import Batch
from harness.engine.executors.eager import EagerExecutor
from harness.engine.executors.stream import ExecutorStream

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

    Its bits are those of `EagerExecutor` with the same decoder and `pin_rows`.

    Args:
        decoder: any callable with the decoder's signature; one with `takes_mask = False` is called without the mask.
            It is called once more for each new shape, to learn what its output looks like.
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
        self.stream = stream
        self.max_rows = self._eager.max_rows
        self.takes_mask = self._eager.takes_mask

    @property
    def shapes(self) -> int:
        """How many shapes have buffers."""
        return len(self._buffers)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]`, a view of a buffer that the next run overwrites; see `Executor.run`.

        With a stream of its own it is not computed yet: see `Streamed`.
        """
        self._eager.check(batch)
        buffers = self._buffers_for(batch)
        self._launch(batch, buffers)
        return buffers.output[:]

    def close(self) -> None:
        """Refuse further runs and free the buffers, once no run uses them."""
        self._drain()
        self._eager.close()
        self._buffers.clear()

    def _buffers_for(self, batch: Batch) -> _Buffers:
        key: Shapes = tuple((t.shape, t.dtype, t.device) for t in batch.tensors().values())
        if key not in self._buffers:
            self._drain()
            while len(self._buffers) >= self._max_shapes:
                self._buffers.popitem(last=False)
            self._buffers[key] = self._allocated(batch)
        self._buffers.move_to_end(key)
        return self._buffers[key]

    def _allocated(self, batch: Batch) -> _Buffers:
        inputs = Batch(**{name: torch.empty_like(t) for name, t in batch.tensors().items()})
        return _Buffers(inputs, torch.empty_like(self._eager.run(batch)))

    def _launch(self, batch: Batch, buffers: _Buffers) -> None:
        def work() -> None:
            for target, source in zip(buffers.inputs.tensors().values(), batch.tensors().values(), strict=True):
                target.copy_(source)
            for each in self._buffers.values():
                each.output.fill_(torch.nan)
            buffers.output.copy_(self._eager.run(buffers.inputs))

        if self.stream is None:
            work()
        else:
            self.stream.launch(work)

    def _drain(self) -> None:
        if self.stream is not None:
            self.stream.wait()
