"""A ring of any make that is recorded, and its replay."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine import InvalidInput
from harness.parity.baselines.platform import ROOT
from harness.parity.proofs import generic
from harness.parity.traces import RecordingStopped, TraceParted, record, replayed
from harness.parity.traces.replay import Replayed
from tests.parity.traces.plain import Counter, Plain, counted


def test_a_replay_draws_the_numbers_that_the_recorded_ring_drew(tmp_path: Path) -> None:
    random.seed(5)
    torch.manual_seed(6)
    path = counted(tmp_path / "a")
    random.seed(7)
    torch.manual_seed(8)
    result = replayed(path, Counter)
    assert (result.events, result.ticks, result.values) == (7, 6, 19)


def test_a_replay_leaves_the_callers_random_state_as_it_was(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    before = torch.get_rng_state().tolist(), random.getstate()
    replayed(path, Counter)
    assert (torch.get_rng_state().tolist(), random.getstate()) == before


class Off(Counter):
    """Moves one element by one ULP in its fourth tick; nothing that it returns shows it then."""

    def step(self, event: Any) -> Any:
        made = super().step(event)
        if self.ticks == 4:
            self.x[1] = torch.nextafter(self.x[1], torch.tensor(torch.inf))
        return made


def test_one_ulp_in_the_state_is_named_at_its_tick(tmp_path: Path) -> None:
    with pytest.raises(TraceParted, match=r"event 4 \(step\), tick 4: state\[0\]: other bits") as parted:
        replayed(counted(tmp_path / "a"), Off)
    assert (parted.value.event, parted.value.tick, parted.value.what) == (4, 4, "state[0]")


def test_a_ring_that_begins_in_another_state_is_named_at_the_beginning(tmp_path: Path) -> None:
    with pytest.raises(TraceParted, match=r"event 0 \(begin\), tick 0: state\[0\]"):
        replayed(counted(tmp_path / "a"), lambda: Counter(width=1))


def test_recording_changes_no_bit(tmp_path: Path) -> None:
    with record(Plain(), tmp_path / "a") as ring:
        assert generic.run(Plain(), ring, [None, torch.ones(3), None]).events == 3


def failed(path: Path, ring: type[Counter] = Counter) -> Replayed:
    with record(Counter(), path) as made:
        made.step(None)
        with pytest.raises(ValueError, match="the event says so"):
            made.step("fail")
        made.step(None)
    return replayed(path, ring)


def test_a_tick_that_raises_is_played_and_must_raise_again(tmp_path: Path) -> None:
    assert failed(tmp_path / "a").events == 4


class Robust(Counter):
    def step(self, event: Any) -> Any:
        return None if event == "fail" else super().step(event)


def test_a_tick_that_no_longer_raises_is_a_difference(tmp_path: Path) -> None:
    with pytest.raises(TraceParted, match=r"event 2 \(step\), tick 1: the call: returns .*the recorded one raises Val"):
        failed(tmp_path / "a", Robust)


def test_an_event_is_stored_as_it_was_given_also_where_the_ring_writes_to_it(tmp_path: Path) -> None:
    class Rude(Plain):
        def step(self, event: Any) -> Any:
            return super().step(event.mul_(2))

    with record(Rude(), tmp_path / "a") as ring:
        ring.step(torch.ones(3))
    assert replayed(tmp_path / "a", Rude).ticks == 1


def test_an_object_that_is_no_ring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="got dict, expected a StreamPipeline, a Stream, or an object with step"):
        record({}, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({1, 2}, r"NotStorable: \[0\] is a set"),
        ({"a": [object()]}, r"NotStorable: \[0\].a\[0\] is a object"),
        (torch.zeros(2).to_sparse(), "NotComparable: .*layout"),
        ([[[[[[[[[[[[[1]]]]]]]]]]]]], "NotStorable: .*deeper than 12"),
        ({0.5: 1}, "NotStorable: .*the key 0.5"),
    ],
)
def test_an_event_that_cannot_be_stored_stops_the_recording_and_not_the_ring(
    tmp_path: Path, event: Any, why: str
) -> None:
    class Any_(Plain):
        def step(self, _event: Any) -> Any:
            return super().step(None)

    with pytest.raises(RecordingStopped, match=f"after 2 events: {why}"), record(Any_(), tmp_path / "a") as ring:
        ring.step(None)
        ring.step(event)
        assert ring.step(None).tolist() == [3, 3, 3]
    result = replayed(tmp_path / "a", Any_)
    assert (result.ticks, result.cut != "") == (1, True)


def test_a_ring_of_any_make_is_recorded_and_replayed_without_the_libraries_of_the_engine(tmp_path: Path) -> None:
    lines = [
        "import sys",
        "sys.modules.update(dict.fromkeys(('diffusers', 'ptwt', 'pywt', 'click', 'rich')))",
        "from harness.parity.traces import record, replayed",
        "from tests.parity.traces.plain import Plain",
        "with record(Plain(), sys.argv[1]) as ring: ring.step(None)",
        "print(replayed(sys.argv[1], Plain).ticks)",
    ]
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines), str(tmp_path / "a")]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == "1\n"
