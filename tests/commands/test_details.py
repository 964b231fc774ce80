"""What a person reads of a check that fails: few differences, unlike each other, in few lines of a terminal's width."""

from __future__ import annotations

from itertools import product

import pytest
from rich.console import Console

from harness.commands.check_report import CheckReport
from harness.commands.details import BISECT, LINES, SHOWN, details
from harness.commands.tables import check_tables
from harness.engine.switches import SWITCHES
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.proofs.lockstep import REPRO
from harness.parity.proofs.switches import EVERY, SwitchResult
from harness.registry import ExecutorKind

COMMAND = "python -m harness check --switches --only cfg_full --switch fused_cfg --executor eager --decoder affine"
LONG = "; ".join(f"request-{number}: bytes differ in 12 of 48 elements, first at row 0" for number in range(40))
WORDS = f"{LONG}{REPRO}{COMMAND}"
MOVED = tuple(
    SwitchResult(switch, scenario, ExecutorKind(kind), decoder, "float32", "cpu", Verdict.MOVED, True, WORDS)
    for switch, kind, decoder, scenario in product(SWITCHES, ("eager", "static"), ("affine", "tiny"), SCENARIOS)
)
"""A check of switches in which every comparison differs."""


def captured(*results: Result) -> CheckReport:
    return CheckReport(Report(results, "here", {"here": ()}))


def test_a_check_that_passes_has_no_details() -> None:
    passes = captured(Result("one", Verdict.EXACT), Result("two", Verdict.TOLERANCE, detail="near"))
    outside = SwitchResult("a", "b", ExecutorKind.EAGER, "c", "d", "e", Verdict.OUTSIDE_PROFILE, False, "why")
    assert list(details(passes, 80)) == list(details(CheckReport(None, (outside,)), 80)) == []


def test_a_difference_is_told_whole_under_its_name() -> None:
    report = captured(Result("one", Verdict.MOVED, detail="r0 differs\nand r1"), Result("two", Verdict.EXACT))
    assert list(details(report, 80)) == ["", "one, captures: moved", "  r0 differs", "  and r1", BISECT]
    missing = captured(Result("one", Verdict.MISSING, detail="never blessed"))
    assert list(details(missing, 80)) == ["", "one, captures: missing", "  never blessed"]


def test_a_switch_names_its_executor_and_decoder_and_one_that_never_acted_every_scenario() -> None:
    result = SwitchResult("fused_cfg", "one", ExecutorKind.EAGER, "affine", "float32", "cpu", Verdict.MOVED, True, "x")
    idle = SwitchResult("fused_cfg", EVERY, ExecutorKind.STATIC, "tiny", "d", "e", Verdict.NOT_GATED, False, "y")
    told = list(details(CheckReport(None, (result, idle)), 80))
    assert told[1:3] == ["one, fused_cfg on eager, affine: moved", "  x"]
    assert told[3:] == ["every scenario, fused_cfg on static, tiny: not_gated", "  y"]


def test_the_differences_that_are_told_are_of_different_switches_executors_and_scenarios() -> None:
    titles = [line for line in details(CheckReport(None, MOVED), 80) if line.endswith(": moved")]
    assert len(titles) == SHOWN
    scenarios, switches, where = zip(*(title.replace(" on ", ", ").split(", ", 2) for title in titles), strict=True)
    assert len(set(scenarios)) == SHOWN and len(set(switches)) == min(SHOWN, len(SWITCHES))
    assert {each.split(",")[0] for each in where} == {"eager", "static"}


def test_captures_and_switches_of_one_check_are_both_told() -> None:
    told = "\n".join(details(CheckReport(captured(Result("one", Verdict.MOVED, detail="x")).captures, MOVED), 80))
    assert "one, captures: moved" in told and ", tiny: moved" in told


def test_the_last_line_says_how_many_others_there_are_and_how_they_are_seen() -> None:
    *_, last = details(CheckReport(None, MOVED), 80)
    assert last == f"and {len(MOVED) - SHOWN} more: --json FILE has all, --html FILE a table; or name a scenario"
    *_, last = details(CheckReport(None, MOVED[:SHOWN]), 80)
    assert last == "what ends with ... is whole in --json FILE"


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("count", [1, 2, SHOWN, len(MOVED)])
def test_details_have_a_most_number_of_lines_and_each_is_as_wide_as_the_terminal(count: int, width: int) -> None:
    told = list(details(CheckReport(None, MOVED[:count]), width))
    assert len(told) <= LINES + SHOWN + 2
    assert all(len(line) <= width for line in told[:-1] if line.startswith("  ") and COMMAND not in line)


def test_a_detail_that_is_longer_than_a_line_is_told_to_its_end() -> None:
    path = "/".join(f"folder{number}" for number in range(20))
    told = list(details(captured(Result("one", Verdict.MISSING, detail=path)), 60))
    assert "".join(line.strip() for line in told[2:]) == path


def test_a_cut_detail_keeps_its_beginning_and_says_that_it_is_cut() -> None:
    told = list(details(CheckReport(None, MOVED[:1]), 60))
    words = " ".join(line.strip() for line in told[2:-2])
    assert words.endswith(" ...") and LONG.startswith(words.removesuffix(" ..."))
    assert len(told[2:-1]) == LINES


def test_the_command_that_shows_it_again_is_never_cut_nor_broken() -> None:
    for count in (1, 3, len(MOVED)):
        told = list(details(CheckReport(None, MOVED[:count]), 40))
        assert [line for line in told if "python" in line] == [f"  {COMMAND}"] * min(count, SHOWN)
        assert not [line for line in told if "repro" in line]


def test_what_controls_a_terminal_is_shown_and_not_obeyed() -> None:
    told = "".join(details(captured(Result("a\x1b[31m", Verdict.ORPHAN, detail="b\x1b[0m")), 80))
    assert "\x1b" not in told and "a\\x1b[31m" in told and "b\\x1b[0m" in told


def test_a_check_in_which_everything_differs_stays_within_120_lines_of_80_columns() -> None:
    captures = captured(*(Result(name, Verdict.MOVED, detail=LONG) for name in SCENARIOS)).captures
    for report in (CheckReport(captures), CheckReport(None, MOVED), CheckReport(captures, MOVED)):
        console = Console(width=80)
        with console.capture() as printed:
            for table in check_tables(report):
                console.print(table)
        lines = [*printed.get().splitlines(), *details(report, 80)]
        assert sum(max(1, -(-len(line) // 80)) for line in lines) <= 120
        assert all(len(line) <= 80 for line in lines if COMMAND not in line)
