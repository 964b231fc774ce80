"""The executor of recorded runs, on a CPU: everything but the recording itself, which `tests/gpu` asks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.engine import (
    BatchTooLarge,
    ExecutorError,
    InvalidInput,
    PipelineClosed,
    PipelineConfig,
    Request,
    StreamPipeline,
)
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.errors import NotPrepared, RecordingFailed
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Executor, PreparesShapes, Shape
from harness.engine.executors.recorded import HostRecorder, Pool, Recording
from harness.parity.compare import assert_identical
from tests.engine.builders import D, E, T, condition, fixed
from tests.engine.executors.test_eager import batch
from tests.fakes import LoggedStream

SHAPE = Shape(frames=10, tokens=6, channels=8, encoder_dim=32)
LONGER = replace(SHAPE, frames=20)
CPU = torch.device("cpu")


def made(decoder: Any = None, *shapes: Shape, **options: Any) -> CudaGraphExecutor:
    executor = CudaGraphExecutor(decoder or AffineDecoder(), device="cpu", **options)
    executor.prepare(shapes)
    return executor


def bucket(rows: int) -> int:
    return next(each for each in (1, 2, 4, 8) if each >= rows)


# What it computes.


@pytest.mark.parametrize("decoder", [AffineDecoder(), AceStepDecoder.preset("tiny", 0)], ids=["affine", "tiny"])
def test_a_run_has_the_bits_of_the_eager_executor_with_the_bucket_s_rows(decoder: Any) -> None:
    executor = made(decoder, SHAPE)
    for rows in (3, 8, 1, 5, 2):
        assert_identical(executor.run(batch(rows)), EagerExecutor(decoder, pin_rows=bucket(rows)).run(batch(rows)))


def test_it_is_an_executor_that_prepares_shapes() -> None:
    executor = made()
    assert isinstance(executor, Executor) and isinstance(executor, PreparesShapes)
    assert not isinstance(EagerExecutor(AffineDecoder()), PreparesShapes)
    assert executor.stream is None


@pytest.mark.parametrize(("options", "buckets", "most"), [
    ({}, (1, 2, 4, 8), 8),
    ({"row_buckets": [6, 3, 6]}, (3, 6), 6),
    ({"pin_rows": 5}, (5,), 5),
    ({"pin_rows": 5, "row_buckets": [1, 2]}, (5,), 5),
    ({"max_rows": 3}, (1, 2, 4, 8), 3),
    ({"max_rows": 9}, (1, 2, 4, 8), 8),
])  # fmt: skip
def test_the_buckets_bound_the_rows(options: Any, buckets: tuple[int, ...], most: int) -> None:
    executor = made(None, SHAPE, **options)
    assert (executor.row_buckets, executor.max_rows) == (buckets, most)
    executor.run(batch(min(most, 8)))
    if most < 8:
        with pytest.raises(BatchTooLarge, match=f"{most + 1} rows"):
            executor.run(batch(most + 1))


@pytest.mark.parametrize(("options", "said"), [
    ({"row_buckets": []}, "row_buckets: got no number of rows"),
    ({"row_buckets": [0]}, "row_buckets: got 0"),
    ({"pin_rows": 0}, "pin_rows: got 0"),
    ({"max_rows": 0}, "max_rows: got 0"),
    ({"max_bytes": 0}, "max_bytes: got 0"),
    ({"compiled": 1}, "compiled: got 1"),
    ({"on_demand": "yes"}, "on_demand: got 'yes'"),
])  # fmt: skip
def test_an_argument_out_of_range_is_refused(options: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        made(**options)


def test_a_velocity_is_float32_whatever_the_decoder_returns_and_the_next_run_overwrites_it() -> None:
    executor = made(lambda **inputs: inputs["hidden_states"].to(torch.bfloat16), SHAPE)
    first = executor.run(batch(2))
    assert_identical(first, batch(2).hidden_states.bfloat16().float())
    second = executor.run(Batch(**{name: tensor.flip(0) for name, tensor in batch(2).tensors().items()}))
    assert first.data_ptr() == second.data_ptr()


def test_the_rows_of_a_bucket_that_nobody_asked_for_repeat_the_first_row() -> None:
    seen: list[dict[str, Tensor]] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.append({name: tensor.clone() for name, tensor in inputs.items()})
        return inputs["hidden_states"]

    executor = made(decoder, SHAPE)
    executor.run(batch(4))
    seen.clear()
    executor.run(batch(3))
    for name, tensor in batch(3).tensors().items():
        assert_identical(seen[0][name], torch.cat([tensor, tensor[:1]]))


def test_a_decoder_without_a_mask_is_called_without_it() -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        assert "encoder_mask" not in inputs
        return inputs["hidden_states"]

    decoder.takes_mask = False  # type: ignore[attr-defined]
    executor = made(decoder, SHAPE)
    assert not executor.takes_mask
    assert_identical(executor.run(batch(2)), batch(2).hidden_states)


def test_buffers_made_in_inference_mode_serve_outside_it() -> None:
    with torch.inference_mode():
        executor = made(None, SHAPE)
        executor.run(batch(2))
    assert_identical(executor.run(batch(2)), EagerExecutor(AffineDecoder()).run(batch(2)))


# What is copied.


def copied(executor: CudaGraphExecutor, given: Batch) -> int:
    before = executor.stats().copied
    expected = EagerExecutor(AffineDecoder()).run(given)
    assert_identical(executor.run(given), expected)
    return executor.stats().copied - before


def fresh(given: Batch, **changed: Tensor) -> Batch:
    """The next tick's batch: another state, the same conditions."""
    return replace(given, hidden_states=given.hidden_states + 1, timestep=given.timestep * 0.9, **changed)


