"""What a person reads of a check: every row of its tables."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.commands.check_report import CheckReport
from harness.commands.tables import check_tables
from harness.parity.baselines.captures import Verdict
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs.rails import CostReport, Row
from harness.registry import ExecutorKind


def cells(table: Table) -> list[list[str]]:
    """The cells of a table as a person reads them, a list for each row, the header first."""
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    lines = [line.translate(str.maketrans("┃│", "||")) for line in captured.get().splitlines()]
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
