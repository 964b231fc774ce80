"""What a person reads of a check: every row of its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from harness.commands.check_report import CheckReport
from harness.commands.tables import COUNTS, benched, check_tables, probed
from harness.engine.guidance_modes import GuidanceMode
from harness.parity.baselines import contract
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.proofs.switches import EVERY, SwitchResult
from harness.rails.bench.ablation import Saving, Says
from harness.rails.bench.bare import Bare
from harness.rails.bench.steady import Steady
from harness.rails.bench.throughput import Latency, Load, Measured
from harness.rails.costs.counts import Row
from harness.rails.costs.rails import CostReport
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


def test_a_group_of_a_switch_is_one_row_and_counts_the_comparisons_that_did_not_pass() -> None:
    results = tuple(switched(f"s{number}", Verdict.MOVED, "row 3 differs") for number in range(40))
    (table,) = check_tables(CheckReport(None, (switched("one", Verdict.EXACT), *results)))
    assert cells(table) == [
        ["switch", "executor", "decoder", "played", "acted", "verdict"],
        ["fused_cfg", "eager", "affine", "41", "41", "40 moved"],
    ]


def test_a_scenario_is_one_line_with_the_beginning_of_its_detail() -> None:
    results = (Result("one", Verdict.MOVED, detail="; ".join(["r0 differs"] * 40)), Result("two", Verdict.MISSING))
    (table,) = check_tables(CheckReport(Report((*results, Result("x", Verdict.MOVED, detail="a\nb")), "here", {})))
    (_, first, second, third) = cells(table, width=60)
    assert first[:2] == ["one", "moved"] and first[2].startswith("r0 differs; r0") and first[2].endswith("…")
    assert (second, third) == (["two", "missing", ""], ["x", "moved", "a"])


@pytest.mark.parametrize("kind", ExecutorKind)
@pytest.mark.parametrize("verdict", [Verdict.MOVED, Verdict.OUTSIDE_PROFILE])
def test_no_word_of_the_table_of_switches_is_broken_at_80_columns(kind: ExecutorKind, verdict: Verdict) -> None:
    if verdict is Verdict.OUTSIDE_PROFILE and not kind.ahead_of_time:
        verdict = Verdict.EXACT
    results = tuple(replace(switched(f"s{n}", verdict), switch="cached_conditioning", executor=kind) for n in range(29))
    (table,) = check_tables(CheckReport(None, results))
    assert len(cells(table, width=80)) == 2
    assert max(map(len, cells(table, width=80)[1])) == len("cached_conditioning")


def test_of_many_counts_that_differ_a_few_are_rows_of_different_rails_and_the_rest_is_counted() -> None:
    wrong = tuple(Row(f"rail{rail}", f"count{number}", 1, 2) for rail in range(4) for number in range(30))
    (table,) = check_tables(CheckReport(None, (), CostReport(wrong, Path("costs.json"), "2", gated=True)))
    rows = cells(table)
    assert len(rows) == 1 + COUNTS + 1
    assert {row[0] for row in rows[1:-1]} == {"rail0", "rail1", "rail2", "rail3"}
    assert rows[-1] == [f"and {120 - COUNTS} more", "", "", "--json FILE has all"]


def test_a_tick_s_figures_stand_under_their_names() -> None:
    samples = {"tick_ms": [float(ms) for ms in range(101)], "host_ms": [0.5]}
    latency = Latency(1.0, 1.0, 1.0, 1.0)
    measured = Measured(Load(), samples, 1, 1.0, "", 0, 1.0, 1.0, latency, Bare(1, {"eager": 1.0}))
    assert cells(next(benched(measured, ()))) == [
        ["", "median", "p95", "p99"],
        ["ms a tick", "50.000", "95.000", "99.000"],
        ["ms until tick() returned", "0.500", "0.500", "0.500"],
    ]


def test_a_scenario_outside_the_profile_is_counted_in_no_group_and_a_group_of_those_alone_says_so() -> None:
    outside = Verdict.OUTSIDE_PROFILE
    results = (
        switched("one", Verdict.EXACT),
        switched("two", outside),
        replace(switched("one", outside), decoder="tiny", acted=False),
        replace(switched(EVERY, Verdict.NOT_GATED, "never acted"), decoder="mid", acted=False),
        replace(switched("one", Verdict.EXACT), decoder="mid", acted=False),
    )
    (table,) = check_tables(CheckReport(None, results, None))
    assert cells(table)[1:] == [
        ["fused_cfg", "eager", "affine", "1", "2", "exact"],
        ["fused_cfg", "eager", "tiny", "0", "0", "outside_profile"],
        ["fused_cfg", "eager", "mid", "1", "0", "not_gated"],
    ]


def test_every_fact_of_a_bench_stands_under_its_name() -> None:
    load = Load(decoder="affine", duration=4.0, depth=3, steps=5, cfg=GuidanceMode.FULL, guidance_scale=1.5)
    latency = Latency(1.0, 2.0, 3.0, 4.0)
    bare = Bare(7, {"eager": 2.0, "graph": 1.0})
    samples = {"tick_ms": [4.0], "host_ms": [0.5]}
    measured = Measured(load, samples, 10, 5.0, "", 6, 1.25, 8.5, latency, bare)
    ticks, facts = benched(measured, ())
    assert ticks.title == (
        f"affine, float32, eager, cpu: T {load.frames}, depth 3, 5 steps, full guidance 1.5, wavelet correction"
    )
    assert [row for row in cells(facts) if any(row)] == [
        ["bare decoder, 7 rows, ms", "eager 2.000, graph 1.000"],
        ["beyond it, ms a tick", ", ".join(f"{form} {ms:.3f}" for form, ms in measured.beyond.items())],
        ["overhead", f"{measured.overhead_ms:.3f} ms, {measured.overhead_ratio:.1%} of the graph decoder"],
        ["decoder runs and rows a tick", "1.25 and 8.50"],
        ["latents a second", "2.000"],
        ["audio x realtime", "8.0"],
        ["dropped requests", "6"],
        ["control to a latent it touched", "1.0 ticks, 2.0 ms"],
        ["control to one wholly under it", "3.0 ticks, 4.0 ms"],
    ]


STEADY = Steady(
    2.5, 2.0, (1.25, 1.5), 1.375, 1.0, 1.75, 0.5, 0.75, 7.5, {"cudaGraphLaunch": 1.0, "cudaMemcpyAsync": 6.5}
)


@pytest.mark.parametrize(("steady", "launched"), [
    (STEADY, "7.5 (cudaGraphLaunch 1, cudaMemcpyAsync 6.5)"),
    (replace(STEADY, launches=None, by_call={}), "none: no GPU"),
])  # fmt: skip
def test_the_figures_of_a_steady_ring_stand_between_the_facts_and_the_savings(steady: Steady, launched: str) -> None:
    measured = Measured(
        Load(),
        {"tick_ms": [1.0], "host_ms": [0.5]},
        1,
        1.0,
        "",
        0,
        1.0,
        1.0,
        Latency(1, 1, 1, 1),
        Bare(1, {"eager": 1}),
    )
    saving = Saving("one", 8, 3.0, 2.0, 1.0, 0.5, (0.75, 1.25), (0.25, 0.625), Says.BEYOND, Says.WITHIN)
    tables = list(benched(measured, [saving], steady))
    assert len(tables) == len(list(benched(measured, [saving]))) + 1
    assert cells(tables[2]) == [
        ["steady ring", ""],
        ["tick / bare decoder", "1.3750, 95 % interval 1.0000 to 1.7500"],
        ["tick, bare decoder, ms", "2.500, 2.000"],
        ["host ms a tick", "0.50, 0.75 where a request enters or leaves"],
        ["launches a tick", launched],
    ]


def test_what_a_switch_saves_of_a_tick_and_of_its_host_part_stand_in_tables_of_their_own() -> None:
    measured = Measured(
        Load(),
        {"tick_ms": [1.0], "host_ms": [0.5]},
        1,
        1.0,
        "",
        0,
        1.0,
        1.0,
        Latency(1, 1, 1, 1),
        Bare(1, {"eager": 1}),
    )
    both = Saving("one", 8, 3.0, 2.0, 1.0, 0.5, (0.75, 1.25), (0.25, 0.625), Says.BEYOND, Says.WITHIN)
    idle = Saving("two", 8, 6.0, 5.0, 0.0, 0.0, (-0.5, 0.5), (-0.25, 0.25), Says.IDLE, Says.IDLE)
    *_, of_tick, of_host = benched(measured, [both, idle])
    assert cells(of_tick) == [
        ["switched off", "ms a tick", "saved", "95% interval", ""],
        ["one", "3.000", "1.000", "0.750 to 1.250", ""],
        ["two", "6.000", "0.000", "-0.500 to 0.500", str(Says.IDLE)],
    ]
    assert cells(of_host) == [
        ["switched off", "host ms", "saved", "95% interval", ""],
        ["one", "2.000", "0.500", "0.250 to 0.625", str(Says.WITHIN)],
        ["two", "5.000", "0.000", "-0.250 to 0.250", str(Says.IDLE)],
    ]


def test_a_probe_s_table_says_what_does_not_hold_and_what_was_lost_or_gained() -> None:
    kept = contract.Finding("a", {"rerun": [1, 2]}, {"rerun": []}, contract.Standing.KEPT)
    lost = contract.Finding(
        "b", {"rerun": [2], "padding": [1]}, {"rerun": [1, 3, 4], "padding": [2]}, contract.Standing.LOST, "rerun at 1"
    )
    gained = contract.Finding("c", {"rerun": [1]}, {"rerun": []}, contract.Standing.GAINED, "rerun at 1")
    assert cells(probed(contract.Findings((kept, lost, gained), "here", (), {}))) == [
        ["subject", "does not hold", "contract"],
        ["a", "everything holds", "kept"],
        ["b", "rerun at 1, 3-4 rows; padding at 2 rows", "lost"],
        ["", "lost: rerun at 1", ""],
        ["c", "everything holds", "gained"],
        ["", "gained: rerun at 1", ""],
    ]


# Colours, and what is no markup.


def styles(table: Table) -> list[list[tuple[str, str]]]:
    """Words and style of each cell, a list for each row."""
    columns = [[(str(cell), str(getattr(cell, "style", ""))) for cell in column._cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


GREEN = {Verdict.EXACT, Verdict.TOLERANCE}
YELLOW = {Verdict.NOT_GATED, Verdict.OUTSIDE_PROFILE}


@pytest.mark.parametrize("verdict", Verdict)
def test_a_scenario_s_verdict_is_green_where_it_passes_and_red_where_it_differs(verdict: Verdict) -> None:
    (table,) = check_tables(CheckReport(Report((Result("one", verdict),), "here", {"here": ()})))
    color = "green" if verdict in GREEN else "yellow" if verdict in YELLOW else "red"
    assert styles(table) == [[("one", ""), (str(verdict), color), ("", "")]]


@pytest.mark.parametrize("standing", contract.Standing)
def test_a_subject_s_standing_is_green_where_it_is_kept_and_red_where_it_is_lost(standing: contract.Standing) -> None:
    finding = contract.Finding("a[b]", {"rerun": [1]}, {"rerun": [2]}, standing, "rerun at [1]")
    color = {"kept": "green", "lost": "red"}.get(standing, "yellow")
    assert styles(probed(contract.Findings((finding,), "here", (), {}))) == [
        [("a[b]", ""), ("rerun at 2 rows", ""), (str(standing), color)],
        [("", ""), (f"{standing}: rerun at [1]", color), ("", "")],
    ]


def test_of_a_probe_as_many_rows_as_there_are_findings_are_printed_and_what_fails_at_no_rows_is_left_out() -> None:
    findings = tuple(
        contract.Finding(f"s{number}", {}, {"fused": [], "rerun": list(range(number))}, contract.Standing.KEPT)
        for number in range(4)
    )
    assert cells(probed(contract.Findings(findings, "here", (), {}))) == [
        ["subject", "does not hold", "contract"],
        ["s0", "everything holds", "kept"],
        ["s1", "rerun at 0 rows", "kept"],
        ["s2", "rerun at 0-1 rows", "kept"],
        ["s3", "rerun at 0-2 rows", "kept"],
    ]


def test_a_group_of_switches_is_green_red_or_yellow_and_says_its_wrong_verdicts() -> None:
    results = (
        switched("one", Verdict.EXACT),
        replace(switched("one", Verdict.EXACT), executor=ExecutorKind.STATIC),
        replace(switched("two", Verdict.MISSING, "[gone]"), executor=ExecutorKind.STATIC),
        replace(switched("three", Verdict.MOVED, "a[0]"), executor=ExecutorKind.STATIC),
        replace(switched("two", Verdict.EXACT), acted=False),
        replace(switched("one", Verdict.OUTSIDE_PROFILE), decoder="tiny", acted=False),
        replace(switched("one", Verdict.EXACT), switch="integrator"),
    )
    (table,) = check_tables(CheckReport(None, results, None))
    assert styles(table) == [
        [(word, "") for word in ("fused_cfg", "eager", "affine", "2", "1")] + [("exact", "green")],
        [(word, "") for word in ("fused_cfg", "static", "affine", "3", "3")] + [("1 missing, 1 moved", "red")],
        [(word, "") for word in ("fused_cfg", "eager", "tiny", "0", "0")] + [("outside_profile", "yellow")],
        [(word, "") for word in ("integrator", "eager", "affine", "1", "1")] + [("exact", "green")],
    ]


def test_brackets_in_a_name_or_a_detail_are_printed_as_they_are() -> None:
    report = Report((Result("one[red]", Verdict.MOVED, detail="r0[0, 1]: [bold]1[/bold]"),), "here", {"here": ()})
    (table,) = check_tables(CheckReport(report))
    assert cells(table) == [["scenario", "verdict", "detail"], ["one[red]", "moved", "r0[0, 1]: [bold]1[/bold]"]]
    rails = CostReport((Row("a[b]", "c[red]", 1, 2),), Path("[d]/[e].json"), "2", gated=True)
    (table,) = check_tables(CheckReport(None, (), rails))
    assert cells(table)[1:] == [["a[b]", "c[red]: 1", "2", '"c[red]": 2']]


def test_the_platform_of_each_capture_is_a_column_where_there_are_several() -> None:
    results = (
        Result("one", Verdict.EXACT, compared_with="here"),
        Result("two", Verdict.TOLERANCE, detail="near", compared_with="there"),
        Result("three", Verdict.MISSING, detail="gone"),
    )
    (table,) = check_tables(CheckReport(Report(results, "here", {"here": (), "there": ("cpu",)})))
    assert cells(table) == [
        ["scenario", "verdict", "compared with", "detail"],
        ["one", "exact", "here", ""],
        ["two", "tolerance", "there", "near"],
        ["three", "missing", "", "gone"],
    ]
    (table,) = check_tables(CheckReport(Report(results, "here", {"here": ()})))
    assert cells(table)[:2] == [["scenario", "verdict", "detail"], ["one", "exact", ""]]


def test_costs_switches_and_scenarios_have_a_table_each_in_this_order_and_costs_only_where_some_differ() -> None:
    rows = (Row("plain/1", "copies", 3, 4), Row("plain/1", "ticks", 8, 8))
    wrong = CostReport(rows, Path("costs.json"), "2.0.0", gated=True)
    played = Report((Result("one", Verdict.EXACT),), "here", {"here": ()})
    results = (switched("one", Verdict.EXACT),)

    def first(captures: Report | None, switches: tuple[SwitchResult, ...], costs: CostReport | None) -> list[str]:
        return [str(table.columns[0].header) for table in check_tables(CheckReport(captures, switches, costs))]

    assert first(played, results, wrong) == ["rail", "switch", "scenario"]
    assert first(played, results, replace(wrong, rows=rows[1:])) == ["switch", "scenario"]
    assert first(played, results, replace(wrong, gated=False)) == ["switch", "scenario"]
    assert first(None, (), wrong) == ["rail"]
    assert first(played, (), None) == ["scenario"]
    assert first(None, (), None) == []


@pytest.mark.parametrize(("load", "title"), [
    (Load(), "tiny, float32, eager, cpu: T 750, depth 4, 8 steps, wavelet correction"),
    (Load(dcw=False), "tiny, float32, eager, cpu: T 750, depth 4, 8 steps"),
    (Load(guidance_scale=3.0), "tiny, float32, eager, cpu: T 750, depth 4, 8 steps, wavelet correction"),
    (Load(cfg="self", guidance_scale=3.0, dcw=False),
     "tiny, float32, eager, cpu: T 750, depth 4, 8 steps, self guidance 3"),
    (Load("mid", "onnx", "float16", "cuda", engine="folder/a.onnx", duration=2.0, depth=1, dcw=False),
     "mid, float16, onnx a.onnx, cuda: T 50, depth 1, 8 steps"),
])  # fmt: skip
def test_the_title_of_a_bench_says_what_was_measured(load: Load, title: str) -> None:
    latency = Latency(1.0, 1.0, 1.0, 1.0)
    measured = Measured(load, {"tick_ms": [4.0], "host_ms": [0.5]}, 1, 1.0, "", 0, 1, 1, latency, Bare(1, {"eager": 1}))
    ticks, _ = benched(measured, ())
    assert ticks.title == title


@pytest.mark.parametrize("several", [False, True])
def test_scenarios_stand_beside_their_platform_where_there_are_several_and_each_verdict_has_its_colour(
    several: bool,
) -> None:
    results = tuple(Result(f"of {verdict}", verdict, detail=f"why {verdict}") for verdict in Verdict)
    if several:
        results = tuple(replace(result, compared_with="there") for result in results)
    platforms = {"here": (), "there": ()} if several else {"here": ()}
    (table,) = check_tables(CheckReport(Report(results, "here", platforms)))
    whose = ["compared with"] if several else []
    assert cells(table) == [
        ["scenario", "verdict", *whose, "detail"],
        *([f"of {verdict}", str(verdict), *(["there"] if several else []), f"why {verdict}"] for verdict in Verdict),
    ]
    colours = {Verdict.EXACT: "green", Verdict.TOLERANCE: "green", Verdict.OUTSIDE_PROFILE: "yellow"}
    shown = {result.verdict: cell.style for result, cell in zip(results, table.columns[1].cells, strict=True)}  # type: ignore[union-attr]
    assert {verdict: style for verdict, style in shown.items() if verdict is not Verdict.NOT_GATED} == {
        verdict: colours.get(verdict, "red") for verdict in Verdict if verdict is not Verdict.NOT_GATED
    }