def test_conditions_that_stay_are_copied_once() -> None:
    executor, given = made(None, SHAPE), batch(2)
    assert [copied(executor, given), copied(executor, fresh(given)), copied(executor, fresh(given))] == [5, 2, 2]
    assert executor.stats().kept == 6


@pytest.mark.parametrize("name", ["encoder_hidden_states", "encoder_mask", "context_latents"])
def test_a_condition_that_is_another_tensor_or_was_written_to_is_copied_again(name: str) -> None:
    executor, given = made(None, SHAPE), batch(2)
    executor.run(given)
    other = fresh(given, **{name: getattr(given, name).flip(0)})
    assert copied(executor, other) == 3
    assert copied(executor, fresh(other)) == 2
    getattr(other, name)[0].zero_()
    assert copied(executor, fresh(other)) == 3
    equal = fresh(other, **{name: getattr(other, name).clone()})
    assert copied(executor, equal) == 3, "equal values in another tensor: nobody compares values"


def test_a_state_is_copied_even_if_it_is_the_same_tensor() -> None:
    executor, given = made(None, SHAPE), batch(2)
    executor.run(given)
    given.hidden_states.data.mul_(2)  # moves no version counter
    given.timestep.data.mul_(0.5)
    assert copied(executor, given) == 2


def test_an_inference_tensor_is_copied_at_every_run() -> None:
    executor = made(None, SHAPE)
    with torch.inference_mode():
        given = Batch(**{name: tensor.clone() for name, tensor in batch(2).tensors().items()})
    assert [copied(executor, given), copied(executor, given)] == [5, 5]


def test_every_bucket_and_every_shape_has_its_own_inputs() -> None:
    executor, given = made(None, SHAPE, LONGER), batch(2)
    longer = LONGER.example(2, CPU)
    assert [copied(executor, each) for each in (given, batch(1), longer)] == [5, 5, 5]
    assert [copied(executor, fresh(each)) for each in (given, longer)] == [2, 2]


def test_callers_that_take_turns_each_get_their_own_conditions() -> None:
    executor, one, two = made(None, SHAPE), batch(2), SHAPE.example(2, CPU)
    assert [copied(executor, fresh(each)) for each in (one, two, one, two, two)] == [5, 5, 5, 5, 2]


