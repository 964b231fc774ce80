"""Recordings: nothing that fails in one fails its ring, and memory is bounded."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine import InvalidInput
from harness.parity.traces import RecordingStopped, record, replayed
from harness.parity.traces.reading import verified
from tests.parity.traces.plain import Counter, Plain


def test_two_recordings_of_one_ring_are_refused(tmp_path: Path) -> None:
    ring = Plain()
    with record(ring, tmp_path / "a") as first:
        for again in (ring, first):
            with pytest.raises(InvalidInput, match="a ring that is being recorded"):
                record(again, tmp_path / "other").finish()
    assert not (tmp_path / "other").exists()


def test_a_ring_can_be_recorded_again_once_its_recording_ended(tmp_path: Path) -> None:
    ring = Plain()
    for number in range(2):
        record(ring, tmp_path / f"{number}").finish()


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    ring = Plain()
    with pytest.raises(InvalidInput, match="never overwritten"):
        record(ring, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    record(ring, tmp_path / "b").finish()


def test_a_full_disk_stops_the_recording_and_not_the_ring(tmp_path: Path) -> None:
    ring = record(Plain(), tmp_path / "a")
    ring.step(None)
    ring._writer._file.close()
    ring._writer._file = open("/dev/full", "wb")  # noqa: SIM115 - the recording closes it
    assert [ring.step(None).tolist()[0] for _ in range(2)] == [2, 3]
    with pytest.raises(RecordingStopped, match="after .* events: OSError: .*No space left"):
        ring.finish()
    assert replayed(tmp_path / "a", Plain).ticks == 1


def test_an_error_of_the_block_is_not_replaced_and_says_that_the_recording_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as raised, record(Plain(), tmp_path / "a") as ring:
        ring.step(torch.ones(3).to_sparse())
        raise KeyError
    assert "the recording stopped" in raised.value.__notes__[0]


def test_a_call_from_inside_a_tick_stops_the_recording(tmp_path: Path) -> None:
    class Nested(Plain):
        def step(self, event: Any) -> Any:
            return ring.step(1) if event is None else super().step(event)

    why = "step was called from inside another call"
    with pytest.raises(RecordingStopped, match=why), record(Nested(), tmp_path / "a") as ring:
        assert ring.step(None).tolist() == [1, 1, 1]


def test_a_state_that_raises_stops_the_recording_and_not_the_ring(tmp_path: Path) -> None:
    class Broken(Plain):
        def state(self) -> Any:
            return self.x if self.ticks < 2 else {}["no such key"]

    with pytest.raises(RecordingStopped, match="after 2 events: KeyError"), record(Broken(), tmp_path / "a") as ring:
        assert [ring.step(None).tolist()[0] for _ in range(3)] == [1, 2, 3]


def test_a_tensor_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    sizes = []
    for events in (2, 4):
        with record(Plain(), tmp_path / f"{events}") as ring:
            for _ in range(events):
                ring.step(torch.ones(100, 3)[::50].clone().expand(2, 3)[0])
                ring.x = ring._side.engine.x = torch.zeros(3)
            path = tmp_path / f"{events}"
        sizes.append(path.read_bytes().count(b'{"dtype": "float32", "shape": [3]}'))
    assert sizes == [1, 1]


def test_tensors_that_were_forgotten_are_stored_again_and_read(tmp_path: Path) -> None:
    with record(Counter(), tmp_path / "a", remember=1) as ring:
        for number in (0, 1, 0):
            ring.step({"add": torch.full((3,), float(number)), "by": 1})
    assert (tmp_path / "a").read_bytes().count(b'"shape": [3]}') == 3
    assert replayed(tmp_path / "a", Counter).ticks == 3


def test_memory_does_not_grow_with_the_number_of_ticks(tmp_path: Path) -> None:
    with record(Plain(), tmp_path / "a", remember=50) as ring:
        tracemalloc.start()
        try:
            for tick in range(10_000):
                ring.step(torch.full((3,), float(tick)))
                if tick == 500:
                    early = tracemalloc.get_traced_memory()[0]
                    tracemalloc.reset_peak()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak - early < 100_000
    assert os.path.getsize(tmp_path / "a") > 2_000_000
    assert verified(tmp_path / "a").ticks == 10_000
