"""The executor that replays recorded decoder runs: CUDA graphs on a GPU, their model on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from harness.engine import checks, kernels
from harness.engine.decoders.base import Decoder
from harness.engine.errors import ExecutorError, InvalidInput, NotPrepared, PipelineClosed, RecordingFailed
from harness.engine.executors.base import Batch, Declared, ExecutorStream, check_rows
from harness.engine.executors.code import Code, CompiledHere
from harness.engine.executors.compiled import compiled as compile_decoder
from harness.engine.executors.compiler import Graphs
from harness.engine.executors.embedded import embedded, embedding, record_embedding
from harness.engine.executors.graph_stats import GraphStats as GraphStats
from harness.engine.executors.memory import relieved
from harness.engine.executors.prepared import Prepared, Progress, silent
from harness.engine.executors.recorded import CudaRecorder, HostRecorder, Pool, Recorded, Recorder, device_of
from harness.engine.executors.shapes import Shape
from harness.engine.executors.stream import CudaStream
from harness.engine.executors.weights import Weights

BUCKETS = (1, 2, 4, 8)
"""The numbers of rows that are prepared unless others are named."""

WARM_UPS = 2
"""Calls of the decoder before one that is compared: code is compiled, libraries are loaded, kernels are chosen."""


class CudaGraphExecutor:
    """Replays decoder runs that were recorded ahead, one for each shape and each number of rows in `row_buckets`.

    A run with fewer rows is padded to the next bucket with copies of its first row. The bits of a row may depend on the
    bucket, because a GPU computes other numbers of rows with other kernels; with one bucket (`pin_rows`) they do not.

    Nothing is compiled or recorded in a tick: call `prepare` first. A shape that was not prepared is refused, by
    `submit` already. Replays run on a stream of the executor's own.

    On a CPU nothing can be recorded. There a replay calls the decoder on the same static tensors, for tests.

    Args:
        decoder: any callable with the signature of `Decoder`; a decoder with `takes_mask = False` is called without the
            mask. It must launch the same work at every call, whatever the values of its inputs.
        row_buckets: the numbers of rows to record, at least one.
        pin_rows: the one number of rows to record, instead of `row_buckets`.
        max_rows: the largest number of rows of one run, at most the largest bucket, which is the default.
        compiled: compile the decoder before it is recorded; see `executors.compiled`. A `CodeFile` does so with the
            code that is in the file.
        on_demand: record shapes that were not prepared at their first run. Only such shapes are evicted.
        max_bytes: most bytes that graphs, inputs and outputs may take, or None.
        device: the GPU; None is the decoder's device, or torch's current GPU where the decoder has none. The CPU is
            taken where it is named, or is the decoder's device.

    Attributes:
        max_rows: see `Executor`.
        takes_mask: see `Executor`.
        stream: the executor's own stream; None on a CPU.
        row_buckets: the numbers of rows, in ascending order.

    Raises:
        InvalidInput: no bucket, or a number below 1.
        EngineError: the file of the code cannot be used; see `CodeFile`.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        row_buckets: Sequence[int] = BUCKETS,
        pin_rows: int | None = None,
        max_rows: int | None = None,
        compiled: bool | Code = False,
        on_demand: bool = False,
        max_bytes: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        named = row_buckets if pin_rows is None else [checks.integer("pin_rows", pin_rows, 1)]
        self.row_buckets = tuple(sorted({checks.integer("row_buckets", rows, 1) for rows in named}))
        if not self.row_buckets:
            raise InvalidInput("row_buckets", "no number of rows", "at least one")
        if max_bytes is not None:
            checks.integer("max_bytes", max_bytes, 1)
        self.decoder = decoder
        self.pin_rows = pin_rows
        self.on_demand = checks.flag("on_demand", on_demand)
        self.max_bytes = max_bytes
        most = self.row_buckets[-1]
        self.max_rows = most if max_rows is None else min(checks.integer("max_rows", max_rows, 1), most)
        self.takes_mask = bool(getattr(decoder, "takes_mask", True))
        self.declares = replace(Declared.of_decoder(decoder), dtype=torch.float32)
        self._device = device_of(decoder, device)
        self._recorder: Recorder = CudaRecorder(self._device) if self._device.type == "cuda" else HostRecorder()
        self.stream: ExecutorStream | None = CudaStream(self._device) if self._device.type == "cuda" else None
        self._code = compiled if isinstance(compiled, Code) else CompiledHere()
        self._compiled = compiled is self._code or checks.flag("compiled", compiled)
        self._code.begin(decoder, self._device)
        self._compilations = Graphs()
        self._call = compile_decoder(decoder, self._compilations) if self._compiled else decoder
        self._embed = embedding(decoder)
        self._prepared = Prepared(self._recorder, self._made, max_bytes)
        self._weights = Weights(decoder)
        # Outside inference mode, as everything that a run writes to.
        with torch.inference_mode(False):
            self._replays = torch.zeros((), dtype=torch.int64, device=self._device)
        self._rehearsed = self._runs = 0
        self._running: Batch | None = None
        self._lost: str | None = None
        self._closed = False

    def prepare(self, shapes: Iterable[Shape], progress: Progress = silent) -> None:
        """Record runs of every shape, for every bucket; the host waits for the GPU. Prepared shapes are never evicted.

        Either every shape is prepared afterwards, or none of those that were not prepared before. The graphs of one
        call share one memory pool. Every graph is replayed once and must make the decoder's own bits.

        Args:
            shapes: the shapes; those that are prepared already cost nothing.
            progress: called with a few words before each recording.

        Raises:
            PipelineClosed: the executor is closed.
            InvalidInput: the shapes do not fit `max_bytes` together with those that were prepared before.
            RecordingFailed: a run cannot be recorded; the message names its shape.
            KernelsDiffer: a run launches other kernels than its file of code says; see `CodeFile`.
            ExecutorError: the decoder returned something else than one velocity per row, or the GPU is lost.
        """
        self._check_usable()
        self._drain()
        asked = list(dict.fromkeys(shapes))
        with self._code.preparing(asked, self.row_buckets):
            for shape in asked:
                kernels.prepare(self._device, shape.channels)
            self._prepared.record([(shape, self.row_buckets) for shape in asked], progress, evictable=False)
        self._weights.hold()

    def check_shape(self, shape: Shape) -> None:
        """See `PreparesShapes.check_shape`; every shape is accepted where shapes are prepared on demand."""
        if not self.on_demand and shape not in self._prepared:
            raise NotPrepared("shape", shape, self._expected())

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` in float32, a view of a buffer that the next run overwrites; see `Executor.run`.

        Raises:
            PipelineClosed: the executor is closed.
            BatchTooLarge: the batch has more than `max_rows` rows.
            NotPrepared: the shape is not prepared.
            InvalidInput: the tensors of the batch do not fit each other.
            ExecutorError: the GPU is lost; the message names the first error.
        """
        self._check_usable()
        check_rows(batch, self.max_rows)
        recorded = self._for(batch)
        # Keep the batch until the next run: the own stream may read it after the caller has dropped it.
        self._running = batch
        self._launch(lambda: recorded.run(batch))
        self._runs += 1
        return recorded.output[: batch.rows]

    def bare(self, batches: Sequence[Batch]) -> Callable[[int], None]:
        """Run some batches, and return a function that launches their recorded runs again, for measurements.

        The function takes a number of rounds. It copies nothing, and the current stream waits for the last run alone.
        Its replays count as runs.
        """
        for batch in batches:
            self.run(batch)
        recorded = [self._for(batch) for batch in batches]

        def launch(rounds: int) -> None:
            def work() -> None:
                for each in recorded * rounds:
                    each.replay()

            self._check_usable()
            self._launch(work)
            self._runs += rounds * len(recorded)
            if self.stream is not None:
                self.stream.join()

        return launch

    def update(self, change: Callable[[], object]) -> None:
        """Change the decoder's weights between two ticks: a checkpoint, a LoRA fused or unfused.

        Work in flight ends before `change` is called, and velocities of earlier runs are overwritten. Afterwards every
        graph is kept where no weight has another address and a replay makes the bits of the decoder as it is now;
        otherwise all graphs are recorded anew. Of weights that are changed without `update`, replays see what was
        written in place, and not what was moved.

        Args:
            change: function that changes the decoder. Where it raises, the graphs follow what it did before that.

        Raises:
            PipelineClosed: the executor is closed.
            Exception: whatever `change` raises, and the errors of `prepare`. Where a prepared shape cannot be recorded
                anew, none is prepared any more.
        """
        self._check_usable()
        self._drain()
        before = self._weights.addresses()
        self._weights.let_go()
        try:
            change()
        finally:
            try:
                self._follow()
                stay = before is not None and before == self._weights.addresses()
                if not (stay and all(self._is_current(recorded) for recorded in self._prepared.runs)):
                    self._prepared.record_anew()
            finally:
                if not self._closed:
                    self._weights.hold()

    def _follow(self) -> None:
        """Let the decoder follow its weights; where it refuses them, no graph of the old ones stays."""
        try:
            getattr(self.decoder, "weights_changed", lambda: None)()
            # Of the decoder's children as they are now: compiled layers are copies that replaced children do not reach.
            if self._compiled:
                self._call = compile_decoder(self.decoder, self._compilations)
        except BaseException:
            self._prepared.drop(self._prepared.shapes)
            raise

    def stats(self) -> GraphStats:
        """Return the counts; the host waits for the runs in flight. Allowed after `close`."""
        replays: int | None = None
        with suppress(RuntimeError):
            self._drain()
            replays = int(self._replays.item()) - self._rehearsed
        held = self._prepared
        return GraphStats(
            graphs=len(held.runs),
            recorded=held.recorded,
            evicted=held.evicted,
            runs=self._runs,
            replays=replays,
            copied=held.copied,
            kept=held.kept,
            nbytes=held.nbytes,
            compiled=self._compilations.compiled,
            loaded=self._compilations.loaded,
            other_kernels=self._code.other_kernels,
        )

    def close(self) -> None:
        """Wait for the last run, then refuse further runs and free the graphs. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with suppress(RuntimeError):
            self._drain()
        self._prepared.drop(self._prepared.shapes)
        self._weights.let_go()
        self._code.close()
        self._running = None

    # Recordings.

    def _for(self, batch: Batch) -> Recorded:
        shape, rows = Shape.of(batch), next(bucket for bucket in self.row_buckets if bucket >= batch.rows)
        known = self._prepared.use(shape, rows)
        if known is None and self.on_demand:
            self._drain()
            relieved(
                lambda: self._prepared.record([(shape, [rows])], silent, evictable=True), self._prepared.drop_evictable
            )
            self._weights.hold()
            known = self._prepared.use(shape, rows)
        if known is None:
            raise NotPrepared("shape", f"{shape} with {batch.rows} rows", self._expected())
        return known

    def _expected(self) -> str:
        return f"one of the prepared shapes: {'; '.join(map(str, self._prepared.shapes)) or 'none'} (see prepare)"

    def _made(self, shape: Shape, rows: int, pool: Pool) -> Recorded:
        made: list[Recorded] = []

        # Outside inference mode, because tensors made inside it cannot be written to outside of it.
        @torch.inference_mode(False)
        @torch.no_grad()
        def work() -> None:
            given = shape.example(rows, self._device)
            inputs = embedded(given, self._embed)
            output = torch.full_like(inputs.hidden_states, torch.nan)
            for _ in range(WARM_UPS):
                self._decode(inputs)
            self._code.watch(shape, rows, lambda: self._decode(inputs))
            with self._recorder.refuse_waits():
                expected = self._decode(inputs)

            def call() -> None:
                output.copy_(self._decode(inputs))
                self._replays.add_(1)

            condition = record_embedding(self._recorder, pool, given, inputs, self._embed)
            made.append(Recorded(given, inputs, output, self._recorder.record(call, pool), condition))
            if not self._replays_as(made[0], expected):
                raise RecordingFailed(f"{rows} rows of {shape}: a replay makes other bits than the decoder itself")

        try:
            self._launch(work)
            self._drain()
        except BaseException as error:
            for recorded in made:
                recorded.free()
            if isinstance(error, ExecutorError) or not isinstance(error, Exception):
                raise
            raise RecordingFailed(f"{rows} rows of {shape}: {error}") from error
        return made[0]

    def _decode(self, inputs: Batch) -> Tensor:
        given = inputs.tensors()
        if not self.takes_mask:
            del given["encoder_mask"]
        # What the caller's context is now must change neither a recording nor its model on a CPU.
        modes = torch.inference_mode(False), torch.no_grad(), torch.autocast(self._device.type, enabled=False)
        with self._code.kept(), modes[0], modes[1], modes[2]:
            velocity = self._call(**given)
        if velocity.shape != inputs.hidden_states.shape or not velocity.is_floating_point():
            expected = f"a floating tensor of shape {list(inputs.hidden_states.shape)}"
            raise ExecutorError(f"the decoder returned a {checks.describe(velocity)}, expected {expected}")
        return velocity

    def _replays_as(self, recorded: Recorded, expected: Tensor) -> bool:
        recorded.replay()
        self._rehearsed += 1
        return torch.equal(recorded.output.view(torch.int32), expected.float().contiguous().view(torch.int32))

    def _is_current(self, recorded: Recorded) -> bool:
        """Say whether a replay makes the bits of the decoder as it is now."""
        found: list[bool] = []

        @torch.inference_mode(False)
        @torch.no_grad()
        def work() -> None:
            # On the example: a change may not show in what was run last, such as NaN or zeros.
            recorded.refill(Shape.of(recorded.given).example(recorded.given.rows, self._device))
            found.append(self._replays_as(recorded, self._decode(embedded(recorded.given, self._embed))))

        try:
            self._launch(work)
            self._drain()
        except Exception:  # noqa: BLE001 - a decoder that fails now is recorded anew, which says why
            if self._lost is not None:
                raise
            return False
        return found == [True]

    # The device.

    def _check_usable(self) -> None:
        if self._closed:
            raise PipelineClosed("the executor is closed")
        if self._lost is not None:
            raise ExecutorError(f"the GPU is lost since an earlier error: {self._lost}")

    def _launch(self, work: Callable[[], None]) -> None:
        self._guarded(work if self.stream is None else lambda: self._stream.launch(work))

    def _drain(self) -> None:
        if self.stream is not None:
            self._guarded(self._stream.wait)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Call `work`; an error after which the GPU cannot be used any more is remembered."""
        try:
            work()
        except RuntimeError as error:
            lost = self._lost or self._recorder.lost()
            if lost is None:
                raise
            self._lost = lost
            raise ExecutorError(f"the GPU is lost: {lost}") from error

    @property
    def _stream(self) -> ExecutorStream:
        if self.stream is None:
            raise TypeError("an executor on a CPU has no stream")
        return self.stream
