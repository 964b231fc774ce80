"""The TensorRT executor where something ends or fails: what is let go, and what is as it was before."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engine import ExecutorError, InvalidInput, PipelineClosed
from harness.engine.executors import TensorRTExecutor
from harness.engine.executors.stream import run_to_end
from harness.engine.executors.tensorrt.executor import _check_swap
from harness.parity.compare import assert_identical
from tests.engine.executors.tensorrt.fake_tensorrt import FakeContext, FakeRuntime, Made, TapeStream, plan, tiny
from tests.engine.executors.test_eager import batch


@pytest.fixture(name="runtime")
def _runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture(name="executor")
def _executor(tmp_path: Path, runtime: FakeRuntime) -> TensorRTExecutor:
    return TensorRTExecutor(plan(tmp_path), runtime=runtime)


@pytest.mark.parametrize("end", ["swap", "close"])
def test_the_last_batch_is_let_go_with_the_plan_that_read_it(
    tmp_path: Path, executor: TensorRTExecutor, end: str
) -> None:
    given = batch(2)
    alive = [weakref.ref(tensor) for tensor in given.tensors().values()]
    run_to_end(executor, given)
    del given
    assert None not in [ref() for ref in alive]
    if end == "swap":
        executor.swap(plan(tmp_path, Made(), "other.plan"))
    else:
        executor.close()
    assert [ref() for ref in alive] == [None] * 5


@pytest.mark.parametrize("fact", ["takes_mask", "channels", "context_channels", "encoder_dim"])
def test_a_plan_that_differs_in_one_fact_alone_is_refused_by_it(executor: TensorRTExecutor, fact: str) -> None:
    old = executor._open()
    dtypes = {name: dtype for name, dtype in old.signature.dtypes.items() if name != "encoder_mask"}
    changed: dict[str, Any] = {"dtypes": dtypes} if fact == "takes_mask" else {fact: 99}
    new = replace(old, signature=replace(old.signature, **changed))
    _check_swap(old, replace(old))
    with pytest.raises(InvalidInput) as refused:
        _check_swap(old, new)
    was, is_now = getattr(old.signature, fact), getattr(new.signature, fact)
    assert str(refused.value) == f"plan: got a plan whose {fact} is {is_now}, expected {was}, as before"


def test_a_profiler_that_is_refused_leaves_an_executor_that_can_be_profiled_and_swapped(
    tmp_path: Path, executor: TensorRTExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_context: FakeContext, _profiler: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(FakeContext, "profiler", property(lambda context: context._profiler, refuse))
        with pytest.raises(ExecutorError, match="profiler raised"), executor.profiling(lambda name, ms: None):
            raise AssertionError("the block began")
    told: list[str] = []
    with executor.profiling(lambda name, ms: told.append(name)):
        executor.run(batch(2))
    assert told == ["gemm", "kgen"]
    executor.swap(plan(tmp_path, Made(), "other.plan"))


def test_a_block_whose_last_wait_fails_is_over_and_its_listener_gone(
    executor: TensorRTExecutor, runtime: FakeRuntime
) -> None:
    run_to_end(executor, batch(2))
    told: list[str] = []
    wait = executor.stream.wait

    def failing() -> None:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError), executor.profiling(lambda name, ms: told.append(name)):
        executor.stream.wait = failing  # type: ignore[method-assign]
    executor.stream.wait = wait  # type: ignore[method-assign]
    assert runtime.tape[-2:] == [("enqueue_emits_profile", True), ("profiler", False)]
    assert_identical(run_to_end(executor, batch(2)), tiny()(**batch(2).tensors()).detach())
    assert told == []
    with executor.profiling(lambda name, ms: told.append(name)):
        executor.run(batch(2))
    assert told == ["gemm", "kgen"]


def test_a_stream_that_does_not_wait_is_told_and_no_buffers_are_used(tmp_path: Path) -> None:
    class Careless(TapeStream):
        def wait(self) -> None:
            pass

    executor = TensorRTExecutor(plan(tmp_path), runtime=FakeRuntime(stream=Careless))
    with pytest.raises(ExecutorError, match=r"^stream.wait\(\) returned before the launched work was done$"):
        executor.run(batch(2))


def test_a_run_that_begins_after_the_end_is_refused_by_name(executor: TensorRTExecutor) -> None:
    run_to_end(executor, batch(2))
    executor.run(batch(2))
    executor._open().release()
    with pytest.raises(PipelineClosed, match="^the executor was closed before a launched run began$"):
        executor.stream.wait()