def test_a_source_is_held_while_its_copy_is_there_so_that_no_other_tensor_takes_its_identity() -> None:
    executor, given = made(None, SHAPE), batch(2)
    executor.run(given)
    states = weakref.ref(given.encoder_hidden_states)
    del given
    executor.run(SHAPE.example(1, CPU))  # the executor holds the last batch as well
    gc.collect()
    assert states() is not None
    executor.run(SHAPE.example(2, CPU))
    executor.run(SHAPE.example(1, CPU))
    gc.collect()
    assert states() is None


def test_a_copy_that_fails_is_made_at_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, given = made(None, SHAPE), batch(2)
    executor.run(given)
    other = fresh(given, encoder_hidden_states=given.encoder_hidden_states.flip(0))
    with monkeypatch.context() as patched:
        patched.setattr("harness.engine.executors.recorded.fill", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            executor.run(other)
    assert copied(executor, fresh(given)) == 3, "of what was to be copied nothing is taken for copied"


# What is prepared.


def test_a_shape_that_was_not_prepared_is_refused_and_both_are_named() -> None:
    executor = made(None, SHAPE)
    with pytest.raises(NotPrepared, match=r"got T=20, L=6.* with 2 rows, expected one of the prepared shapes: T=10, L"):
        executor.run(LONGER.example(2, CPU))
    with pytest.raises(NotPrepared, match=r"shape: got T=20, .*expected one of the prepared shapes: T=10"):
        executor.check_shape(LONGER)
    executor.check_shape(SHAPE)
    assert executor.stats().recorded == 4
    with pytest.raises(NotPrepared, match="prepared shapes: none"):
        made().check_shape(SHAPE)


def test_prepare_records_every_bucket_the_largest_first_and_says_so() -> None:
    said: list[str] = []
    executor = made()
    executor.prepare([SHAPE, LONGER, SHAPE], said.append)
    words = "L=6, D=8, E=32 (float32 encoder, float32 context)"
    assert said == [f"{rows} rows of T={frames}, {words}" for frames in (10, 20) for rows in (8, 4, 2, 1)]
    executor.prepare([LONGER], said.append)
    assert (len(said), executor.stats().recorded, executor.stats().graphs) == (8, 8, 8)


def test_submit_refuses_a_shape_that_is_not_prepared_before_it_drops_anything() -> None:
    prepared = Shape(T, 64, D, E)
    executor = made(None, prepared)
    with StreamPipeline(executor, PipelineConfig()) as pipeline:
        pipeline.submit(Request([condition(1, 5)], fixed(7, T, 2 * D), 0))
        pipeline.tick()
        before = pipeline.stats(), pipeline.slots
        with pytest.raises(NotPrepared, match=f"T={T + 1}"):
            pipeline.submit(Request([condition(1, 5)], fixed(7, T + 1, 2 * D), 1))
        assert (pipeline.stats(), pipeline.slots) == before
        assert len(pipeline.drain()) == 1
    with StreamPipeline(executor, PipelineConfig(encoder_length=65)) as pipeline:
        with pytest.raises(NotPrepared, match="L=65"):
            pipeline.submit(Request([condition(1, 5)], fixed(7, T, 2 * D), 0))
        assert pipeline.encoder_length == 65 and pipeline.stats().submitted == 0
        assert pipeline._state.geometry is None


def test_on_demand_a_shape_is_recorded_at_its_first_run_and_only_for_the_rows_that_ran() -> None:
    executor = made(on_demand=True)
    executor.check_shape(SHAPE)
    for rows in (3, 4, 3):
        assert_identical(executor.run(batch(rows)), EagerExecutor(AffineDecoder()).run(batch(rows)))
    assert (executor.stats().recorded, executor.stats().graphs) == (1, 1)


@pytest.mark.parametrize("failing", [1, 3, 5])
def test_a_recording_that_fails_names_the_shape_and_leaves_what_was_prepared(failing: int) -> None:
    recordings = []

    class Failing(HostRecorder):
        def record(self, call: Callable[[], None], pool: Pool) -> Recording:
            recordings.append(1)
            if len(recordings) == failing:
                raise RuntimeError("operation not permitted when stream is capturing")
            return super().record(call, pool)

    executor = CudaGraphExecutor(AffineDecoder(), row_buckets=(2, 4), device="cpu")
    executor.prepare([SHAPE])
    executor._prepared._recorder = executor._recorder = Failing()
    rows, frames = {1: (4, 20), 3: (4, 30), 5: (4, 40)}[failing]
    shapes = [replace(SHAPE, frames=each) for each in (20, 30, 40)]
    with pytest.raises(RecordingFailed, match=f"{rows} rows of T={frames}, .*: operation not permitted"):
        executor.prepare(shapes)
    assert executor.stats().graphs == 2
    with pytest.raises(NotPrepared):
        executor.check_shape(shapes[0])
    assert_identical(executor.run(batch(2)), EagerExecutor(AffineDecoder()).run(batch(2)))


def test_an_interrupt_of_a_recording_leaves_nothing_and_is_passed_on() -> None:
    class Interrupted(HostRecorder):
        def record(self, call: Callable[[], None], pool: Pool) -> Recording:
            raise KeyboardInterrupt

    executor = made()
    executor._recorder = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        executor.prepare([SHAPE])
    assert executor.stats().graphs == 0


def test_a_decoder_whose_calls_differ_is_refused() -> None:
    calls = []

    def decoder(**inputs: Tensor) -> Tensor:
        calls.append(1)
        return inputs["hidden_states"] * len(calls)

    with pytest.raises(RecordingFailed, match="8 rows of T=10, .*a replay makes other bits than the decoder itself"):
        made(decoder, SHAPE)


def test_minus_zero_for_zero_is_another_bit() -> None:
    calls = []

    def decoder(**inputs: Tensor) -> Tensor:
        calls.append(1)
        return torch.full_like(inputs["hidden_states"], -0.0 if len(calls) > 3 else 0.0)

    with pytest.raises(RecordingFailed, match="other bits"):
        made(decoder, SHAPE)


def test_a_velocity_that_is_not_finite_can_be_recorded() -> None:
    made(lambda **inputs: inputs["hidden_states"] * torch.nan, SHAPE)


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x.int(), lambda x: x.to(torch.complex64)])
def test_a_velocity_of_another_form_is_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ExecutorError, match="the decoder returned a torch.* expected a floating tensor of shape"):
        made(lambda **inputs: wrong(inputs["hidden_states"]), SHAPE)


