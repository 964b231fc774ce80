"""Runs an exported ONNX file on the CPU by ONNX Runtime, on static buffers: an ahead-of-time engine without a GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.aot.onnx_file import signature
from harness.engine.aot.runtime import refusals, session
from harness.engine.aot.signature import AXES, VELOCITY
from harness.engine.errors import ExecutorError, PipelineClosed
from harness.engine.executors.base import Batch, ExecutorStream

_DTYPES: Mapping[str, tuple[torch.dtype, type[np.generic]]] = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(float16)": (torch.float16, np.float16),
    "tensor(double)": (torch.float64, np.float64),
    "tensor(bool)": (torch.bool, np.bool_),
}
"""What ONNX Runtime's CPU provider computes in, by its own words; it has no bfloat16."""


class OnnxExecutor:
    """Runs an exported decoder on buffers that never move, and returns views of its output buffer.

    For each number of rows, frames and tokens there is one buffer per tensor, in the dtype that the file gives it. A
    run copies its inputs into them, poisons every output buffer with NaN and has ONNX Runtime write the velocity into
    its own. So whatever keeps a velocity past the next run without copying it holds NaN, or another run's velocity.

    What the file takes is read from it, see `signature`. T is padded with zero frames to a multiple of the patch size
    and the velocity cut again, which is what the decoder itself does.

    Args:
        path: the file, whose batch is dynamic. Its T or L may be fixed: another one is refused then.
        max_rows: the most rows of one run; the file has no ceiling of its own.
        pin_rows: always run this many rows; see `EagerExecutor`.
        threads: that one operator may use. With one, a row's bits are seen not to depend on how many rows run.
        max_shapes: how many shapes keep their buffers; the one used longest ago goes first.

    Raises:
        PackageMissing: ONNX Runtime is not installed.
        InvalidInput: there is no such file, or a number below 1.
        ExportRefused: the file is no exported decoder: not a whole ONNX file, other tensors, a frozen batch, or a
            dtype that ONNX Runtime does not have on a CPU, such as bfloat16.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_rows: int = 8,
        pin_rows: int | None = None,
        threads: int = 1,
        max_shapes: int = 8,
    ) -> None:
        """See the class."""
        checks.integer("max_rows", max_rows, 1)
        if pin_rows is not None:
            max_rows = min(max_rows, checks.integer("pin_rows", pin_rows, 1))
        self.max_rows = max_rows
        self.pin_rows = pin_rows
        self._max_shapes = checks.integer("max_shapes", max_shapes, 1)
        self._session = session(Path(path), checks.integer("threads", threads, 1))
        self._refusals = refusals()
        tensors = {each.name: each for each in (*self._session.get_inputs(), *self._session.get_outputs())}
        known = {name: _DTYPES.get(each.type, (each.type,))[0] for name, each in tensors.items()}
        self.signature = signature(Path(path), {name: (known[name], each.shape) for name, each in tensors.items()})
        self.takes_mask = self.signature.takes_mask
        self.stream: ExecutorStream | None = None
        self._numpy = {name: _DTYPES[tensor.type][1] for name, tensor in tensors.items()}
        self._binding: Any = self._session.io_binding()
        self._buffers: OrderedDict[tuple[int, int, int], dict[str, Tensor]] = OrderedDict()

    @property
    def shapes(self) -> int:
        """How many shapes have buffers."""
        return len(self._buffers)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` in the file's dtype, a view of a buffer that the next run overwrites.

        Raises:
            PipelineClosed: after `close`.
            BatchTooLarge: more than `max_rows` rows.
            OutsideProfile: frames, tokens or widths that the file was not exported for; nothing is allocated then.
            ExecutorError: ONNX Runtime refused the run.
        """
        if self._session is None:
            raise PipelineClosed("the executor is closed")
        self.signature.check(batch, self.max_rows)
        buffers = self._buffers_for(batch)
        with torch.no_grad():
            _fill(buffers, batch)
            for each in self._buffers.values():
                each[VELOCITY].fill_(torch.nan)
        try:
            self._bind(buffers)
            self._session.run_with_iobinding(self._binding)
        except self._refusals as error:
            raise ExecutorError(f"ONNX Runtime refused a run of {batch.rows} rows: {error}") from error
        return buffers[VELOCITY][: batch.rows, : batch.hidden_states.shape[1]]

    def close(self) -> None:
        """Refuse further runs and free session and buffers. Calling it twice is fine."""
        self._binding = None
        self._session = None
        self._buffers.clear()

    def _bind(self, buffers: Mapping[str, Tensor]) -> None:
        """Bind every buffer by its address and exact shape, which must be the one that the run produces."""
        for name, buffer in buffers.items():
            bind = self._binding.bind_output if name == VELOCITY else self._binding.bind_input
            bind(name, "cpu", 0, self._numpy[name], list(buffer.shape), buffer.data_ptr())

    def _buffers_for(self, batch: Batch) -> dict[str, Tensor]:
        rows = self.pin_rows or batch.rows
        frames, tokens = batch.hidden_states.shape[1], batch.encoder_hidden_states.shape[1]
        key = (rows, self.signature.padded_frames(frames), tokens)
        if key not in self._buffers:
            while len(self._buffers) >= self._max_shapes:
                _, evicted = self._buffers.popitem(last=False)
                evicted[VELOCITY].fill_(torch.nan)
            self._buffers[key] = self._allocated(*key)
        self._buffers.move_to_end(key)
        return self._buffers[key]

    def _allocated(self, rows: int, frames: int, tokens: int) -> dict[str, Tensor]:
        shapes = self.signature.shapes(rows, frames, tokens)
        # Outside inference mode: buffers that were made in it could be written to in it alone.
        with torch.inference_mode(False):
            return {name: torch.empty(shapes[name], dtype=dtype) for name, dtype in self.signature.dtypes.items()}


def _fill(buffers: Mapping[str, Tensor], batch: Batch) -> None:
    """Copy a batch into its buffers: rows beyond it repeat its first one, frames beyond it are zero."""
    for name, source in batch.tensors().items():
        if name not in buffers:
            continue
        target = buffers[name]
        if "frames" in AXES[name]:
            target[:, source.shape[1] :].zero_()
            target = target[:, : source.shape[1]]
        target[: batch.rows].copy_(source)
        target[batch.rows :].copy_(target[:1].expand_as(target[batch.rows :]))
