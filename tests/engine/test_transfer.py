"""Copies between host and GPU: pinned blocks that are written to again only when their copies are done.

The GPU is a stand-in that keeps the book; tests/gpu asks a real one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import transfer
from harness.engine.transfer import SMALLEST, Block, Blocks, fetch, lent, read, to_device

GPU = torch.device("cuda", 0)


class Event:
    def __init__(self) -> None:
        self.done = False
        self.waited = 0

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waited += 1
        self.done = True


def block(size: int, device: torch.device) -> Block:
    return Block(torch.zeros(size, dtype=torch.uint8), Event(), device)


@pytest.fixture(name="blocks")
def _blocks() -> Blocks:
    return Blocks(block)


def test_a_block_has_the_next_power_of_two_of_bytes(blocks: Blocks) -> None:
    asked = [0, 1, SMALLEST - 1, SMALLEST, SMALLEST + 1, 4096, 4097]
    assert [blocks.take(n, GPU).memory.numel() for n in asked] == [SMALLEST] * 4 + [2 * SMALLEST, 4096, 8192]
    assert blocks.made == len(asked)


def test_a_block_whose_copy_is_in_flight_is_not_taken_again(blocks: Blocks) -> None:
    first = blocks.take(100, GPU)
    blocks.give(first)
    second = blocks.take(100, GPU)
    assert second is not first
    first.event.done = True
    assert blocks.take(100, GPU) is first
    assert blocks.made == 2


def test_any_block_that_is_done_is_taken_not_the_oldest_alone(blocks: Blocks) -> None:
    taken = [blocks.take(100, GPU) for _ in range(3)]
    for each in taken:
        blocks.give(each)
    taken[1].event.done = True
    assert blocks.take(100, GPU) is taken[1]
    assert blocks.take(100, GPU) not in taken


def test_a_block_that_is_taken_is_nobody_else_s_until_it_is_given_back(blocks: Blocks) -> None:
    held = blocks.take(100, GPU)
    held.event.done = True
    assert blocks.take(100, GPU) is not held


@pytest.mark.parametrize(("nbytes", "device"), [(SMALLEST + 1, GPU), (100, torch.device("cuda", 1))])
def test_a_block_serves_its_own_size_and_gpu(blocks: Blocks, nbytes: int, device: torch.device) -> None:
    held = blocks.take(100, GPU)
    held.event.done = True
    blocks.give(held)
    assert blocks.take(nbytes, device) is not held


@pytest.mark.parametrize("like", [torch.ones(3, 2), torch.ones(2, 3).T, torch.tensor(True), torch.ones(0, 4),
                                  torch.ones(5, dtype=torch.bfloat16)])  # fmt: skip
def test_a_block_holds_a_tensor_of_any_shape_and_dtype(blocks: Blocks, like: Tensor) -> None:
    view = blocks.take(like.nbytes, GPU).holding(like)
    assert (view.shape, view.dtype, view.is_contiguous()) == (like.shape, like.dtype, True)
    view.copy_(like)
    assert torch.equal(view, like)


def test_a_tensor_for_the_host_stays_where_it_is() -> None:
    host = torch.ones(2)
    assert to_device(host, torch.device("cpu")) is host


def test_a_tensor_for_another_device_goes_there() -> None:
    assert to_device(torch.ones(2), torch.device("meta")).is_meta


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_kernel_reads_what_is_lent_to_it_contiguous(device: str, stand_in: Blocks) -> None:
    host, seen = torch.arange(6).view(2, 3).T, []
    lent(host, torch.device(device, 0), seen.append)
    (read_by_kernel,) = seen
    assert torch.equal(read_by_kernel, host) and read_by_kernel.is_contiguous()
    assert (stand_in.made, read_by_kernel.data_ptr() == host.data_ptr()) == (int(device == "cuda"), False)


def test_the_block_of_what_is_lent_is_taken_again_only_when_the_kernel_is_done(stand_in: Blocks) -> None:
    in_flight: list[Tensor] = []
    for value in (1, 2):
        lent(torch.tensor([value]), GPU, in_flight.append)
    assert [each.item() for each in in_flight] == [1, 2]
    (block, *_) = stand_in._known[GPU, SMALLEST]
    block.event.done = True
    lent(torch.tensor([3]), GPU, in_flight.append)
    assert ([each.item() for each in in_flight], stand_in.made) == ([3, 2, 3], 2)


def test_the_event_of_what_is_lent_comes_behind_the_kernel_and_its_block_goes_back_last(
    stand_in: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[tuple[str, int]] = []

    def note(what: str) -> None:
        happened.append((what, len(stand_in._known[GPU, SMALLEST])))

    monkeypatch.setattr(Block, "mark", lambda _self: note("marked"))
    lent(torch.tensor([1]), GPU, lambda _table: note("launched"))
    note("returned")
    assert happened == [("launched", 0), ("marked", 0), ("returned", 1)]


def test_what_is_fetched_from_the_host_is_a_copy_that_is_there_at_once() -> None:
    values = torch.tensor([[1.5, -2.0]], requires_grad=True)
    fetched = fetch(values)
    with torch.no_grad():
        values.fill_(7.0)
    assert fetched.read() == fetched.read() == [[1.5, -2.0]]
    assert transfer.waits() == transfer.waits()


class OnGpu(Tensor):
    """A tensor that says that it is on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU


