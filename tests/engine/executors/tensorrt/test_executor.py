"""The TensorRT executor on a machine that has none: order, shapes, addresses, failures, streams, swap, close."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import BatchTooLarge, ExecutorError, InvalidInput, PipelineClosed
from harness.engine.errors import EngineError, OutsideProfile, PlanMismatch
from harness.engine.executors import Batch, Executor, StaticExecutor, TensorRTExecutor
from harness.engine.executors.stream import run_to_end
from harness.engine.executors.tensorrt.buffers import ALIGNMENT
from harness.parity.compare import assert_identical, identical
from tests.engine.executors.tensorrt.fake_tensorrt import HANDLE, FakeRuntime, Made, TapeStream, plan, tiny
from tests.engine.executors.tensorrt.test_context import BINDING, INPUTS
from tests.engine.executors.test_eager import batch
from tests.engine.executors.test_static import longer

BUFFERS = ["allocate"] * 6
FIRST_RUN = ["wait", "launch", "wait", *BUFFERS, "launch", "wait", *BINDING, "execute_async_v3"]
"""A new shape: what runs is waited for, buffers are made on the own stream, and then the run, which the test awaits."""


@pytest.fixture(name="runtime")
def _runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture(name="make")
def _make(tmp_path: Path, runtime: FakeRuntime) -> Callable[..., TensorRTExecutor]:
    made_before: list[TensorRTExecutor] = []

    def make(made: Made | None = None, **options: Any) -> TensorRTExecutor:
        executor = TensorRTExecutor(plan(tmp_path, made), **{"runtime": runtime, **options})
        # Kept, or its end would be on the tape as well.
        made_before.append(executor)
        runtime.tape.clear()
        return executor

    return make


Make = Callable[..., TensorRTExecutor]


def cut(given: Batch, frames: int) -> Batch:
    tensors = given.tensors()
    for name in ("hidden_states", "context_latents"):
        tensors[name] = tensors[name][:, :frames]
    return Batch(**tensors)


def expected(given: Batch) -> Tensor:
    return StaticExecutor(tiny()).run(given)


# What it is.


def test_it_is_an_executor_of_what_its_engine_takes(make: Make) -> None:
    executor = make(Made(rows=(1, 2, 6)))
    assert isinstance(executor, Executor)
    assert (executor.max_rows, executor.takes_mask, executor.shapes) == (6, True, 0)
    assert executor.sidecar.verbosity == "detailed"
    assert executor.signature.channels == 8


def test_importing_executors_brings_no_tensorrt() -> None:
    import harness.engine.executors as package  # noqa: PLC0415 - what is asked is what the import gives

    assert package.TensorRTExecutor is TensorRTExecutor
    with pytest.raises(AttributeError, match="no attribute 'TensorFlowExecutor'"):
        _ = package.TensorFlowExecutor


@pytest.mark.parametrize(("asked", "most"), [(None, 3), (2, 2), (8, 3)])
def test_the_ceiling_is_the_smallest_maximum_of_any_input(make: Make, asked: int | None, most: int) -> None:
    executor = make(Made(most_rows={"encoder_mask": 3}), max_rows=asked)
    assert executor.max_rows == most
    run_to_end(executor, batch(most))
    with pytest.raises(BatchTooLarge, match=f"{most + 1} rows"):
        executor.run(batch(most + 1))


@pytest.mark.parametrize("options", [{"max_rows": 0}, {"pin_rows": 9}, {"max_shapes": 0}])
def test_numbers_are_checked(make: Make, options: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        make(**options)


def test_the_default_stream_is_refused(make: Make) -> None:
    with pytest.raises(ExecutorError, match="stream 0 is CUDA's default stream"):
        make(runtime=FakeRuntime(stream=lambda tape: TapeStream(tape, handle=0)))


# Runs.


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_run_has_the_bits_of_the_decoder(make: Make, rows: int) -> None:
    assert_identical(run_to_end(make(), batch(rows)), expected(batch(rows)))


def test_a_shape_s_first_run_binds_it_and_later_ones_only_launch(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    run_to_end(executor, batch(3))
    assert runtime.calls() == FIRST_RUN
    run_to_end(executor, batch(3))
    assert runtime.calls() == ["launch", "wait", "execute_async_v3"]


def test_shapes_come_back_to_the_buffers_that_they_had(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    made = {rows: run_to_end(executor, batch(rows)).data_ptr() for rows in (2, 3)}
    runtime.tape.clear()
    assert run_to_end(executor, batch(2)).data_ptr() == made[2]
    assert runtime.calls() == ["launch", "wait", *BINDING, "execute_async_v3"]
    assert executor.shapes == 2


def test_what_is_bound_are_aligned_buffers_of_the_run_s_shape(make: Make, runtime: FakeRuntime) -> None:
    out = run_to_end(make(), batch(3))
    given = batch(3).tensors()
    shapes = {entry[1]: entry[2] for entry in runtime.tape if entry[0] == "set_input_shape"}
    assert shapes == {name: tuple(given[name].shape) for name in INPUTS}
    addresses = {entry[1]: entry[2] for entry in runtime.tape if entry[0] == "set_tensor_address"}
    assert addresses.keys() == {*INPUTS, "velocity"}
    assert len(set(addresses.values())) == 6
    assert {address % ALIGNMENT for address in addresses.values()} == {0}
    assert addresses["velocity"] == out.data_ptr()
    assert runtime.tape[-1] == ("execute_async_v3", HANDLE)


def test_what_is_returned_is_a_view_of_a_buffer_that_the_next_run_overwrites(make: Make) -> None:
    executor = make()
    first = run_to_end(executor, batch(2))
    flipped = Batch(**{name: tensor.flip(0) for name, tensor in batch(2).tensors().items()})
    second = run_to_end(executor, flipped)
    assert first.data_ptr() == second.data_ptr()
    assert_identical(first, second)
    assert not identical(first, expected(batch(2)))


def test_inputs_are_never_written_to(make: Make) -> None:
    given = batch(3)
    copies = {name: tensor.clone() for name, tensor in given.tensors().items()}
    run_to_end(make(pin_rows=5), given)
    assert_identical(given.tensors(), copies)


@pytest.mark.parametrize("frames", [9, 1, 3])
def test_an_odd_number_of_frames_runs_with_a_zero_frame_that_is_cut_again(
    make: Make, runtime: FakeRuntime, frames: int
) -> None:
    given = cut(batch(3), frames)
    out = run_to_end(make(), given)
    assert out.shape == (3, frames, 8)
    assert_identical(out, expected(given))
    assert ("set_input_shape", "hidden_states", (3, frames + 1, 8)) in runtime.tape


def test_an_odd_run_after_an_even_one_of_its_buffers_sees_no_frame_of_it(make: Make) -> None:
    executor = make()
    run_to_end(executor, batch(3))
    assert_identical(run_to_end(executor, cut(batch(3), 9)), expected(cut(batch(3), 9)))
    assert executor.shapes == 1


def test_each_tensor_has_the_engine_s_dtype(make: Make, runtime: FakeRuntime) -> None:
    half = {n: "HALF" for n in ("hidden_states", "encoder_hidden_states", "context_latents", "velocity")}
    out = run_to_end(make(Made(dtypes=half)), batch(3))
    given = batch(3).tensors()
    seen = {n: t.half().float() if n in half else t for n, t in given.items()}
    assert_identical(out, tiny()(**seen).detach().half())
    kinds = [entry[2] for entry in runtime.tape if entry[0] == "allocate"]
    assert kinds == [torch.float16, torch.float32, torch.float16, torch.float16, torch.bool, torch.float16]


def test_bfloat16_buffers_are_bfloat16(make: Make) -> None:
    made = Made(dtypes=dict.fromkeys([*INPUTS[:-1], "velocity"], "BF16"))
    seen = {n: t if t.dtype is torch.bool else t.bfloat16().float() for n, t in batch(2).tensors().items()}
    assert_identical(run_to_end(make(made), batch(2)), tiny()(**seen).detach().bfloat16())


def test_an_engine_without_a_mask_is_given_none(make: Make, runtime: FakeRuntime) -> None:
    executor = make(Made(masked=False))
    assert not executor.takes_mask
    out = run_to_end(executor, batch(3))
    assert "encoder_mask" not in [entry[1] for entry in runtime.tape if len(entry) > 1]
    assert_identical(out, expected(batch(3)))


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_pinned_rows_run_always_and_a_row_s_bits_do_not_depend_on_their_number(
    make: Make, runtime: FakeRuntime, rows: int
) -> None:
    executor = make(pin_rows=4)
    out = run_to_end(executor, batch(rows))
    assert ("set_input_shape", "timestep", (4,)) in runtime.tape
    assert_identical(out, StaticExecutor(tiny(), pin_rows=4).run(batch(rows)))
    assert_identical(out[:1], run_to_end(make(pin_rows=4), batch(1)))
    assert executor.max_rows == 4


def test_an_engine_of_a_fixed_batch_always_runs_it(make: Make, runtime: FakeRuntime) -> None:
    executor = make(Made(rows=(4, 4, 4), static=True))
    assert executor.max_rows == 4
    for rows in (1, 4):
        assert_identical(run_to_end(executor, batch(rows)), StaticExecutor(tiny(), pin_rows=4).run(batch(rows)))
    assert executor.shapes == 1
    with pytest.raises(BatchTooLarge, match="5 rows"):
        executor.run(batch(5))


def test_fewer_rows_than_the_engine_takes_are_refused_where_none_are_pinned(make: Make) -> None:
    made = Made(rows=(2, 4, 8))
    with pytest.raises(OutsideProfile, match="rows: got 1, the compiled decoder takes 2 to 8"):
        make(made).run(batch(1))
    assert run_to_end(make(made, pin_rows=2), batch(1)).shape[0] == 1


def test_buffers_made_in_inference_mode_serve_outside_it(make: Make) -> None:
    executor = make()
    with torch.inference_mode():
        run_to_end(executor, batch(2))
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


# What is refused.


def with_tokens(given: Batch, tokens: int) -> Batch:
    states = torch.zeros(given.rows, tokens, 32)
    mask = torch.ones(given.rows, tokens, dtype=torch.bool)
    return Batch(**{**given.tensors(), "encoder_hidden_states": states, "encoder_mask": mask})


def wider(name: str) -> Batch:
    tensor = batch(2).tensors()[name]
    return Batch(**{**batch(2).tensors(), name: torch.cat([tensor, tensor], dim=2)})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (cut(batch(2), 3), "frames T: got 4, the compiled decoder takes 6 to 12"),
        (longer(2), "frames T: got 20, the compiled decoder takes 6 to 12"),
        (with_tokens(batch(2), 65), "tokens L: got 65, the compiled decoder takes 1 to 64"),
        (wider("hidden_states"), "channels D: got 16, the compiled decoder takes 8"),
        (wider("context_latents"), "context channels: got 32, the compiled decoder takes 16"),
        (wider("encoder_hidden_states"), "encoder width E: got 64, the compiled decoder takes 32"),
    ],
    ids=["few-frames", "many-frames", "tokens", "channels", "context", "encoder-width"],
)
def test_what_the_engine_was_not_made_for_is_refused_before_anything_is_allocated(
    make: Make, runtime: FakeRuntime, given: Batch, says: str
) -> None:
    executor = make(Made(frames=(6, 10, 12)))
    with pytest.raises(OutsideProfile, match=says):
        executor.run(given)
    assert (runtime.tape, executor.shapes) == ([], 0)
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


def test_more_rows_than_the_ceiling_are_refused_before_anything_is_allocated(make: Make, runtime: FakeRuntime) -> None:
    executor = make(Made(rows=(1, 2, 4)))
    with pytest.raises(BatchTooLarge, match="5 rows: the compiled decoder takes at most 4"):
        executor.run(batch(5))
    assert (runtime.tape, executor.shapes) == ([], 0)


def test_a_batch_on_another_device_is_refused(make: Make, runtime: FakeRuntime) -> None:
    elsewhere = Batch(**{name: tensor.to("meta") for name, tensor in batch(2).tensors().items()})
    with pytest.raises(ExecutorError, match="hidden_states is on meta, the plan on cpu"):
        make().run(elsewhere)
    assert runtime.tape == []


@pytest.mark.parametrize("name", batch(1).tensors())
def test_each_tensor_is_checked_for_its_device(make: Make, runtime: FakeRuntime, name: str) -> None:
    given = batch(2).tensors()
    with pytest.raises(ExecutorError, match=f"^{name} is on meta, the plan on cpu"):
        make().run(Batch(**{**given, name: given[name].to("meta")}))
    assert runtime.tape == []


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "infer_shapes", "execute_async_v3"])
@pytest.mark.parametrize("error", [False, True])
def test_a_call_that_is_refused_is_named_and_the_next_run_is_a_good_one(
    make: Make, runtime: FakeRuntime, call: str, error: bool
) -> None:
    executor = make()
    run_to_end(executor, batch(3))
    refused = ["timestep"] if call == "infer_shapes" else False
    runtime.broken[call] = RuntimeError("no") if error else refused
    for _ in range(2):
        with pytest.raises(ExecutorError, match=call):
            run_to_end(executor, batch(2))
    runtime.broken.clear()
    runtime.tape.clear()
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))
    assert runtime.calls() == ["launch", "wait", *BINDING, "execute_async_v3"]
    assert_identical(run_to_end(executor, batch(3)), expected(batch(3)))


def test_nothing_is_copied_into_buffers_that_could_not_be_bound(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    run_to_end(executor, batch(3))
    before = {name: t.clone() for name, t in executor._kept.get((3, 10, 6)).inputs.items()}  # type: ignore[union-attr]
    run_to_end(executor, batch(2))
    runtime.broken["set_tensor_address"] = False
    with pytest.raises(ExecutorError):
        run_to_end(executor, Batch(**{name: t.flip(0) for name, t in batch(3).tensors().items()}))
    assert_identical(dict(executor._kept.get((3, 10, 6)).inputs), before)  # type: ignore[union-attr]


def test_an_allocation_that_fails_leaves_an_executor_that_works(make: Make, runtime: FakeRuntime) -> None:
    executor = make(max_shapes=1)
    run_to_end(executor, batch(2))
    allocate, runtime.allocate = runtime.allocate, out_of_memory  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        executor.run(batch(3))
    runtime.allocate = allocate  # type: ignore[method-assign]
    assert executor.shapes == 0
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


@pytest.mark.parametrize("at", [1, 4, 6])
def test_where_memory_is_out_once_the_buffers_of_other_shapes_are_freed_and_the_run_is_made(
    make: Make, runtime: FakeRuntime, at: int
) -> None:
    executor = make(max_shapes=4)
    for rows in (1, 2):
        run_to_end(executor, batch(rows))
    allocate, living = runtime.allocate, []

    def short(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        living.append(runtime.memory.living())
        return out_of_memory(shape, dtype) if len(living) == at else allocate(shape, dtype)

    runtime.allocate = short  # type: ignore[method-assign]
    assert_identical(run_to_end(executor, batch(3)), expected(batch(3)))
    assert living == [*range(12, 12 + at), *range(6)]
    assert executor.shapes == 1


def out_of_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    raise MemoryError("out of memory")


# Streams and buffers.


def test_a_run_is_computed_no_sooner_than_it_is_joined(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    run_to_end(executor, batch(2)).zero_()
    out = executor.run(batch(2))
    assert not out.any()
    executor.stream.join()
    assert_identical(out, expected(batch(2)))


@pytest.mark.parametrize("max_shapes", [8, 1], ids=["new shape", "eviction"])
def test_buffers_are_made_and_freed_only_when_no_run_uses_them(
    make: Make, runtime: FakeRuntime, max_shapes: int
) -> None:
    executor = make(max_shapes=max_shapes)
    kept = executor.run(batch(2))
    runtime.tape.clear()
    executor.run(batch(3))
    ran = [*BINDING, "execute_async_v3"]
    assert runtime.calls() == ["wait", *ran, "launch", "wait", *BUFFERS, "launch"]
    assert_identical(kept, expected(batch(2)))


def test_the_shape_used_longest_ago_loses_its_buffers(make: Make, runtime: FakeRuntime) -> None:
    executor = make(max_shapes=2)
    kept = run_to_end(executor, batch(1)).data_ptr()
    for rows in (2, 1, 3):
        run_to_end(executor, batch(rows))
    assert (executor.shapes, runtime.memory.living()) == (2, 12)
    assert run_to_end(executor, batch(1)).data_ptr() == kept
    run_to_end(executor, batch(2))
    assert runtime.memory.living() == 12


def test_evicted_buffers_are_gone_before_others_are_made(make: Make, runtime: FakeRuntime) -> None:
    executor = make(max_shapes=1)
    run_to_end(executor, batch(2))
    living: list[int] = []
    allocate = runtime.allocate

    def watched(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        living.append(runtime.memory.living())
        return allocate(shape, dtype)

    runtime.allocate = watched  # type: ignore[method-assign]
    run_to_end(executor, batch(3))
    assert living == [0, 1, 2, 3, 4, 5]


def test_rows_frames_and_tokens_each_have_buffers_of_their_own(make: Make) -> None:
    executor = make()
    for given in (batch(2), batch(3), longer(2), with_tokens(batch(2), 7)):
        assert_identical(run_to_end(executor, given), expected(given))
    assert executor.shapes == 4


def test_two_launched_runs_of_two_shapes_are_each_bound_when_they_begin(make: Make) -> None:
    executor = make()
    outs = {rows: run_to_end(executor, batch(rows)).zero_() for rows in (2, 3)}
    for rows in (2, 3):
        executor.run(batch(rows))
    executor.stream.join()
    for rows, out in outs.items():
        assert_identical(out, expected(batch(rows)))


def test_a_batch_is_kept_until_the_next_run_may_no_longer_read_it(make: Make) -> None:
    """On a GPU the engine reads it after the host has gone on, and memory that is let go is given out again."""
    executor = make()
    given = batch(2)
    alive = weakref.ref(given)
    run_to_end(executor, given)
    del given
    assert alive() is not None
    run_to_end(executor, batch(2))
    assert alive() is None


# Swap.


def test_a_swapped_engine_runs_from_the_next_run_on(make: Make, runtime: FakeRuntime, tmp_path: Path) -> None:
    executor = make(Made(rows=(1, 2, 4)))
    run_to_end(executor, batch(2))
    executor.swap(plan(tmp_path, Made(rows=(1, 2, 6)), "other.plan", verbosity="none"))
    assert (executor.max_rows, executor.sidecar.verbosity, executor.shapes) == (6, "none", 0)
    assert executor.signature.rows.high == 6
    runtime.tape.clear()
    assert_identical(run_to_end(executor, batch(6)), expected(batch(6)))
    assert runtime.calls() == FIRST_RUN


def test_the_new_engine_is_whole_before_the_old_one_goes(make: Make, runtime: FakeRuntime, tmp_path: Path) -> None:
    executor = make()
    kept = executor.run(batch(2))
    runtime.tape.clear()
    executor.swap(plan(tmp_path, Made(), "other.plan"))
    assert runtime.calls() == [
        "engine", "launch", "wait", *BINDING, "execute_async_v3", "context freed", "engine freed"
    ]  # fmt: skip
    assert_identical(kept, expected(batch(2)))
    assert runtime.memory.living() == 0


def test_the_new_engine_keeps_the_rows_that_the_executor_was_asked_for(make: Make, tmp_path: Path) -> None:
    executor = make(Made(rows=(1, 2, 4)), max_rows=3, pin_rows=2)
    executor.swap(plan(tmp_path, Made(), "other.plan"))
    assert executor.max_rows == 2
    assert run_to_end(executor, batch(1)).shape[0] == 1


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Made(rows=(1, 4, 7)), "plan: got a plan of at most 7 rows, expected at least 8"),
        (Made(most_rows={"timestep": 2}), "a plan of at most 2 rows"),
        (Made(rows=(2, 4, 8)), "plan: got a plan of at least 2 rows, expected at most 1, as before"),
        (Made(masked=False), "a plan whose takes_mask is False"),
        (Made(channels=4), "a plan whose channels is 4"),
        (Made(encoder_dim=64), "a plan whose encoder_dim is 64"),
    ],
    ids=["rows", "rows-of-one-input", "least-rows", "mask", "channels", "encoder-width"],
)
def test_an_engine_that_pipelines_were_not_made_for_is_not_swapped_in(
    make: Make, runtime: FakeRuntime, tmp_path: Path, made: Made, says: str
) -> None:
    executor = make()
    run_to_end(executor, batch(2))
    with pytest.raises(InvalidInput, match=says):
        executor.swap(plan(tmp_path, made, "other.plan"))
    still_good(executor, runtime)


def still_good(executor: TensorRTExecutor, runtime: FakeRuntime) -> None:
    """It is as before: the shape that it had is bound, and launched at once."""
    runtime.tape.clear()
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))
    assert runtime.calls() == ["launch", "wait", "execute_async_v3"]
    assert (executor.max_rows, executor.takes_mask, executor.shapes) == (8, True, 1)


def test_a_swap_that_fails_leaves_the_old_engine(make: Make, runtime: FakeRuntime, tmp_path: Path) -> None:
    executor = make()
    run_to_end(executor, batch(2))
    other = plan(tmp_path, Made(), "other.plan", gpu="NVIDIA T4")
    with pytest.raises(PlanMismatch, match="gpu"):
        executor.swap(other)
    other = plan(tmp_path, Made(), "other.plan")
    for call, answer in (("engine", EngineError("no")), ("create_execution_context", None)):
        runtime.broken[call] = answer
        with pytest.raises(EngineError):
            executor.swap(other)
        runtime.broken.clear()
    still_good(executor, runtime)


def test_a_swap_that_cannot_wait_for_the_last_run_leaves_the_old_engine(
    tmp_path: Path, make: Make, runtime: FakeRuntime
) -> None:
    executor = make()
    run_to_end(executor, batch(2))
    runtime.broken["execute_async_v3"] = False
    executor.run(batch(2))
    with pytest.raises(ExecutorError):
        executor.swap(plan(tmp_path, Made(), "other.plan"))
    runtime.broken.clear()
    executor.stream.wait()
    assert (executor.max_rows, executor.shapes) == (8, 1)
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


# Close.


def test_closing_waits_and_then_frees_buffers_context_and_engine(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    executor.run(batch(2))
    runtime.tape.clear()
    watched(executor, runtime)
    executor.close()
    ran = [*BINDING, "execute_async_v3"]
    assert runtime.calls() == ["launch", "wait", *ran, "buffers freed", "context freed", "engine freed"]
    assert runtime.memory.living() == 0


def watched(executor: TensorRTExecutor, runtime: FakeRuntime) -> None:
    """Write down when the buffers go."""
    clear = executor._kept.clear

    def cleared() -> None:
        clear()
        runtime.tape.append(("buffers freed",))

    executor._kept.clear = cleared  # type: ignore[method-assign]


def test_closing_twice_is_fine_and_everything_else_is_refused_after(
    make: Make, runtime: FakeRuntime, tmp_path: Path
) -> None:
    executor = make()
    executor.close()
    runtime.tape.clear()
    executor.close()
    assert runtime.tape == []
    with pytest.raises(PipelineClosed):
        executor.run(batch(1))
    with pytest.raises(PipelineClosed):
        executor.swap(plan(tmp_path))
    with pytest.raises(PipelineClosed), executor.profiling(lambda name, milliseconds: None):
        pass
    assert runtime.tape == []


def test_a_close_that_fails_still_closes(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    runtime.broken["execute_async_v3"] = RuntimeError("no")
    executor.run(batch(2))
    with pytest.raises(ExecutorError):
        executor.close()
    runtime.broken.clear()
    gc.collect()  # the error's traceback
    assert (executor.shapes, runtime.memory.living()) == (0, 0)
    with pytest.raises(PipelineClosed):
        executor.run(batch(2))


# Profiling.


def test_a_profiled_run_tells_every_layer_once_it_is_done(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    run_to_end(executor, batch(2))
    told: list[tuple[str, float]] = []
    runtime.tape.clear()
    with executor.profiling(lambda name, milliseconds: told.append((name, milliseconds))):
        assert runtime.calls() == ["wait", "enqueue_emits_profile", "profiler"]
        for _ in range(2):
            out = executor.run(batch(2))
            assert runtime.calls() == ["launch", "wait", "execute_async_v3", "report_to_profiler"]
        assert_identical(out, expected(batch(2)))
    assert runtime.tape == [("wait",), ("enqueue_emits_profile", True), ("profiler", False)]
    assert told == [("gemm", 1.5), ("kgen", 0.25)] * 2
    executor.run(batch(2))
    assert len(told) == 4


def test_profiling_never_makes_the_engine_wait_at_its_launch(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    with executor.profiling(lambda name, milliseconds: None):
        assert runtime.tape[-2:] == [("enqueue_emits_profile", False), ("profiler", True)]


def test_what_a_listener_raises_is_raised_by_the_run_and_the_executor_goes_on(make: Make, runtime: FakeRuntime) -> None:
    executor = make()

    def listener(name: str, milliseconds: float) -> None:
        raise ValueError(name)

    with pytest.raises(ValueError, match="gemm"), executor.profiling(listener):
        executor.run(batch(2))
    assert runtime.tape[-2:] == [("enqueue_emits_profile", True), ("profiler", False)]
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


def test_a_report_that_is_refused_is_an_error(make: Make, runtime: FakeRuntime) -> None:
    executor = make()
    runtime.broken["report_to_profiler"] = False
    with (
        pytest.raises(ExecutorError, match="report_to_profiler"),
        executor.profiling(lambda name, milliseconds: None),
    ):
        executor.run(batch(2))
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))


def test_a_plan_without_layer_names_runs_and_is_not_profiled(tmp_path: Path, runtime: FakeRuntime) -> None:
    executor = TensorRTExecutor(plan(tmp_path, verbosity="none"), runtime=runtime)
    assert_identical(run_to_end(executor, batch(2)), expected(batch(2)))
    with pytest.raises(EngineError, match="verbosity none"), executor.profiling(lambda name, milliseconds: None):
        pass


def test_while_it_is_profiled_an_engine_is_neither_swapped_nor_profiled_again(make: Make, tmp_path: Path) -> None:
    executor = make()
    with executor.profiling(lambda name, milliseconds: None):
        with pytest.raises(ExecutorError, match="profiled"):
            executor.swap(plan(tmp_path))
        with pytest.raises(ExecutorError, match="already"), executor.profiling(lambda name, milliseconds: None):
            pass
        run_to_end(executor, batch(1))
    executor.swap(plan(tmp_path))


def test_an_executor_can_be_closed_while_it_is_profiled(make: Make) -> None:
    executor = make()
    with executor.profiling(lambda name, milliseconds: None):
        executor.close()