# What it may take.

BYTES = made(None, SHAPE).stats().nbytes


def test_shapes_that_do_not_fit_together_are_refused_together() -> None:
    executor = made(None, SHAPE, max_bytes=BYTES)
    with pytest.raises(InvalidInput, match=rf"shapes: got \d+ bytes for T=10.*T=20.*at most max_bytes = {BYTES}"):
        executor.prepare([LONGER])
    assert (executor.stats().graphs, executor.stats().nbytes) == (4, BYTES)
    with pytest.raises(InvalidInput, match="at most max_bytes"):
        made(None, SHAPE, max_bytes=BYTES - 1)


def test_only_shapes_that_were_recorded_on_demand_are_evicted_the_least_recently_used_first() -> None:
    shapes = [replace(SHAPE, frames=10 + each) for each in range(4)]
    one = made(None, SHAPE, row_buckets=(2,)).stats().nbytes
    executor = made(None, shapes[0], row_buckets=(2,), on_demand=True, max_bytes=round(3.8 * one))

    def run(shape: Shape) -> None:
        given = shape.example(2, CPU)
        assert_identical(executor.run(given), EagerExecutor(AffineDecoder()).run(given))

    for shape in (shapes[1], shapes[2], shapes[1], shapes[3]):
        run(shape)
    assert set(executor._prepared.shapes) == {shapes[0], shapes[1], shapes[3]}
    assert (executor.stats().evicted, executor.stats().graphs) == (1, 3)
    executor.prepare([shapes[1]])
    for shape in (shapes[2], shapes[3], shapes[2]):
        run(shape)
    assert set(executor._prepared.shapes) == {shapes[0], shapes[1], shapes[2]}, "what was prepared since then stays"
    with pytest.raises(InvalidInput, match="at most max_bytes"):
        executor.prepare(shapes)


