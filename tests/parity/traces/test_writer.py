"""The writer of traces, with copies that arrive late, as those of a GPU do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.engine import InvalidInput
from harness.parity.traces.encoding import Encoder
from harness.parity.traces.host import Arriving
from harness.parity.traces.reading import opened
from harness.parity.traces.writer import Happened, Writer


class Late(Arriving):
    """Copies that are there only once somebody has waited for them."""

    waited = False

    @property
    def arrived(self) -> bool:
        return self.waited

    def wait(self) -> None:
        self.waited = True


def writer(path: Path, remember: int = 9) -> Writer:
    return Writer(path, "ring", {}, "cpu", remember)


def happened(number: int) -> Happened:
    encoder = Encoder()
    document = encoder.encoded([torch.full((2,), float(number))])
    return Happened("step", document, [tensor for _, tensor in encoder.tensors], Late(), ticks=number)


def test_a_call_waits_for_a_copy_only_where_too_many_are_on_their_way(tmp_path: Path) -> None:
    made, events = writer(tmp_path / "a"), [happened(number) for number in range(6)]
    for event in events:
        made.add(event, behind=2)
    assert [event.arriving.arrived for event in events] == [True] * 4 + [False] * 2
    made.end("")


def test_events_are_written_in_their_order_whichever_copy_arrives_first(tmp_path: Path) -> None:
    made, events = writer(tmp_path / "a"), [happened(number) for number in range(4)]
    for number, event in enumerate(events):
        if number == 2:
            event.arriving.wait()
        made.add(event, behind=9)
    made.end("")
    with opened(tmp_path / "a") as trace:
        assert [event.ticks for event in trace] == [0, 1, 2, 3]


@pytest.mark.parametrize("remember", [0, 65_537])
def test_a_number_of_remembered_tensors_out_of_range_is_refused(tmp_path: Path, remember: int) -> None:
    with pytest.raises(InvalidInput, match="remember: got"):
        writer(tmp_path / "a", remember)
