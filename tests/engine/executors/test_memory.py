"""Where memory is out, an executor frees its own buffers once, tries once more, and then says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import AffineDecoder
from harness.engine.errors import ExecutorError, RecordingFailed, WrongVelocity
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Shape, StaticExecutor
from harness.engine.executors.memory import is_out_of_memory, relieved
from harness.engine.executors.recorded import HostRecorder, Pool, Recording
from harness.parity.compare import assert_identical

CPU = torch.device("cpu")
SHAPE, LONGER = Shape(10, 6, 4, 8), Shape(20, 6, 4, 8)
OUT: list[BaseException] = [
    MemoryError("host"),
    torch.OutOfMemoryError("device"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


def batch(rows: int = 2, shape: Shape = SHAPE) -> Batch:
    return shape.example(rows, CPU)


class Short:
    """A decoder for which memory is out at the calls that have a number."""

    def __init__(self, error: BaseException, *at: int) -> None:
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, **inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls in self.at:
            raise self.error
        return AffineDecoder(8)(**inputs)


def expected(given: Batch) -> Tensor:
    return EagerExecutor(AffineDecoder(8)).run(given)


@pytest.mark.parametrize("error", OUT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_static_executor_frees_its_buffers_and_runs_again(error: BaseException, at: int) -> None:
    static = StaticExecutor(Short(error, at))
    for given in (batch(), batch(2, LONGER)):
        assert_identical(static.run(given).clone(), expected(given))
    # The buffers of the first shape are free where the second one found no memory.
    assert static.shapes == (1 if at >= 3 else 2)


def test_memory_that_is_out_twice_is_reported_and_the_next_run_is_whole() -> None:
    static = StaticExecutor(Short(MemoryError("host"), 2, 3))
    with pytest.raises(MemoryError, match="host"):
        static.run(batch())
    assert static.shapes == 0
    assert_identical(static.run(batch()).clone(), expected(batch()))


def test_any_other_error_is_reported_at_once() -> None:
    decoder = Short(RuntimeError("other"), 2)
    static = StaticExecutor(decoder)
    with pytest.raises(RuntimeError, match="other"):
        static.run(batch())
    assert (decoder.calls, static.shapes) == (2, 1)


def test_what_is_freed_is_freed_when_the_error_holds_nothing_any_more() -> None:
    seen: list[Any] = []

    def work() -> int:
        if not seen:
            raise MemoryError
        return 5

    assert relieved(work, lambda: seen.append(sys.exc_info()[0])) == 5
    assert seen == [None]


def test_an_error_is_told_by_what_caused_it() -> None:
    caused = RuntimeError("recording")
    caused.__cause__ = torch.OutOfMemoryError("device")
    assert is_out_of_memory(caused)
    assert not is_out_of_memory(RuntimeError("recording"))
    assert not is_out_of_memory(None)


def test_an_error_that_follows_one_of_memory_without_being_caused_by_it_is_another_error() -> None:
    frees: list[None] = []

    def work() -> None:
        try:
            raise torch.OutOfMemoryError("device")
        except torch.OutOfMemoryError:
            [][0]

    with pytest.raises(IndexError):
        relieved(work, lambda: frees.append(None))
    assert frees == []


def test_on_demand_a_recording_that_finds_no_memory_evicts_what_may_be_evicted_and_is_made_once_more() -> None:
    decoder = Short(torch.OutOfMemoryError("device"))
    executor = CudaGraphExecutor(decoder, device="cpu", on_demand=True)
    executor.run(batch())
    decoder.at = (decoder.calls + 1,)
    given = batch(2, LONGER)
    assert_identical(executor.run(given).clone(), expected(given))
    assert (executor.stats().graphs, executor.stats().evicted) == (1, 1)
    decoder.at = (decoder.calls + 1, decoder.calls + 2)
    with pytest.raises(RecordingFailed, match="device"):
        executor.run(batch())
    assert_identical(executor.run(batch()).clone(), expected(batch()))


@pytest.mark.parametrize("change", ["dtype", "rows"])
def test_one_wrong_velocity_at_the_learning_call_is_no_lesson_for_ever(change: str) -> None:
    calls: list[int] = []

    def decoder(**inputs: Tensor) -> Tensor:
        calls.append(1)
        out = inputs["hidden_states"] * 1
        if len(calls) > 1:
            return out
        return out.double() if change == "dtype" else out[:1]

    static, given = StaticExecutor(decoder), batch()
    with pytest.raises(WrongVelocity):
        static.run(given)
    for _ in range(2):
        assert_identical(static.run(given).clone(), given.hidden_states * 1)
    assert issubclass(WrongVelocity, ExecutorError)


def test_what_a_preparation_that_fails_has_recorded_is_freed() -> None:
    recordings: list[Recording] = []

    class Failing(HostRecorder):
        def record(self, call: Callable[[], None], pool: Pool) -> Recording:
            if len(recordings) == 3:
                raise RuntimeError("no more")
            recordings.append(super().record(call, pool))
            return recordings[-1]

    executor = CudaGraphExecutor(AffineDecoder(), row_buckets=(2, 4), device="cpu")
    executor._prepared._recorder = executor._recorder = Failing()
    with pytest.raises(RecordingFailed, match="no more"):
        executor.prepare([SHAPE, LONGER])
    for each in recordings:
        with pytest.raises(RuntimeError, match="freed"):
            each.replay()


def test_every_run_that_is_evicted_for_memory_is_counted() -> None:
    executor = CudaGraphExecutor(AffineDecoder(), row_buckets=(1, 2), device="cpu", on_demand=True)
    for rows in (1, 2):
        executor.run(batch(rows))
    assert executor.stats().graphs == 2
    executor._prepared.drop_evictable()
    assert (executor.stats().graphs, executor.stats().evicted) == (0, 2)
