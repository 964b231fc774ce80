"""Runs a TensorRT engine, of the full TensorRT or of TensorRT-RTX, on static buffers and a stream of its own."""

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
from harness.engine.executors.tensorrt.buffers import Buffers, KeptBuffers
from harness.engine.executors.tensorrt.context import Context, Profiled
from harness.engine.executors.tensorrt.engine import RowLimits, row_limits, signature
from harness.engine.executors.tensorrt.profiling import Listener, Listening
from harness.engine.executors.tensorrt.runtime import CudaRuntime, RawStream, Runtime


@dataclass(eq=False)
class _Loaded:
    """A plan that is ready to run.

    Attributes:
        engine: an `ICudaEngine`, None once it is released.
        context: of it, None likewise.
        found: the TensorRT that it is of.
        sidecar: the plan's metadata.
        signature: as the engine says it.
        rows: how many a run has.
    """

    engine: Any
    context: Context | None
    found: Binding
    sidecar: Sidecar
    signature: Signature
    rows: RowLimits

    def release(self) -> None:
        """Let go of the context, and then of the engine that it belongs to."""
        self.context = None
        self.engine = None


class TensorRTExecutor:
    """Runs an engine on buffers that never move, and returns views of its output buffer.

    For each number of rows, frames and tokens there is one buffer per tensor, of the engine's own dtype for it. A run
    copies its inputs into them, adds a zero frame where T is odd, and launches the engine on a stream of its own. Rows
    that every run shall have and a batch lacks repeat its first row.

    A run that fails changes nothing: the next one tells the engine every shape and address anew.

    Args:
        plan: the engine's file, with its metadata beside it. It is code: load plans that you trust.
        max_rows: the most rows of one run, None for the engine's own ceiling, which is an upper bound in any case: the
            smallest maximum that its profile has for any input.
        pin_rows: always run this many rows; see `EagerExecutor`. An engine made for one number of rows always runs it.
        max_shapes: how many shapes keep their buffers; the one used longest ago goes first.
        device: a CUDA device.
        runtime: what loads and runs plans; None is `CudaRuntime(device)`.

    Attributes:
        max_rows: see `Executor`.
        takes_mask: see `Executor`; whether the engine has an input for the mask.
        stream: its own.
        sidecar: the plan's metadata.
        signature: what the engine takes.

    Raises:
        SidecarMissing: the plan has no metadata.
        PlanCorrupt: it is truncated or altered, or its engine is not what its metadata says.
        PackageMissing: TensorRT or Polygraphy is not installed.
        PlanMismatch: it was built for another flavour, version, compute capability, GPU or driver.
        EngineError: TensorRT cannot load it here, or it is no decoder.
        InvalidInput: a number of rows that the engine does not take.
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
        """See the class."""
        self._kept = KeptBuffers(checks.integer("max_shapes", max_shapes, 1))
        self._runtime = CudaRuntime(device) if runtime is None else runtime
        self._asked = (max_rows, pin_rows)
        self._running: Batch | None = None
        self._listening: Listening | None = None
        loaded = self._load(plan)
        self.stream = self._runtime.stream()
        if self.stream.handle == 0:
            raise ExecutorError("stream 0 is CUDA's default stream: on it TensorRT makes the host wait at every run")
        self._adopt(loaded)

    @property
    def shapes(self) -> int:
        """How many shapes have buffers."""
        return len(self._kept)

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` in the engine's dtype, a view of a buffer that the next run overwrites.

        It is computed once `stream` is joined or waited for; see `Executor.run`.

        Raises:
            PipelineClosed: after `close`.
            BatchTooLarge: more than `max_rows` rows.
            OutsideProfile: frames, tokens or widths that the engine was not made for.
            ExecutorError: TensorRT refuses a call, or the batch is on another device.
        """
        loaded = self._open()
        self._check(batch, loaded)
        rows = loaded.rows.pinned or batch.rows
        frames, tokens = batch.hidden_states.shape[1], batch.encoder_hidden_states.shape[1]
        buffers = self._buffers_for(rows, frames, tokens, loaded)
        # Kept until the next run: this one reads it on a stream of its own, after the caller may have let go.
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
        """Run another plan from the next run on. Both are in memory for a moment.

        Pipelines keep to what the executor was when they were made. So the new engine has to take as many rows as the
        old one and as few, the same widths, and a mask where the old one does. Its frames and tokens may be others:
        what is outside them is refused at the run.

        Raises:
            PipelineClosed: after `close`.
            ExecutorError: while it is profiled.
            InvalidInput: it takes fewer rows or not as few, other widths, or differs in the mask.
            Exception: whatever the constructor raises for a plan. In all these cases the old engine stays.
        """
        old = self._open()
        if self._listening is not None:
            raise ExecutorError("the engine is being profiled: swap it afterwards")
        new = self._load(plan)
        _check_swap(old, new)
        self._settle()
        self._kept.clear()
        self._running = None
        self._adopt(new)
        old.release()

    @contextmanager
    def profiling(self, listener: Listener) -> Iterator[None]:
        """Tell `listener` every layer's time, at every run inside; a run then waits until it is done.

        Args:
            listener: what it raises, the run raises.

        Raises:
            PipelineClosed: after `close`.
            EngineError: the plan was built without layer names.
            ExecutorError: it is profiled already, or TensorRT refuses.
        """
        loaded = self._open()
        if self._listening is not None:
            raise ExecutorError("the engine is being profiled already")
        if loaded.sidecar.verbosity == "none":
            raise EngineError("the plan was built with verbosity none and has no layer names: build it with detailed")
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
        """Refuse further runs; free buffers, context and engine, in this order, once no run uses them."""
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
                raise ExecutorError(f"{name} is on {tensor.device}, the engine on {self._runtime.device}")

    def _buffers_for(self, rows: int, frames: int, tokens: int, loaded: _Loaded) -> Buffers:
        key = (rows, loaded.signature.padded_frames(frames), tokens)
        found = self._kept.get(key)
        return self._allocated(loaded, key) if found is None else found

    def _allocated(self, loaded: _Loaded, key: tuple[int, int, int]) -> Buffers:
        def work() -> None:
            # What it has bound may go now, and must not be taken as bound, nor kept in memory, any more.
            _context(loaded).forget()
            self._kept.make_room()
            shapes = loaded.signature.shapes(*key)
            made = {
                name: self._runtime.allocate(shape, loaded.signature.dtypes[name]) for name, shape in shapes.items()
            }
            self._kept.add(key, Buffers({n: t for n, t in made.items() if n != VELOCITY}, made[VELOCITY]))

        # On the own stream, so that its memory is freed for runs of the own stream alone, and in their order.
        self.stream.wait()
        self.stream.launch(work)
        self.stream.wait()
        found = self._kept.get(key)
        if found is None:
            raise ExecutorError("the stream did not do what was launched on it before it was waited for")
        return found

    def _report(self, listening: Listening, loaded: _Loaded) -> None:
        self.stream.wait()
        _context(loaded).report()
        listening.raise_first()

    def _settle(self) -> None:
        """Wait for the runs, and for whoever reads the last one's output on another stream."""
        self.stream.launch(_nothing)
        self.stream.wait()


def _context(loaded: _Loaded) -> Context:
    if loaded.context is None:
        raise PipelineClosed("the executor was closed before a run that was launched on it began")
    return loaded.context


def _accepted(loaded: _Loaded) -> Signature:
    """What a batch may be: where every run has the same rows, a batch may have fewer."""
    pinned = loaded.rows.pinned is not None
    return replace(loaded.signature, rows=Span(1, loaded.rows.most)) if pinned else loaded.signature


def _check_swap(old: _Loaded, new: _Loaded) -> None:
    if new.rows.most < old.rows.most:
        raise InvalidInput("plan", f"an engine of {new.rows.most} rows", f"at least {old.rows.most}, as before")
    least, was_least = _accepted(new).rows.low, _accepted(old).rows.low
    if least > was_least:
        raise InvalidInput("plan", f"an engine that takes {least} rows at least", f"{was_least}, as before")
    for fact in ("takes_mask", "channels", "context_channels", "encoder_dim"):
        is_now, was = getattr(new.signature, fact), getattr(old.signature, fact)
        if is_now != was:
            raise InvalidInput("plan", f"an engine whose {fact} is {is_now}", f"{was}, as before")


def _nothing() -> None:
    """There is nothing to do but to wait for what comes before."""