def test_an_evicted_shape_is_recorded_anew_and_its_counts_stay() -> None:
    one = made(None, SHAPE, row_buckets=(2,)).stats().nbytes
    executor = made(row_buckets=(2,), on_demand=True, max_bytes=round(2.5 * one))
    for given in (batch(2), LONGER.example(2, CPU), batch(2)):
        executor.run(given)
    stats = executor.stats()
    assert (stats.recorded, stats.evicted, stats.graphs, stats.runs, stats.replays) == (3, 2, 1, 3, 3)
    assert (stats.copied, stats.kept) == (15, 0)


# Its counts.


def test_replays_are_counted_where_they_run_and_not_where_they_are_launched() -> None:
    class Idle(HostRecorder):
        skipping = False

        def record(self, call: Callable[[], None], pool: Pool) -> Recording:
            recording, outer = super().record(call, pool), self

            class Skipped:
                def replay(self) -> None:
                    if not outer.skipping:
                        recording.replay()

                def reset(self) -> None:
                    recording.reset()

            return Skipped()

    executor = made()
    executor._recorder = idle = Idle()
    executor.prepare([SHAPE])
    executor.run(batch(2))
    idle.skipping = True
    executor.run(batch(2))
    assert (executor.stats().runs, executor.stats().replays) == (2, 1)


# The stream.


def test_runs_and_recordings_are_launched_on_the_stream_and_waits_come_before_memory_is_made_or_freed() -> None:
    executor = made()
    executor.stream = stream = LoggedStream()
    executor.prepare([SHAPE])
    # A wait before the first recording, then one after each.
    assert stream.log == ["wait", *["launch", "wait"] * 4]
    stream.log.clear()
    velocity = executor.run(batch(2))
    assert (stream.log, stream.pending) == (["launch"], 1)
    stream.join()
    assert_identical(velocity, EagerExecutor(AffineDecoder()).run(batch(2)))
    executor.run(batch(2))
    stream.log.clear()
    executor.close()
    assert (stream.log, stream.pending) == (["wait"], 0)


def test_torch_s_defaults_change_no_buffer() -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        executor = made(None, SHAPE)
    finally:
        torch.set_default_dtype(before)
    found = executor.run(batch(2))
    assert found.dtype == torch.float32
    assert executor._prepared.runs[0].inputs.timestep.dtype == torch.float32
    assert_identical(found, EagerExecutor(AffineDecoder()).run(batch(2)))


def test_a_batch_is_kept_until_the_next_run() -> None:
    executor = made(None, SHAPE)
    executor.stream = LoggedStream()
    given = batch(2)
    state = weakref.ref(given.hidden_states)
    executor.run(given)
    del given
    gc.collect()
    assert state() is not None


# Weights.


class Scaled(nn.Module):
    """A decoder with a weight, and a number that a recording would keep."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8), requires_grad=False)
        self.factor = 1.0

    def forward(self, **inputs: Tensor) -> Tensor:
        return inputs["hidden_states"] * self.weight * self.factor


class Baking(HostRecorder):
    """Replays with the weights' memory and the numbers that were there when the call was recorded, as a GPU does."""

    def __init__(self, decoder: Scaled) -> None:
        super().__init__()
        self._decoder = decoder

    def record(self, call: Callable[[], None], pool: Pool) -> Recording:
        recording, decoder = super().record(call, pool), self._decoder
        weight, factor = decoder.weight.detach(), decoder.factor

        class Baked:
            def replay(self) -> None:
                now = decoder.weight.data, decoder.factor
                decoder.weight.data, decoder.factor = weight, factor
                recording.replay()
                decoder.weight.data, decoder.factor = now

            def reset(self) -> None:
                recording.reset()

        return Baked()


