"""What a person reads of a check: every row of its tables."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.commands.check_report import CheckReport
from harness.commands.tables import benched, check_tables
from harness.parity.baselines.captures import Report, Result, Verdict
from harness.parity.proofs.switches import SwitchResult
from harness.rails.bench.bare import Bare
from harness.rails.bench.throughput import Latency, Load, Measured
from harness.rails.costs.rails import CostReport, Row
from harness.registry import ExecutorKind


def cells(table: Table, width: int = 200) -> list[list[str]]:
    """The cells of a table as a person reads them, a list for each row, the header first."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return rows(captured.get())


def rows(printed: str) -> list[list[str]]:
    """The cells of a table that was printed, a list for each row, the header first."""
    lines = [line.translate(str.maketrans("┃│", "||")) for line in printed.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_count_that_differs_is_a_row_with_its_replacement() -> None:
    rows = (Row("plain/1", "copies", 3, 4), Row("plain/1", "ticks", 8, 8), Row("cfg/4", "aten::gone", 1, None))
    report = CostReport(rows, Path("captures/board/costs.json"), "2.0.0", gated=True)
    (table,) = check_tables(CheckReport(None, (), report))
    assert cells(table) == [
        ["rail", "blessed", "now", "in board/costs.json"],
        ["plain/1", "copies: 3", "4", '"copies": 4'],
        ["cfg/4", "aten::gone: 1", "None", "none, the count is gone"],
    ]


def switched(scenario: str, verdict: Verdict, detail: str = "") -> SwitchResult:
    return SwitchResult(
        "fused_cfg", scenario, ExecutorKind.EAGER, "affine", "float32", "cpu", verdict, acted=True, detail=detail
    )


def test_a_comparison_of_a_switch_that_did_not_pass_is_a_row_under_its_group() -> None:
    results = (switched("one", Verdict.EXACT), switched("two", Verdict.MOVED, "row 3 differs"))
    (table,) = check_tables(CheckReport(None, results, None))
    assert cells(table) == [
        ["switch", "executor", "decoder", "scenarios", "acted in", "verdict"],
        ["fused_cfg", "eager", "affine", "2", "2", "moved"],
        ["", "", "", "two", "", "row 3 differs"],
    ]


def test_a_detail_that_is_longer_than_a_line_is_printed_to_its_end() -> None:
    path = "/".join(f"folder{number}" for number in range(20))
    (table,) = check_tables(CheckReport(Report((Result("one", Verdict.MOVED, detail=path),), "here", {"here": ()})))
    assert "".join(row[-1] for row in cells(table, width=60)[1:]) == path


def test_a_tick_s_figures_stand_under_their_names() -> None:
    samples = {"tick_ms": [float(ms) for ms in range(101)], "host_ms": [0.5]}
    latency = Latency(1.0, 1.0, 1.0, 1.0)
    measured = Measured(Load(), samples, 1, 1.0, "", 0, 1.0, 1.0, latency, Bare(1, {"eager": 1.0}))
    assert cells(next(benched(measured, ()))) == [
        ["", "median", "p95", "p99"],
        ["ms a tick", "50.000", "95.000", "99.000"],
        ["ms until tick() returned", "0.500", "0.500", "0.500"],
    ]
