"""Every call of a context is checked, and nothing half-bound survives a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.engine.errors import ExecutorError
from harness.engine.executors.tensorrt.buffers import Buffers
from harness.engine.executors.tensorrt.context import Context, Profiled, _agreed
from harness.parity.compare import assert_identical
from tests.engine.executors.tensorrt.fake_tensorrt import HANDLE, FakeContext, FakeRuntime, Made, dims
from tests.engine.executors.test_eager import batch

INPUTS = ["hidden_states", "timestep", "encoder_hidden_states", "context_latents", "encoder_mask"]
BINDING = [*["set_input_shape"] * 5, *["set_tensor_address"] * 6, "infer_shapes", "get_tensor_shape"]
MADE = Made()


def buffers(runtime: FakeRuntime, rows: int = 3) -> Buffers:
    shapes = {"timestep": (rows,), "encoder_mask": (rows, 6), "encoder_hidden_states": (rows, 6, 32)}
    shapes |= {"hidden_states": (rows, 10, 8), "context_latents": (rows, 10, 16)}
    kinds = {name: batch(1).tensors()[name].dtype for name in INPUTS}
    made = {name: runtime.allocate(shapes[name], kinds[name]) for name in INPUTS}
    filled = Buffers(made, runtime.allocate((rows, 10, 8), kinds["timestep"]))
    filled.fill(batch(rows))
    runtime.tape.clear()
    return filled


@pytest.fixture(name="runtime")
def _runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture(name="context")
def _context(runtime: FakeRuntime) -> Iterator[Context]:
    yield Context(FakeContext(runtime, MADE))


def test_every_shape_is_set_and_then_every_address_of_a_live_buffer(runtime: FakeRuntime, context: Context) -> None:
    given = buffers(runtime)
    context.bind(given)
    shapes = [("set_input_shape", name, tuple(given.inputs[name].shape)) for name in INPUTS]
    addresses = [("set_tensor_address", name, given.inputs[name].data_ptr()) for name in INPUTS]
    output = ("set_tensor_address", "velocity", given.output.data_ptr())
    assert runtime.tape == [*shapes, *addresses, output, ("infer_shapes",), ("get_tensor_shape", "velocity")]


def test_what_is_bound_already_is_not_bound_again(runtime: FakeRuntime, context: Context) -> None:
    first, second = buffers(runtime), buffers(runtime)
    context.bind(first)
    assert runtime.calls() == BINDING
    context.bind(first)
    context.execute(HANDLE)
    context.bind(first)
    assert runtime.calls() == ["execute_async_v3"]
    context.bind(second)
    assert runtime.calls() == BINDING


def test_a_run_computes_what_the_decoder_does(runtime: FakeRuntime, context: Context) -> None:
    given = buffers(runtime)
    context.bind(given)
    context.execute(HANDLE)
    assert_identical(given.output, runtime.decoder(**batch(3).tensors()).detach())


@pytest.mark.parametrize(
    ("call", "answer", "says"),
    [
        ("set_input_shape", False, r"refused set_input_shape\('hidden_states', \(3, 10, 8\)\): .* returned False"),
        ("set_input_shape", RuntimeError("no"), r"set_input_shape\('hidden_states', .*\) raised RuntimeError\('no'\)"),
        ("set_tensor_address", False, r"refused set_tensor_address\('hidden_states', 0x[0-9a-f]+\)"),
        ("set_tensor_address", ValueError("no"), r"set_tensor_address\('hidden_states', .*\) raised ValueError"),
        ("infer_shapes", ["timestep", "encoder_mask"], r"infer_shapes\(\) needs more inputs: timestep, encoder_mask"),
        ("infer_shapes", RuntimeError("no"), r"infer_shapes\(\) raised RuntimeError"),
        ("get_tensor_shape", dims((3, 9, 8)), r"get_tensor_shape\('velocity'\) is \(3, 9, 8\), expected \(3, 10, 8\)"),
        ("get_tensor_shape", TypeError("no"), r"get_tensor_shape\('velocity'\) raised TypeError"),
        ("execute_async_v3", False, r"refused execute_async_v3\(0x51de\): the call returned False"),
        ("execute_async_v3", RuntimeError("no"), r"execute_async_v3\(0x51de\) raised RuntimeError"),
    ],
    ids=[f"{call}-{how}" for call in ("shape", "address", "infer", "output", "execute") for how in ("no", "raises")],
)  # fmt: skip
def test_what_it_refuses_is_named_and_the_next_run_binds_everything_anew(
    runtime: FakeRuntime, context: Context, call: str, answer: Any, says: str
) -> None:
    given = buffers(runtime)
    if call == "execute_async_v3":
        context.bind(given)
    runtime.broken[call] = answer
    with pytest.raises(ExecutorError, match=says):
        run(context, given)
    runtime.broken.clear()
    runtime.tape.clear()
    run(context, given)
    assert runtime.calls() == [*BINDING, "execute_async_v3"]
    assert_identical(given.output, runtime.decoder(**batch(3).tensors()).detach())


def run(context: Context, given: Buffers) -> None:
    context.bind(given)
    context.execute(HANDLE)


def test_a_failure_with_other_buffers_leaves_none_bound(runtime: FakeRuntime, context: Context) -> None:
    first, second = buffers(runtime), buffers(runtime)
    context.bind(first)
    runtime.broken["infer_shapes"] = ["timestep"]
    with pytest.raises(ExecutorError):
        context.bind(second)
    runtime.broken.clear()
    runtime.calls()
    context.bind(first)
    assert runtime.calls() == BINDING


def test_what_is_forgotten_is_bound_anew_and_not_kept_alive(runtime: FakeRuntime, context: Context) -> None:
    given = buffers(runtime)
    context.bind(given)
    context.forget()
    runtime.calls()
    context.bind(given)
    assert runtime.calls() == BINDING
    context.forget()
    del given
    assert runtime.memory.living() == 0


def test_profiling_reports_when_it_is_told_to_and_can_be_undone(runtime: FakeRuntime, context: Context) -> None:
    profiler = object()
    before = context.profiled(Profiled(profiler, emits=False))
    assert before == Profiled(None, emits=True)
    # Reporting by itself is off before there is a profiler to report to.
    assert runtime.tape == [("enqueue_emits_profile", False), ("profiler", True)]
    assert context.profiled(before) == Profiled(profiler, emits=False)


@pytest.mark.parametrize("answer", [False, RuntimeError("no")])
def test_a_report_that_is_refused_is_named(runtime: FakeRuntime, context: Context, answer: Any) -> None:
    runtime.broken["report_to_profiler"] = answer
    with pytest.raises(ExecutorError, match=r"report_to_profiler\(\)"):
        context.report()


@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes"])
def test_only_true_is_taken_for_agreement(answer: object) -> None:
    _agreed("a call", lambda: True)
    with pytest.raises(ExecutorError, match=f"refused a call: the call returned {answer}"):
        _agreed("a call", lambda: answer)


def test_a_profiler_that_is_refused_leaves_how_it_reports_as_it_was() -> None:
    class Refusing:
        enqueue_emits_profile = True

        @property
        def profiler(self) -> None:
            return None

        @profiler.setter
        def profiler(self, value: object) -> None:
            raise RuntimeError("no")

    refusing = Refusing()
    with pytest.raises(ExecutorError, match="profiler raised"):
        Context(refusing).profiled(Profiled(object(), emits=False))
    assert refusing.enqueue_emits_profile is True