def scaled() -> tuple[Scaled, CudaGraphExecutor]:
    decoder = Scaled()
    executor = CudaGraphExecutor(decoder, row_buckets=(2, 4), device="cpu")
    executor._recorder = executor._prepared._recorder = Baking(decoder)
    executor.prepare([SHAPE])
    return decoder, executor


def in_place(decoder: Scaled) -> None:
    decoder.weight.mul_(3)


def moved(decoder: Scaled) -> None:
    decoder.weight.data = decoder.weight.data * 3


def a_number(decoder: Scaled) -> None:
    decoder.factor = 3.0


def exchanged(decoder: Scaled) -> None:
    decoder.weight = nn.Parameter(torch.full((8,), 3.0), requires_grad=False)


@pytest.mark.parametrize(("change", "recorded"), [(in_place, 2), (moved, 4), (a_number, 4), (exchanged, 4)])
def test_after_an_update_runs_have_the_new_weights(change: Callable[[Scaled], None], recorded: int) -> None:
    decoder, executor = scaled()
    executor.run(batch(2))
    executor.update(lambda: change(decoder))
    assert_identical(executor.run(batch(2)), batch(2).hidden_states * 3)
    assert executor.stats().recorded == recorded, "anew only where something moved"
    assert executor.stats().replays == 2


def test_an_update_that_is_taken_back_restores_the_bits() -> None:
    decoder, executor = scaled()
    before, kept = executor.run(batch(2)).clone(), decoder.weight.detach().clone()
    executor.update(lambda: in_place(decoder))
    executor.update(lambda: decoder.weight.copy_(kept))
    assert_identical(executor.run(batch(2)), before)


def test_an_update_comes_after_the_work_in_flight() -> None:
    decoder, executor = scaled()
    executor.stream = stream = LoggedStream()
    velocity, seen = executor.run(batch(2)), []
    executor.update(lambda: (stream.log.append("change"), seen.append(velocity.clone()), in_place(decoder)))
    assert_identical(seen[0], batch(2).hidden_states)
    assert stream.log[:3] == ["launch", "wait", "change"]


def test_an_update_that_raises_half_way_is_followed_too() -> None:
    decoder, executor = scaled()

    def half() -> None:
        moved(decoder)
        raise OSError("no such checkpoint")

    with pytest.raises(OSError, match="no such checkpoint"):
        executor.update(half)
    assert_identical(executor.run(batch(2)), batch(2).hidden_states * 3)


def test_weights_that_move_without_an_update_stay_in_memory_while_graphs_read_them() -> None:
    decoder, executor = scaled()
    storage = decoder.weight.data_ptr()
    moved(decoder)
    assert [each.data_ptr() for each in executor._weights.held] == [storage]
    executor.update(lambda: None)
    assert_identical(executor.run(batch(2)), batch(2).hidden_states * 3)
    assert [each.data_ptr() for each in executor._weights.held] == [decoder.weight.data_ptr()]


def test_an_update_of_shapes_that_were_recorded_on_demand_keeps_them_evictable() -> None:
    decoder = Scaled()
    one = made(Scaled(), SHAPE, row_buckets=(2,)).stats().nbytes
    executor = made(decoder, SHAPE, row_buckets=(2,), on_demand=True, max_bytes=round(4.5 * one))
    executor.run(LONGER.example(2, CPU))
    executor.update(lambda: moved(decoder))
    assert executor.stats().graphs == 2
    longest = replace(SHAPE, frames=25)
    executor.run(longest.example(2, CPU))
    assert set(executor._prepared.shapes) == {SHAPE, longest}


def test_a_decoder_that_is_no_module_is_recorded_anew_at_every_update() -> None:
    executor = made(None, SHAPE, row_buckets=(2,))
    executor.update(lambda: None)
    assert executor.stats().recorded == 2


# The end.


