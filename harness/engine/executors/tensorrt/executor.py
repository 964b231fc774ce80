"""The executor of TensorRT plans, of both flavours, with static buffers and an own CUDA stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.aot import here
from harness.engine.aot.bindings import Binding
from harness.engine.aot.sidecar import Sidecar, read_plan
from harness.engine.aot.signature import VELOCITY, Signature, Span
from harness.engine.errors import EngineError, ExecutorError, InvalidInput, PipelineClosed
from harness.engine.executors.base import Batch
from harness.engine.executors.memory import relieved
from harness.engine.executors.static_buffers import Kept
from harness.engine.executors.tensorrt.buffers import Buffers, Key
from harness.engine.executors.tensorrt.context import Context, Profiled
from harness.engine.executors.tensorrt.engine import RowLimits, row_limits, signature
from harness.engine.executors.tensorrt.profiling import Listener, Listening
from harness.engine.executors.tensorrt.runtime import CudaRuntime, RawStream, Runtime


@dataclass(eq=False)
class _Loaded:
    """A loaded plan.

    Attributes:
        engine: an `ICudaEngine`; None after `release`.
        context: the execution context of `engine`; None after `release`.
        found: the TensorRT that loaded the plan.
        sidecar: the plan's metadata.
        signature: the plan's inputs and output.
        rows: the number of rows of batches and runs.
    """

    engine: Any
    context: Context | None
    found: Binding
    sidecar: Sidecar
    signature: Signature
    rows: RowLimits

    def release(self) -> None:
        """Free the context, and then the engine, which must outlive its context."""
        self.context = None
        self.engine = None


class TensorRTExecutor:
    """Runs a plan on static buffers, and returns views of its output buffer.

    Each shape (rows, frames, tokens) has one buffer per tensor, in the plan's dtype. A run copies the inputs into the
    buffers, adds zero frames where T is no multiple of the patch size, and launches the plan on the executor's own
    stream. With pinned rows, missing rows repeat the batch's first row.

    After a failed run the next run sets all shapes and addresses again.

    Args:
        plan: the path of the plan, with its metadata beside it. A plan is code: load only plans that you trust.
        max_rows: the largest number of rows of one run; None is the plan's limit, the smallest maximum of all inputs. A
            larger number has no effect.
        pin_rows: run exactly this number of rows every time; see `EagerExecutor`. A plan with one fixed number of rows
            always runs this number.
        max_shapes: the number of shapes that keep their buffers; the least recently used shape is freed first.
        device: a CUDA device.
        runtime: the machine that loads and runs plans; None is `CudaRuntime(device)`.

    Attributes:
        max_rows: see `Executor`.
        takes_mask: see `Executor`; True if the plan has an input for the encoder mask.
        stream: the executor's own stream.
        sidecar: the plan's metadata.
        signature: the plan's inputs and output.

    Raises:
        SidecarMissing: the plan has no metadata.
        PlanCorrupt: the plan is truncated or altered, or differs from its metadata.
        PackageMissing: TensorRT or Polygraphy is not installed.
        PlanMismatch: the plan was built for another flavour, version, compute capability, GPU or driver.
        EngineError: TensorRT cannot load the plan here, or the plan is no decoder.
        InvalidInput: a number of rows is outside the plan's range, or `max_shapes` is below 1.
        ExecutorError: the runtime gave CUDA's default stream.
    """

    stream: RawStream
    _loaded: _Loaded | None

    def __init__(
        self,
        plan: Path | str,
        *,
        max_rows: int | None = None,
        pin_rows: int | None = None,
        max_shapes: int = 8,
        device: torch.device | str = "cuda",
        runtime: Runtime | None = None,
    ) -> None:
        self._kept: Kept[Key, Buffers] = Kept(checks.integer("max_shapes", max_shapes, 1))
        self._runtime = CudaRuntime(device) if runtime is None else runtime
        self._asked = (max_rows, pin_rows)
        self._running: Batch | None = None
        self._listening: Listening | None = None
        loaded = self._load(plan)
        self.stream = self._runtime.stream()
        if self.stream.handle == 0:
            raise ExecutorError("stream 0 is CUDA's default stream, on which TensorRT makes the host wait at every run")
        self._adopt(loaded)

    @property
    def shapes(self) -> int:
        """The number of shapes that have buffers."""
        return len(self._kept)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` in the plan's dtype, a view of a buffer that the next run overwrites.

        Call `stream.join()` or `stream.wait()` before reading the velocity; see `Executor.run`.

        Raises:
            PipelineClosed: the executor is closed.
            BatchTooLarge: the batch has more than `max_rows` rows.
            OutsideProfile: rows, frames, tokens or a width is outside the plan's range.
            ExecutorError: TensorRT refuses a call, or the batch is on another device.
        """
        loaded = self._open()
        self._check(batch, loaded)
        rows = loaded.rows.pinned or batch.rows
        frames, tokens = batch.hidden_states.shape[1], batch.encoder_hidden_states.shape[1]
        buffers = self._buffers_for(rows, frames, tokens, loaded)
        # Keep the batch until the next run: the own stream may read it after the caller has dropped it.
        self._running = batch

        def work() -> None:
            context = _context(loaded)
            context.bind(buffers)
            buffers.fill(batch)
            context.execute(self.stream.handle)

        self.stream.launch(work)
        if self._listening is not None:
            self._report(self._listening, loaded)
        return buffers.output[: batch.rows, :frames]

    def swap(self, plan: Path | str) -> None:
        """Replace the plan, from the next run on. For a moment both plans are in memory.

        Pipelines read the executor's limits once, when they are made. So the new plan must take all numbers of rows of
        the old plan, the same widths, and a mask exactly if the old plan does. Frames and tokens may have other ranges:
        `run` refuses a batch outside them.

        Args:
            plan: the path of the new plan.

        Raises:
            PipelineClosed: the executor is closed.
            ExecutorError: the executor is being profiled.
            InvalidInput: the new plan does not take all rows of the old plan, or differs in widths or mask.
            Exception: any error of the constructor for a plan. After every error the old plan stays in use.
        """
        old = self._open()
        if self._listening is not None:
            raise ExecutorError("the executor is being profiled: swap the plan afterwards")
        new = self._load(plan)
        _check_swap(old, new)
        self._settle()
        self._kept.clear()
        self._running = None
        self._adopt(new)
        old.release()

    @contextmanager
    def profiling(self, listener: Listener) -> Iterator[None]:
        """Report the time of every layer to `listener`, for every run inside the block. Each run waits for its end.

        Args:
            listener: called with name and milliseconds of each layer. `run` raises the first error of the listener.

        Raises:
            PipelineClosed: the executor is closed.
            EngineError: the plan was built without layer names.
            ExecutorError: the executor is being profiled already, or TensorRT refuses a call.
        """
        loaded = self._open()
        if self._listening is not None:
            raise ExecutorError("the executor is being profiled already")
        if loaded.sidecar.verbosity == "none":
            raise EngineError("the plan has no layer names: it was built with verbosity none, build it with detailed")
        listening = Listening(loaded.found.module, listener)
        self.stream.wait()
        before = _context(loaded).profiled(Profiled(listening.profiler, emits=False))
        self._listening = listening
        try:
            yield
        finally:
            self._listening = None
            try:
                self.stream.wait()
            finally:
                if loaded.context is not None:
                    loaded.context.profiled(before)

    def close(self) -> None:
        """Wait for the last run, refuse further runs, and free buffers, context and plan, in this order.

        A second call does nothing.
        """
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        try:
            self._settle()
        finally:
            self._running = None
            self._kept.clear()
            loaded.release()

    def _load(self, plan: Path | str) -> _Loaded:
        data, recorded = read_plan(Path(plan))
        found = self._runtime.binding(recorded.flavour)
        here.check(recorded, self._runtime.here(found))
        engine = self._runtime.engine(data, found)
        takes = signature(engine, recorded)
        rows = row_limits(takes.rows, *self._asked)
        return _Loaded(engine, Context(self._runtime.context(engine, found)), found, recorded, takes, rows)

    def _adopt(self, loaded: _Loaded) -> None:
        self._loaded = loaded
        self.sidecar = loaded.sidecar
        self.signature = loaded.signature
        self.max_rows = loaded.rows.most
        self.takes_mask = loaded.signature.takes_mask

    def _open(self) -> _Loaded:
        if self._loaded is None:
            raise PipelineClosed("the executor is closed")
        return self._loaded

    def _check(self, batch: Batch, loaded: _Loaded) -> None:
        _accepted(loaded).check(batch, self.max_rows)
        for name, tensor in batch.tensors().items():
            if tensor.device != self._runtime.device:
                raise ExecutorError(f"{name} is on {tensor.device}, the plan on {self._runtime.device}")

    def _buffers_for(self, rows: int, frames: int, tokens: int, loaded: _Loaded) -> Buffers:
        key = (rows, loaded.signature.padded_frames(frames), tokens)
        found = self._kept.get(key)
        return relieved(lambda: self._allocated(loaded, key), self._free) if found is None else found

    def _free(self) -> None:
        self._running = None
        self.stream.launch(self._kept.clear)
        self.stream.wait()

    def _allocated(self, loaded: _Loaded, key: Key) -> Buffers:
        def work() -> None:
            # `make_room` may free the bound buffers: the context must neither use nor keep them.
            _context(loaded).forget()
            self._kept.make_room()
            shapes = loaded.signature.shapes(*key)
            made = {
                name: self._runtime.allocate(shape, loaded.signature.dtypes[name]) for name, shape in shapes.items()
            }
            self._kept[key] = Buffers({n: t for n, t in made.items() if n != VELOCITY}, made[VELOCITY])

        # On the own stream, so that torch's allocator reuses the freed memory only for later work on this stream.
        self.stream.wait()
        self.stream.launch(work)
        self.stream.wait()
        found = self._kept.get(key)
        if found is None:
            raise ExecutorError("stream.wait() returned before the launched work was done")
        return found

    def _report(self, listening: Listening, loaded: _Loaded) -> None:
        self.stream.wait()
        _context(loaded).report()
        listening.raise_first()

    def _settle(self) -> None:
        """Wait for all runs, and for the work on other streams that reads the last output."""
        self.stream.launch(_nothing)
        self.stream.wait()


def _context(loaded: _Loaded) -> Context:
    if loaded.context is None:
        raise PipelineClosed("the executor was closed before a launched run began")
    return loaded.context


def _accepted(loaded: _Loaded) -> Signature:
    """The signature that batches are checked against: with pinned rows a batch may have fewer rows than the run."""
    pinned = loaded.rows.pinned is not None
    return replace(loaded.signature, rows=Span(1, loaded.rows.most)) if pinned else loaded.signature


def _check_swap(old: _Loaded, new: _Loaded) -> None:
    if new.rows.most < old.rows.most:
        raise InvalidInput("plan", f"a plan of at most {new.rows.most} rows", f"at least {old.rows.most}, as before")
    least, was_least = _accepted(new).rows.low, _accepted(old).rows.low
    if least > was_least:
        raise InvalidInput("plan", f"a plan of at least {least} rows", f"at most {was_least}, as before")
    for fact in ("takes_mask", "channels", "context_channels", "encoder_dim"):
        is_now, was = getattr(new.signature, fact), getattr(old.signature, fact)
        if is_now != was:
            raise InvalidInput("plan", f"a plan whose {fact} is {is_now}", f"{was}, as before")


def _nothing() -> None:
    """Do nothing: the launch itself makes the stream wait for other streams."""
