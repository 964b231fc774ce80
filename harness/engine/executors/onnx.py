"""Runs an exported ONNX file on the CPU by ONNX Runtime, on static buffers: an ahead-of-time engine without a GPU."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.aot.closeness import NOT_BITWISE
from harness.engine.aot.signature import AXES, INPUTS, MASK, VELOCITY, Signature, Span
from harness.engine.errors import ExecutorError, ExportRefused, InvalidInput, PackageMissing, PipelineClosed
from harness.engine.executors.base import Batch, ExecutorStream

Dim: TypeAlias = "int | str | None"
"""A size, a dynamic dimension's name, or None where the file gives it no name."""

_DTYPES: Mapping[str, tuple[torch.dtype, type[np.generic]]] = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(float16)": (torch.float16, np.float16),
    "tensor(double)": (torch.float64, np.float64),
    "tensor(bool)": (torch.bool, np.bool_),
}
"""What ONNX Runtime's CPU provider computes in, by its own words; it has no bfloat16."""

_SYMBOL = re.compile(r"(?:(\d+)\*)?[A-Za-z_]\w*")
_REFUSALS = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel",
             "NoSuchFile", "NotImplemented", "RuntimeException")  # fmt: skip


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
        runtime = _runtime()
        self._refusals: tuple[type[Exception], ...] = (RuntimeError, *refusals())
        self._session = _session(runtime, Path(path), checks.integer("threads", threads, 1))
        tensors = {each.name: each for each in (*self._session.get_inputs(), *self._session.get_outputs())}
        self.signature = signature(Path(path), {n: (t.type, tuple(t.shape)) for n, t in tensors.items()})
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


def signature(path: Path, tensors: Mapping[str, tuple[str, Sequence[Dim]]]) -> Signature:
    """What an exported file takes and gives.

    Args:
        path: the file, for messages.
        tensors: ONNX Runtime's type (`tensor(float)`) and dimensions of every input and output, by name.

    Raises:
        ExportRefused: other names, ranks or dtypes than an exported decoder's, a frozen batch, dimensions that
            contradict each other, or a dynamic one whose name is neither a symbol nor a multiple of one (`2*half`).
    """
    missing, strange = [*INPUTS[:-1], VELOCITY], [name for name in tensors if name not in AXES]
    missing = [name for name in missing if name not in tensors]
    if missing or strange:
        raise ExportRefused(f"{path}: no exported decoder: it lacks {missing} and has {strange}")
    axes: dict[str, Dim] = {}
    for name, (_, dims) in tensors.items():
        if len(dims) != len(AXES[name]):
            raise ExportRefused(f"{path}: {name} has the dimensions {list(dims)}, expected {list(AXES[name])}")
        for axis, dim in zip(AXES[name], dims, strict=True):
            if axes.setdefault(axis, dim) != dim:
                raise ExportRefused(f"{path}: {axis} of {name} is {dim}, elsewhere it is {axes[axis]}")
    rows, frames, tokens = (_dynamic(path, axis, axes[axis]) for axis in ("rows", "frames", "tokens"))
    if rows != (Span(1), 1):
        raise ExportRefused(f"{path}: its batch is frozen to {axes['rows']}, expected a dynamic dimension")
    if tokens[1] != 1:
        raise ExportRefused(f"{path}: its tokens are {axes['tokens']}, expected a size or a symbol")
    return Signature(
        dtypes={name: _dtype(path, name, kind) for name, (kind, _) in tensors.items()},
        rows=rows[0],
        frames=frames[0],
        tokens=tokens[0],
        channels=_fixed(path, "channels", axes),
        context_channels=_fixed(path, "context_channels", axes),
        encoder_dim=_fixed(path, "encoder_dim", axes),
        frames_multiple=frames[1],
    )


def refusals() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions, which have no base class of their own."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(getattr(state, name) for name in _REFUSALS)


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


def _runtime() -> Any:
    if find_spec("onnxruntime") is None:
        raise PackageMissing("onnxruntime", "onnx")
    return import_module("onnxruntime")


def _session(runtime: Any, path: Path, threads: int) -> Any:
    if not path.is_file():
        raise InvalidInput("path", str(path), "an existing ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what it would print is in the exception as well
    try:
        return runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(NOT_BITWISE)
        )
    except refusals() as error:
        raise ExportRefused(f"{path}: ONNX Runtime cannot run it on a CPU: {error}") from error


def _dynamic(path: Path, axis: str, dim: Dim) -> tuple[Span, int]:
    """The sizes of a dimension that may be dynamic, and what they are multiples of."""
    if isinstance(dim, int):
        return Span(dim, dim), 1
    found = _SYMBOL.fullmatch(dim or "")
    if found is None:
        raise ExportRefused(f"{path}: the dynamic dimension of {axis} is {dim!r}, expected a symbol or a multiple")
    multiple = int(found[1] or 1)
    return Span(multiple), multiple


def _fixed(path: Path, axis: str, axes: Mapping[str, Dim]) -> int:
    size = axes[axis]
    if not isinstance(size, int):
        raise ExportRefused(f"{path}: {axis} is dynamic ({size}), expected a size")
    return size


def _dtype(path: Path, name: str, kind: str) -> torch.dtype:
    dtype, _ = _DTYPES.get(kind, (None, None))
    if dtype is None or (dtype is torch.bool) != (name == MASK):
        raise ExportRefused(f"{path}: {name} is a {kind}, which ONNX Runtime on a CPU is not given here")
    return dtype