class Lost(HostRecorder):
    def __init__(self) -> None:
        super().__init__()
        self.why: str | None = None

    def lost(self) -> str | None:
        return self.why


def test_after_a_sticky_error_every_run_names_the_first_one_and_the_executor_can_be_closed() -> None:
    class Broken(LoggedStream):
        broken = False

        def launch(self, work: Callable[[], None]) -> None:
            if self.broken:
                raise RuntimeError("CUDA error: whatever comes later")
            super().launch(work)

        def wait(self) -> None:
            if self.broken:
                raise RuntimeError("CUDA error: whatever comes later")
            super().wait()

    executor = made(None, SHAPE)
    executor.stream = stream = Broken()
    executor._recorder = recorder = Lost()
    executor.run(batch(2))
    stream.broken = True
    with pytest.raises(RuntimeError, match="whatever comes later") as raised:
        executor.run(batch(2))
    assert not isinstance(raised.value, ExecutorError), "the GPU still works"
    recorder.why = "CUDA error: an illegal memory access was encountered"
    for _ in range(2):
        with pytest.raises(ExecutorError, match="the GPU is lost.*an illegal memory access"):
            executor.run(batch(2))
        recorder.why = "another one"
    with pytest.raises(ExecutorError, match="an illegal memory access"):
        executor.update(lambda: None)
    assert executor.stats().replays is None and executor.stats().graphs == 4
    executor.close()
    assert executor.stats().graphs == 0


def test_a_closed_executor_refuses_everything_frees_everything_and_can_be_closed_again() -> None:
    executor = made(None, SHAPE)
    executor.run(batch(2))
    buffers = [weakref.ref(each.output) for each in executor._prepared.runs]
    executor.close()
    executor.close()
    for refused in (
        lambda: executor.run(batch(2)),
        lambda: executor.prepare([SHAPE]),
        lambda: executor.update(lambda: None),
    ):
        with pytest.raises(PipelineClosed, match="the executor is closed"):
            refused()
    gc.collect()
    assert [each() for each in buffers] == [None] * 4
    stats = executor.stats()
    assert (stats.graphs, stats.nbytes, stats.runs, stats.replays, stats.copied) == (0, 0, 1, 1, 5)


# The decoder alone.


def test_bare_runs_launch_what_the_batches_recorded_and_count_as_runs() -> None:
    executor, one, two = made(None, SHAPE), batch(3), batch(1)
    launch = executor.bare([one, two])
    assert (executor.stats().runs, executor.stats().replays, executor.stats().copied) == (2, 2, 10)
    recorded = [executor._for(each) for each in (one, two)]
    for each in recorded:
        each.output.zero_()
    launch(3)
    assert (executor.stats().runs, executor.stats().replays) == (8, 8)
    assert (executor.stats().copied, executor.stats().kept) == (10, 0), "nothing is copied again"
    for each, given in zip(recorded, (one, two), strict=True):
        expected = EagerExecutor(AffineDecoder(), pin_rows=bucket(given.rows)).run(given)
        assert_identical(each.output[: given.rows], expected)


def test_bare_runs_are_launched_together_and_joined_once() -> None:
    executor = made(None, SHAPE)
    executor.stream = stream = LoggedStream()
    given = batch(2)
    launch = executor.bare([given])
    stream.join()
    stream.log.clear()
    velocity = executor._for(given).output.zero_()
    launch(4)
    assert (stream.log, stream.pending) == (["launch", "join"], 0)
    assert_identical(velocity, EagerExecutor(AffineDecoder()).run(given))
    assert (executor.stats().runs, executor.stats().replays) == (5, 5)


def test_bare_runs_of_a_closed_executor_are_refused_and_no_round_launches_nothing() -> None:
    executor = made(None, SHAPE)
    launch = executor.bare([batch(2)])
    launch(0)
    assert executor.stats().runs == executor.stats().replays == 1
    executor.close()
    with pytest.raises(PipelineClosed, match="the executor is closed"):
        launch(1)
    assert executor.stats().runs == 1
