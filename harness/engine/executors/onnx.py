"""The executor of exported files: ONNX Runtime on the CPU, with static buffers as a TensorRT plan has on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.aot.onnx_file import signature
from harness.engine.aot.runtime import DTYPES, refusals, session
from harness.engine.aot.signature import VELOCITY
from harness.engine.errors import ExecutorError, PipelineClosed
from harness.engine.executors.base import Batch, ExecutorStream
from harness.engine.executors.memory import relieved
from harness.engine.executors.static_buffers import Kept, fill


class OnnxExecutor:
    """Runs an exported file on static buffers, and returns views of its output buffer.

    Each shape (rows, frames, tokens) has one buffer per tensor, in the file's dtype. A run copies the inputs into the
    buffers, fills every output buffer of every shape with NaN, and lets ONNX Runtime write the velocity. A caller that
    keeps a velocity past the next run without a copy therefore sees NaN, or the velocity of another run.

    T is padded with zero frames to a multiple of the patch size, and the velocity is cut to T, as in the decoder.

    Args:
        path: the exported file. The batch must be dynamic; T and L may be static.
        max_rows: the largest number of rows of one run. The file itself has no limit.
        pin_rows: run exactly this number of rows every time; see `EagerExecutor`.
        threads: the number of threads that one operator may use. With one thread, the bits of a row did not depend on
            the number of rows in any measurement.
        max_shapes: the number of shapes that keep their buffers; the least recently used shape is freed first.

    Attributes:
        max_rows: see `Executor`.
        takes_mask: see `Executor`.
        stream: None: a run is complete when `run` returns.
        pin_rows: the argument.
        signature: the inputs and the output of the file.

    Raises:
        PackageMissing: ONNX Runtime is not installed.
        InvalidInput: there is no such file, or a number is below 1.
        ExportRefused: the file is no exported decoder: it is truncated, has other tensors or a frozen batch, or has a
            dtype without CPU kernels in ONNX Runtime, such as bfloat16.
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
        checks.integer("max_rows", max_rows, 1)
        if pin_rows is not None:
            max_rows = min(max_rows, checks.integer("pin_rows", pin_rows, 1))
        self.max_rows = max_rows
        self.pin_rows = pin_rows
        self._session = session(Path(path), checks.integer("threads", threads, 1))
        self._refusals = refusals()
        tensors = {each.name: each for each in (*self._session.get_inputs(), *self._session.get_outputs())}
        known = {name: DTYPES.get(each.type, (each.type,))[0] for name, each in tensors.items()}
        self.signature = signature(Path(path), {name: (known[name], each.shape) for name, each in tensors.items()})
        self.takes_mask = self.signature.takes_mask
        self.stream: ExecutorStream | None = None
        self._numpy = {name: DTYPES[tensor.type][1] for name, tensor in tensors.items()}
        self._binding: Any = self._session.io_binding()
        most = checks.integer("max_shapes", max_shapes, 1)
        self._buffers: Kept[tuple[int, int, int], dict[str, Tensor]] = Kept(most, _poison)

    @property
    def shapes(self) -> int:
        """The number of shapes that have buffers."""
        return len(self._buffers)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` in the file's dtype, a view of a buffer that the next run overwrites.

        Raises:
            PipelineClosed: the executor is closed.
            BatchTooLarge: the batch has more than `max_rows` rows.
            OutsideProfile: the file does not take these frames, tokens or widths; nothing is allocated.
            ExecutorError: ONNX Runtime refused the run.
        """
        if self._session is None:
            raise PipelineClosed("the executor is closed")
        self.signature.check(batch, self.max_rows)
        return relieved(lambda: self._run(batch), self._buffers.clear)

    def _run(self, batch: Batch) -> Tensor:
        buffers = self._buffers_for(batch)
        with torch.no_grad():
            fill({name: buffer for name, buffer in buffers.items() if name != VELOCITY}, batch)
            for each in self._buffers.values():
                _poison(each)
        try:
            self._bind(buffers)
            self._session.run_with_iobinding(self._binding)
        except self._refusals as error:
            raise ExecutorError(f"ONNX Runtime refused a run of {batch.rows} rows: {error}") from error
        return buffers[VELOCITY][: batch.rows, : batch.hidden_states.shape[1]]

    def close(self) -> None:
        """Refuse further runs; free session and buffers. A second call does nothing."""
        self._binding = None
        self._session = None
        self._buffers.clear()

    def _bind(self, buffers: Mapping[str, Tensor]) -> None:
        """Bind every buffer by address and shape; the output's shape must be exactly the one that the run produces."""
        for name, buffer in buffers.items():
            bind = self._binding.bind_output if name == VELOCITY else self._binding.bind_input
            bind(name, "cpu", 0, self._numpy[name], list(buffer.shape), buffer.data_ptr())

    def _buffers_for(self, batch: Batch) -> dict[str, Tensor]:
        rows = self.pin_rows or batch.rows
        frames, tokens = batch.hidden_states.shape[1], batch.encoder_hidden_states.shape[1]
        key = (rows, self.signature.padded_frames(frames), tokens)
        if key not in self._buffers:
            self._buffers.make_room()
            self._buffers[key] = self._allocated(*key)
        return self._buffers[key]

    def _allocated(self, rows: int, frames: int, tokens: int) -> dict[str, Tensor]:
        shapes = self.signature.shapes(rows, frames, tokens)
        # Outside inference mode, because tensors made inside it cannot be written to outside of it.
        with torch.inference_mode(False):
            return {
                name: torch.empty(shapes[name], dtype=dtype, device="cpu")
                for name, dtype in self.signature.dtypes.items()
            }


def _poison(buffers: Mapping[str, Tensor]) -> None:
    buffers[VELOCITY].fill_(torch.nan)
