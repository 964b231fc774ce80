"""The order of a ring's ticks on a GPU, asked of a stand-in that keeps the book; tests/gpu asks a real one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.engine import pace as module
from harness.engine.pace import CudaPace, HostPace, pace

GPU = torch.device("cuda", 0)
TOLD: list[tuple[Any, ...]] = []
CAUGHT_UP: list[torch.device] = []


class Event:
    """Work is done up to `Event.done`, the number of events recorded so far that the GPU has passed."""

    recorded = 0
    done = 0

    def __init__(self) -> None:
        self.number = 0

    def record(self, stream: str) -> None:
        Event.recorded += 1
        self.number = Event.recorded
        TOLD.append(("record", stream, self.number))

    def query(self) -> bool:
        return self.number <= Event.done

    def synchronize(self) -> None:
        TOLD.append(("host waits", self.number))
        Event.done = max(Event.done, self.number)


class Stream(str):
    def wait_event(self, event: Event) -> None:
        TOLD.append(("waits", str(self), event.number))


class Held:
    is_cuda = True

    def record_stream(self, stream: Stream) -> None:
        TOLD.append(("held for", str(stream)))


class Gpu:
    """The stand-in's current stream."""

    def __init__(self) -> None:
        self.current = Stream("one")


@pytest.fixture(name="gpu")
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu()
    monkeypatch.setattr(module, "torch", SimpleNamespace(cuda=SimpleNamespace(Event=Event)))
    monkeypatch.setattr(module.transfer, "current_stream", lambda device: gpu.current)
    monkeypatch.setattr(module.transfer, "catch_up", lambda device: CAUGHT_UP.append(device))
    CAUGHT_UP.clear()
    Event.recorded = Event.done = 0
    TOLD.clear()
    yield gpu
    TOLD.clear()


def tick(paced: CudaPace, held: int = 0) -> list[tuple[Any, ...]]:
    TOLD.clear()
    paced.wait()
    paced.begin(lambda: [Held() for _ in range(held)])  # type: ignore[misc]
    begun = list(TOLD)
    paced.end()
    return begun


def test_the_host_paces_nothing_and_a_gpu_is_paced_as_far_as_asked() -> None:
    assert isinstance(pace(torch.device("cpu"), 2), HostPace)
    assert isinstance(pace(torch.device("meta"), 2), HostPace)
    made = pace(GPU, 5)
    assert isinstance(made, CudaPace)
    assert (made._ahead, made._device) == (5, GPU)


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_host_waits_for_the_tick_that_lies_so_far_back_and_for_no_later_one(gpu: Gpu, ahead: int) -> None:
    paced = CudaPace(GPU, ahead)
    told = [tick(paced) for _ in range(ahead + 4)]
    assert told == [[]] * ahead + [[("host waits", number)] for number in range(1, 5)]
    assert paced.waits == 4


def test_a_tick_that_is_done_is_not_waited_for_nor_counted(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 2)
    for _ in range(5):
        assert tick(paced) == []
        Event.done = Event.recorded
    assert paced.waits == 0


def test_on_one_stream_nothing_is_ordered_and_nothing_held(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 64)
    for _ in range(3):
        paced.mark(())
        assert tick(paced, held=2) == []


def test_a_tick_on_another_stream_waits_for_the_last_one_and_keeps_what_it_reads(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 64)
    tick(paced)
    tick(paced)
    gpu.current = Stream("two")
    assert tick(paced, held=2) == [("waits", "two", 2), ("held for", "two"), ("held for", "two")]
    assert tick(paced, held=2) == []
    gpu.current = Stream("one")
    assert tick(paced, held=1) == [("waits", "one", 4), ("held for", "one")]


def test_what_was_marked_on_other_streams_is_waited_for_once_each(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 64)
    for name in ("two", "three", "two", "one"):
        gpu.current = Stream(name)
        paced.mark(())
    assert tick(paced, held=1) == [("waits", "one", 3), ("waits", "one", 2), ("held for", "one")]
    assert tick(paced, held=1) == [], "it is waited for already"


def test_a_tick_that_failed_is_begun_again_with_everything_it_has_to_wait_for(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 1)
    tick(paced)
    gpu.current = Stream("two")
    paced.mark(())
    gpu.current = Stream("three")
    told = []
    for _ in range(2):
        TOLD.clear()
        paced.begin(lambda: [Held()])  # type: ignore[list-item]
        told.append([each for each in TOLD if each[0] != "host waits"])
    assert told[0] == told[1] == [("waits", "three", 2), ("waits", "three", 1), ("held for", "three")]


def test_what_is_marked_while_a_tick_runs_is_waited_for_by_the_next_one(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 64)
    for held in (False, True):
        paced.begin(lambda: [])
        gpu.current = Stream("two")
        paced.mark(())
        gpu.current = Stream("one")
        if held:
            paced.mark(())
        paced.end()
        number = Event.recorded - 1 - held
        assert tick(paced) == [("waits", "one", number)]
        assert tick(paced) == []


def test_an_event_is_recorded_after_the_tick_on_the_stream_that_ran_it(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 2)
    told = []
    for name in ("one", "two", "one", "two"):
        gpu.current = Stream(name)
        tick(paced)
        told.append(TOLD[-1])
    assert told == [("record", "one", 1), ("record", "two", 2), ("record", "one", 3), ("record", "two", 4)]


def test_what_a_mark_is_about_is_held_for_its_stream_if_it_is_on_a_gpu(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 2)
    gpu.current = Stream("two")
    on_the_host = Held()
    on_the_host.is_cuda = False
    paced.mark([Held(), on_the_host, Held()])  # type: ignore[list-item]
    assert TOLD == [("held for", "two")] * 2 + [("record", "two", 1)]


def test_every_tick_catches_up_with_what_was_launched_on_other_streams(gpu: Gpu) -> None:
    paced = CudaPace(GPU, 2)
    for _ in range(3):
        tick(paced)
    assert CAUGHT_UP == [GPU] * 3
