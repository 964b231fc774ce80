from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from harness.parity.foreign import journal
from harness.parity.foreign.journal import Report, RequestLost, play, undisturbed
from harness.parity.foreign.records import Cancel, Depth, Drain, Submit, Tick
from tests.parity.foreign.pool import AtOnce, Pool

PLAIN = {"seed": 1, "gain": 1.0, "mean": False}
MEAN = {**PLAIN, "mean": True}


def submits(count: int, values: dict[str, Any] = PLAIN) -> list[Submit]:
    return [Submit(number, values) for number in range(count)]


def test_the_journal_says_where_every_request_was() -> None:
    moments = play(Pool(), [*submits(3), Tick(2)], drain=False).moments
    assert [type(moment.operation) for moment in moments] == [Submit] * 3 + [Tick] * 2
    first = moments[3]
    assert (first.before, first.queued) == ({}, (0, 1, 2))
    assert (first.flying, first.waiting, first.admitted) == ({0: 0, 1: 1}, (2,), [0, 1])


def test_a_script_is_drained_at_its_end_and_where_it_says_so() -> None:
    played = play(Pool(), [*submits(1), Drain(), Submit(1, PLAIN)])
    assert played.ends() == {0: 3, 1: 7} and len(played.moments) == 8


def test_reports_are_kept_by_request_and_by_its_own_ticks() -> None:
    played = play(Pool(), [*submits(2), Submit(2, MEAN)])
    assert [len(played.stages[number]) for number in range(3)] == [3, 3, 3]
    assert list(played.stages[2][0]) == [Report(name, "value", 0) for name in ("decode", "mean", "step")]
    assert {"mean", "mean/value"} <= played.reported


def test_reports_of_the_tick_in_which_a_slot_changes_hands_belong_to_the_request_that_ends() -> None:
    stages = play(AtOnce(), [*submits(2), Submit(2, MEAN)]).stages
    assert [sorted(name.stage for name in tick) for tick in stages[0]] == [["decode", "step"]] * 3
    assert [len(tick) for tick in stages[2]] == [0, 3, 3, 3]


def test_a_cancel_of_a_request_that_was_not_submitted_is_left_out() -> None:
    assert [type(each) for each in play(Pool(), [Cancel(4), *submits(1), Cancel(0)]).operations] == [Submit, Cancel]


@pytest.mark.parametrize(
    ("wrong", "operations", "said"),
    [
        ("depth reorders", [*submits(2), Depth(1)], "request 0 still waits while request 1, submitted later, entered"),
        ("cancel frees another slot", [*submits(2), Tick(), Cancel(1)], "request 0 left the ring without a result"),
        ("a result is thrown away", submits(1, MEAN), "request 0 left the ring without a result, and nobody cancel"),
        ("a result comes twice", submits(2), "request 0 ended a second time at event 5"),
        ("a cancel is forgotten", [*submits(1), Tick(), Cancel(0)], "is still there a tick after it was cancelled"),
        ("a cancelled one ends", [*submits(1), Tick(2), Cancel(0)], "ended, though it was cancelled at event 4"),
        ("two places", submits(1), "request 0 is in two places at event 0"),
        ("a stranger", submits(1), "request 9 came from nowhere at event 0"),
    ],
)
def test_a_lost_request_is_named(wrong: str, operations: list[Any], said: str) -> None:
    with pytest.raises(RequestLost, match=said):
        play(Careless(wrong), operations)


class Careless(Pool):
    def flying(self) -> dict[int, int]:
        extra = {"two places": {7: 0}, "a stranger": {7: 9}}.get(self.wrong, {}) if self.queue else {}
        return {**super().flying(), **extra}

    def finished(self, output: Any) -> dict[int, object]:
        found = super().finished(output)
        return found | ({0: found[1]} if self.wrong == "a result comes twice" and 1 in found else {})

    def _cancel(self, number: int) -> None:
        if self.wrong not in ("a cancel is forgotten", "a cancelled one ends"):
            super()._cancel(number)

    def _admit(self, slot: int, submit: Submit) -> None:
        super()._admit(slot, submit)
        self.at[slot] = -1 if self.wrong == "a result comes twice" and submit.number else 0


def test_a_ring_that_drops_requests_by_itself_may_do_so() -> None:
    dropping = Pool("a result is thrown away", drops=True)
    assert play(dropping, submits(2, MEAN)).ends() == {}


def test_a_ring_without_an_order_may_admit_a_later_request_first() -> None:
    assert len(play(Pool("depth reorders", in_order=False), [*submits(2), Depth(1)]).ends()) == 2


def test_a_ring_that_never_ends_a_request_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PATIENCE", 10)
    stuck = Pool()
    stuck.depth = 0
    with pytest.raises(RequestLost, match="request 0 has not ended after 10 ticks without any result at event 11"):
        play(stuck, submits(2))


def test_the_callers_random_state_is_restored() -> None:
    before = torch.get_rng_state(), random.getstate()
    with undisturbed():
        play(Pool("draws from the global generator"), submits(2))
        torch.rand(3), random.random()
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
