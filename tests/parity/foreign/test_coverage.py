from __future__ import annotations

from typing import Any

import pytest

from harness.engine.errors import InvalidInput
from harness.parity.foreign import coverage
from harness.parity.foreign.journal import play
from harness.parity.foreign.records import Cancel, Depth, Drain, Features, Live, Operation, Submit, Tick
from tests.parity.foreign.pool import Pool

PLAIN = {"seed": 1, "gain": 1.0, "mean": False}
MEAN = {"seed": 2, "gain": 0.5, "mean": True}
ONE, TWO = Submit(0, PLAIN), Submit(1, MEAN)


def happened(*operations: Operation) -> set[str]:
    return coverage.happened(play(Pool(), operations))


# Each goal, operations that bring it about, and the nearest that do not.
OCCUR: dict[str, tuple[list[Any], list[Any]]] = {
    "mean=True is in flight": ([TWO], [TWO, Cancel(1)]),
    "gain=1.0 is in flight beside another request with seed=2": ([ONE, TWO], [ONE, Tick(3), TWO]),
    "gain=0.5 is in flight beside another request with seed=2": ([TWO, Submit(2, MEAN)], [ONE, TWO]),
    "a slot gets a request with another mean than the one before had": ([ONE, Drain(), TWO], [ONE, TWO]),
    "bias changes while a request is in flight": ([ONE, Tick(), Live("bias", 0.0)], [ONE, Live("bias", 0.25)]),
    "bias=0.25 is in force while a request is in flight": (
        [Live("bias", 0.25), ONE],
        [ONE, Drain(), Live("bias", 0.25), Tick(2), Live("bias", 0.0), TWO],
    ),
    coverage.REPLACED: ([ONE, TWO, Submit(2, PLAIN)], [ONE, Drain(), TWO]),
    coverage.QUEUED: ([ONE, TWO, Submit(2, PLAIN)], [ONE, TWO]),
    coverage.REFILLED: ([ONE, Drain(), TWO], [ONE, TWO]),
    coverage.AGAIN: ([ONE, Submit(2, PLAIN)], [ONE, TWO]),
    coverage.DROPPED_QUEUED: ([ONE, Cancel(0)], [ONE, Tick(), Cancel(0)]),
    coverage.DROPPED_FLYING: ([ONE, Tick(), Cancel(0)], [ONE, Cancel(0)]),
    coverage.DROPPED_ENDED: ([ONE, Drain(), Cancel(0)], [ONE, Tick(2), Cancel(0)]),
    coverage.SMALLER: ([ONE, Tick(), Depth(1)], [ONE, Depth(1), Tick()]),
    coverage.LARGER: ([ONE, Tick(), Depth(3)], [ONE, Tick(), Depth(2)]),
}  # fmt: skip


@pytest.mark.parametrize("goal", OCCUR)
def test_a_goal_occurs_where_it_is_brought_about_and_not_in_the_nearest_other_script(goal: str) -> None:
    these, those = OCCUR[goal]
    assert goal in coverage.goals(Pool().features())
    assert goal in happened(*these)
    assert goal not in happened(*those)


def test_every_kind_of_goal_has_a_row() -> None:
    named = {value for name, value in vars(coverage).items() if name.isupper() and isinstance(value, str)}
    assert named <= OCCUR.keys()


def test_everything_that_happens_is_a_goal() -> None:
    seen = happened(ONE, TWO, Submit(2, PLAIN), Tick(2), Live("bias", 0.25), Depth(1), Cancel(2), Cancel(0), Depth(3))
    assert seen - set(coverage.goals(Pool().features())) == set()


def test_a_ring_is_not_asked_for_what_it_cannot_do() -> None:
    assert not {coverage.DROPPED_FLYING, coverage.SMALLER} & set(coverage.goals(Features({"seed": (1, 2)})))


def test_what_never_occurred_is_named_with_what_to_add() -> None:
    error = coverage.NotCovered(["a", "b"], 9, scripts=4, size=20)
    assert error.missing == ("a", "b")
    words = ("2 of 9 things did not occur in 4 scripts", "never: b", "count=8", "size=40", "waived={'a': 'why'}")
    assert [each for each in words if each not in str(error)] == []


def test_a_long_list_is_cut_and_says_so() -> None:
    assert "and 3 more" in str(coverage.NotCovered(map(str, range(coverage.LISTED + 3)), 99, 1, 1))


def test_a_waiver_needs_a_goal_that_never_occurred_and_a_reason() -> None:
    features = Features({"seed": (1,)})
    assert coverage.AGAIN not in coverage.missing(features, set(), {coverage.AGAIN: "one request a ring"})
    for waived, seen, got in (
        ({"nonsense": "why"}, set(), "no goal"),
        ({coverage.AGAIN: "why"}, {coverage.AGAIN}, "it occurred"),
        ({coverage.AGAIN: " "}, set(), "no reason"),
    ):
        with pytest.raises(InvalidInput, match=got):
            coverage.missing(features, seen, waived)  # type: ignore[arg-type]
