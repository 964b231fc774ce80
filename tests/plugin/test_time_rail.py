"""The fixture `time_rail`: what it writes down, and what a run in another project says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engine.errors import InvalidInput
from harness.plugin.fixtures import TimeRail
from harness.plugin.ledger import Ledger, Notes
from harness.rails.bench import ratio
from harness.rails.bench.ratio import TooSlow
from harness.rails.costs import block
from tests.plugin.test_fixtures import Run
from tests.plugin.test_plugin import RAIL, Outside, _imported, _outside, green, red
from tests.rails.bench.test_ratio import Noisy

__all__ = ["_imported", "_outside"]

pytestmark = pytest.mark.no_cover


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> Noisy:
    """Functions whose clock is the rail's."""
    made = Noisy()
    timed = ratio.timed
    monkeypatch.setattr(ratio, "timed", lambda *sides, **given: timed(*sides, **given, clock=made.clock))
    return made


def test_a_rail_within_its_limit_is_written_down_with_its_ratio(tmp_path: Path, made: Noisy) -> None:
    run = Run(tmp_path)
    found = TimeRail(run.request)("tick", made.lasting(1), made.lasting(2))
    assert (found.ratio, found.at_most) == (pytest.approx(0.5), 1.05)
    assert (run.ledger, run.notes) == (Ledger(timed=[f"time rail tick: {found}"]), Notes())


def test_a_rail_beyond_its_limit_names_itself_its_ratio_and_its_limit(tmp_path: Path, made: Noisy) -> None:
    run = Run(tmp_path)
    with pytest.raises(TooSlow) as slow:
        TimeRail(run.request)("tick", made.lasting(7), made.lasting(2), 1.1)
    assert str(slow.value) == (
        "tick: fast takes 3.500 of plain's time (95% interval 3.500 to 3.500, 16 quads), at most 1.1 is allowed; "
        "a call of plain takes 2 ms, in both of two draws"
    )
    assert (run.ledger, run.notes) == (Ledger(), Notes())


def test_no_time_at_all_is_refused_and_not_taken_for_the_usual_time(tmp_path: Path, made: Noisy) -> None:
    with pytest.raises(InvalidInput, match="seconds: got 0"):
        TimeRail(Run(tmp_path).request)("tick", made.lasting(2), made.lasting(2), 1.05, seconds=0)


def test_a_rail_without_a_verdict_is_not_gated_and_says_why(tmp_path: Path, made: Noisy) -> None:
    run = Run(tmp_path)
    found = TimeRail(run.request)("tick", made.lasting(2), made.lasting(2), 1.05, seconds=0.01)
    why = f"undecided, only 2 of 16 quads were measured in time: {found}"
    assert (run.ledger, run.notes) == (Ledger(not_gated=[f"time rail tick: {why}"]), Notes(not_gated=[why]))


@pytest.mark.parametrize("name", ["", "a b", "../tick"])
def test_the_name_of_a_rail_is_one_that_a_file_could_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        TimeRail(Run(tmp_path).request)(name, lambda: 0, lambda: 1)


# In another project. A function that sleeps is as exact as it needs to be beside a limit far away.

SLOW = """
    import time
    def plain(): time.sleep(0.002)
    def fast(): time.sleep({fast})
    def test_tick(time_rail): time_rail("tick", fast, plain, at_most={at_most}, seconds={seconds})
"""


def test_a_sleep_of_5_ms_in_a_tick_is_red_and_says_by_how_much(outside: Outside) -> None:
    outside.tests(SLOW.format(fast=0.007, at_most=1.05, seconds=20))
    printed = red(outside.run(), "TooSlow: tick: fast takes ", "at most 1.05 is allowed", "in both of two draws")
    assert "not gated" not in printed


def test_a_faster_tick_is_green_and_its_ratio_is_in_the_summary(outside: Outside) -> None:
    outside.tests(SLOW.format(fast=0.0002, at_most=1.05, seconds=20))
    assert "within its limit: time rail tick: fast takes 0." in green(outside.run())
    green(outside.run("--harness-strict"))


def test_an_undecided_tick_is_no_pass_is_named_and_is_red_where_that_is_asked_for(outside: Outside) -> None:
    outside.tests(SLOW.format(fast=0.002, at_most=1.05, seconds=0.005))
    printed = green(outside.run(), skipped=1)
    assert "not gated: time rail tick: undecided, only 1 of 16 quads" in printed
    red(outside.run("--harness-strict"), "not gated: undecided, only 1 of 16 quads", "(--harness-strict)")


def test_costs_of_another_torch_are_red_too_where_that_is_asked_for(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.bless(RAIL)
    green(outside.run("--harness-strict"))
    monkeypatch.setattr(block, "version", lambda: "3.0.0")
    red(outside.run("--harness-strict"), "has costs for torch")
