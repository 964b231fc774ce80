from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.parity.foreign.draws import script
from harness.parity.foreign.records import Cancel, Features, Live, Script, Submit, Tick
from harness.parity.foreign.shrinking import shrink

FULL = Features({"seed": (1, 2), "scale": (None, 2.5, 7)}, {"gain": (1.0, 0.5)}, (2, 1), cancel=True)
LONG = next(drawn for drawn in map(lambda seed: script(FULL, seed, 60), range(99)) if len(list(drawn.submits())) > 20)


def guided(drawn: Script) -> bool:
    return any(each.values["scale"] == 2.5 for each in drawn.submits())


def test_one_operation_is_left_with_simple_values_where_the_failure_does_not_need_others() -> None:
    small, _ = shrink(LONG, FULL, guided, 500)
    (left,) = small.operations
    assert isinstance(left, Submit) and left.values == {"seed": 1, "scale": 2.5}
    assert small.seed == LONG.seed


def test_numbers_of_requests_stay_and_no_request_that_is_gone_is_cancelled() -> None:
    def fails(drawn: Script) -> bool:
        return any(isinstance(each, Cancel) for each in drawn.operations)

    submit, cancel = shrink(LONG, FULL, fails, 500)[0].operations
    assert isinstance(submit, Submit) and isinstance(cancel, Cancel) and submit.number == cancel.number


def test_ticks_and_live_changes_become_simple() -> None:
    given_one = Script((Tick(2), Live("gain", 0.5), Submit(0, {"seed": 2, "scale": 7})))
    small, _ = shrink(given_one, FULL, lambda drawn: len(drawn.operations) == 3, 500)
    assert small == Script((Tick(1), Live("gain", 1.0), Submit(0, {"seed": 1, "scale": None})))


@given(st.integers(0, 30))
def test_no_more_scripts_are_played_than_asked_for(runs: int) -> None:
    played: list[Script] = []
    small, count = shrink(LONG, FULL, lambda drawn: not played.append(drawn) and guided(drawn), runs)  # type: ignore[func-returns-value]
    assert count == len(played) <= runs
    assert guided(small)


def test_a_script_of_which_nothing_can_be_left_out_stays_and_the_shrinker_ends() -> None:
    small, runs = shrink(LONG, FULL, lambda drawn: False, 10_000)
    assert small == LONG and runs < 1000


def test_a_value_that_several_requests_must_share_becomes_simple_in_all_of_them() -> None:
    def fails(drawn: Script) -> bool:
        scales = [repr(each.values["scale"]) for each in drawn.submits()]
        return len(scales) == 2 and len(set(scales)) == 1

    values = {"seed": 1, "scale": 7}
    small, _ = shrink(Script((Submit(0, values), Submit(1, values))), FULL, fails, 50)
    assert [each.values["scale"] for each in small.submits()] == [None, None]


def test_equal_failures_shrink_to_equal_scripts() -> None:
    assert repr(shrink(LONG, FULL, guided, 50)) == repr(shrink(LONG, FULL, guided, 50))