@pytest.fixture(name="stand_in")
def _stand_in(monkeypatch: pytest.MonkeyPatch, blocks: Blocks) -> Iterator[Blocks]:
    monkeypatch.setattr(transfer, "BLOCKS", blocks)
    monkeypatch.setattr(transfer, "_WAITS", transfer.Counter())
    monkeypatch.setattr(Block, "mark", lambda self: setattr(self.event, "done", False))
    yield blocks


def fetched_of(*values: float) -> transfer.Fetched:
    return fetch(torch.tensor(values).as_subclass(OnGpu))


def test_a_value_that_is_there_is_read_without_a_wait_and_its_block_goes_back(stand_in: Blocks) -> None:
    fetched = fetched_of(1.0, 2.0)
    held: Any = fetched._block
    assert stand_in.take(8, GPU) is not held
    held.event.done = True
    assert fetched.read() == [1.0, 2.0]
    assert (held.event.waited, transfer.waits(), fetched.waited) == (0, {"a new pinned block": 2}, False)
    assert stand_in.take(8, GPU) is held
    held.memory.fill_(255)
    assert fetched.read() == [1.0, 2.0]
    del fetched
    held.event.done = True
    assert stand_in.take(8, GPU) is not held, "it went back once"


def test_a_value_is_out_of_its_block_before_the_block_goes_back(
    stand_in: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may take the block at once, and write to it."""
    monkeypatch.setattr(stand_in, "give", lambda held: held.memory.fill_(255))
    fetched = fetched_of(1.0, 2.0)
    assert fetched.read() == fetched.read() == [1.0, 2.0]


def test_a_value_that_is_not_there_is_waited_for_and_counted(stand_in: Blocks) -> None:
    fetched = fetched_of(3.0)
    held: Any = fetched._block
    assert fetched.read() == fetched.read() == [3.0]
    assert transfer.waits() == {"a new pinned block": 1, "a value that was not there yet": 1}
    assert (held.event.waited, fetched.waited) == (1, True)
    assert stand_in.made == 1


def test_the_block_of_a_value_that_nobody_reads_goes_back_too(stand_in: Blocks) -> None:
    fetched = fetched_of(3.0)
    held: Any = fetched._block
    held.event.done = True
    del fetched
    gc.collect()
    assert stand_in.take(4, GPU) is held


def test_a_read_of_a_gpu_is_counted_under_its_cause_and_one_of_the_host_is_not(stand_in: Blocks) -> None:
    assert read(torch.tensor([1, 2]), "a mask") == [1, 2]
    assert transfer.waits() == {}
    assert read(torch.tensor([1, 2]).as_subclass(OnGpu), "a mask") == [1, 2]
    assert read(torch.tensor([3]).as_subclass(OnGpu), "a mask") == [3]
    counted = transfer.waits()
    assert counted == {"a mask": 2}
    read(torch.tensor([3]).as_subclass(OnGpu), "a curve")
    assert counted == {"a mask": 2}, "a copy"
    assert stand_in.made == 0


def test_the_garbage_collector_may_give_a_block_back_in_the_middle_of_a_take() -> None:
    class Collecting(Event):
        def query(self) -> bool:
            spare = Block(torch.zeros(SMALLEST, dtype=torch.uint8), Event(), GPU)
            blocks.give(spare)
            return super().query()

    blocks = Blocks(lambda size, device: Block(torch.zeros(size, dtype=torch.uint8), Collecting(), device))
    first = blocks.take(1, GPU)
    blocks.give(first)
    first.event.done = True
    assert blocks.take(1, GPU) is first


class Stream(str):
    def wait_event(self, event: Noted) -> None:
        TOLD.append((str(self), event.stream, event.number))


class Noted:
    numbers = 0

    def record(self, stream: Stream) -> None:
        Noted.numbers += 1
        self.stream, self.number = str(stream), Noted.numbers


TOLD: list[tuple[str, str, int]] = []


def test_a_stream_catches_up_with_the_last_launch_of_every_other_stream_of_its_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = {0: Stream("one"), 1: Stream("far")}
    cuda = SimpleNamespace(
        Event=Noted, current_stream=lambda device: current[device.index or 0], current_device=lambda: 0
    )
    monkeypatch.setattr(transfer, "torch", SimpleNamespace(cuda=cuda, device=torch.device))
    monkeypatch.setattr(transfer, "_LAUNCHED", {})
    monkeypatch.setattr(Noted, "numbers", 0)
    TOLD.clear()
    transfer.note(GPU)
    transfer.note(torch.device("cuda"))
    transfer.note(torch.device("cuda", 1))
    transfer.note(torch.device("cpu"))
    for name in ("two", "three"):
        current[0] = Stream(name)
        transfer.note(GPU)
    transfer.catch_up(torch.device("cuda"))
    assert TOLD == [("three", "one", 2), ("three", "two", 4)]
    TOLD.clear()
    current[1] = Stream("farther")
    transfer.catch_up(torch.device("cuda", 1))
    transfer.catch_up(torch.device("cpu"))
    assert TOLD == [("farther", "far", 3)]
