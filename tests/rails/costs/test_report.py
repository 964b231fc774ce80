"""What the report of the cost rails says, which file is compared with, and what blessing leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.checkout import PACKAGE
from harness.engine.switches import SWITCHES, Switches
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import ReplayFailed
from harness.parity.baselines.refusals import BlessRefused
from harness.rails import costs as package
from harness.rails.costs import counts
from harness.rails.costs import rails as costs
from harness.rails.costs.counts import Counts, Row
from harness.rails.costs.rails import CostReport
from harness.rails.costs.workload import KINDS, STREAMS, Workload

FILE = Path("captures/board/costs.json")
ROWS = (
    Row("plain/1", "ticks", 8, 8),
    Row("plain/1", "copies", 2, 1),
    Row("plain/1", "operator aten::add", None, 3),
    Row("mixed/4", "copies", 0, 1),
    Row("mixed/4", "operator aten::mul", 4, None),
    Row("self/8", "ticks", 0, 0),
)
ALL_SAME = (ROWS[0], ROWS[5])


def test_a_report_of_differences_names_each_count_and_the_rails_in_which_it_differs() -> None:
    report = CostReport(ROWS, FILE, "2.0.0", gated=True)
    assert not report.passes
    assert report.wrong() == list(ROWS[1:5])
    moved = {"copies": ["plain/1", "mixed/4"], "operator aten::add": ["plain/1"], "operator aten::mul": ["mixed/4"]}
    assert report.moved() == moved and list(report.moved()) == list(moved)
    assert report.summary() == (
        "3 cost rails, 6 counts: different: copies in 2, operator aten::add in 1, operator aten::mul in 1"
    )
    assert report.document() == [
        {"rail": "plain/1", "name": "ticks", "blessed": 8, "now": 8, "verdict": "exact"},
        {"rail": "plain/1", "name": "copies", "blessed": 2, "now": 1, "verdict": "moved"},
        {"rail": "plain/1", "name": "operator aten::add", "blessed": None, "now": 3, "verdict": "moved"},
        {"rail": "mixed/4", "name": "copies", "blessed": 0, "now": 1, "verdict": "moved"},
        {"rail": "mixed/4", "name": "operator aten::mul", "blessed": 4, "now": None, "verdict": "moved"},
        {"rail": "self/8", "name": "ticks", "blessed": 0, "now": 0, "verdict": "exact"},
    ]


def test_a_report_of_equal_counts_passes_and_says_how_many_there_are() -> None:
    report = CostReport(ALL_SAME, FILE, "2.0.0", gated=True)
    assert (report.passes, report.wrong(), report.moved()) == (True, [], {})
    assert report.summary() == "2 cost rails, 2 counts: all as blessed"
    assert [row["verdict"] for row in report.document()] == ["exact", "exact"]


@pytest.mark.parametrize("rows", [ROWS, ALL_SAME])
def test_a_report_without_counts_of_this_torch_gates_nothing_and_is_no_pass(rows: tuple[Row, ...]) -> None:
    report = CostReport(rows, FILE, "2.0.0", gated=False)
    assert (report.passes, report.wrong(), report.moved()) == (False, [], {})
    rails = len({row.rail for row in rows})
    assert report.summary() == f"{rails} cost rails: not gated, {FILE} has no costs for torch 2.0.0"
    assert {row["verdict"] for row in report.document()} == {"not_gated"}


def test_a_rail_that_is_gone_is_counted_among_the_rails() -> None:
    report = CostReport((Row("gone/1", "ticks", 8, None), *ALL_SAME), FILE, "2.0.0", gated=True)
    assert report.summary() == "3 cost rails, 3 counts: different: ticks in 1"


def test_a_report_without_rows_is_no_pass() -> None:
    assert not CostReport((), FILE, "2.0.0", gated=True).passes


@pytest.mark.parametrize("place", range(len(ALL_SAME) + 1))
def test_one_row_that_differs_is_enough_wherever_it_stands(place: int) -> None:
    rows = (*ALL_SAME[:place], ROWS[1], *ALL_SAME[place:])
    assert not CostReport(rows, FILE, "2.0.0", gated=True).passes


def test_the_replacement_of_a_count_is_json() -> None:
    assert counts.replacement(Row("r", 'a "count"', 1, 0)) == '"a \\"count\\"": 0'
    assert counts.replacement(Row("r", "count", None, 7)) == '"count": 7'
    assert counts.replacement(Row("r", "count", 1, None)) == "none, the count is gone"


def test_a_table_has_every_count_of_either_side_once_those_of_now_first() -> None:
    rows = counts.table("rail", {"gone": 1, "b": 2, "a": 3}, {"a": 3, "new": 0, "b": 5})
    assert rows == [
        Row("rail", "a", 3, 3),
        Row("rail", "new", None, 0),
        Row("rail", "b", 2, 5),
        Row("rail", "gone", 1, None),
    ]
    assert [row.same for row in rows] == [True, False, False, False]
    assert counts.table("rail", {}, {}) == []


def test_a_count_of_nothing_is_not_the_absence_of_the_count() -> None:
    assert not Row("rail", "copies", None, 0).same and not Row("rail", "copies", 0, None).same


# The rails.


def test_each_rail_is_the_workload_that_its_name_says() -> None:
    wanted = {}
    for depth in (1, 4, 8):
        wanted |= {f"{kind}/{depth}": Workload(kind, depth) for kind in KINDS}
        wanted[f"cfg_full, two passes/{depth}"] = Workload("cfg_full", depth, switches=Switches(fused_cfg=False))
        wanted[f"dcw/{depth}"] = Workload("plain", depth, dcw=True)
    for name in SWITCHES:
        wanted[f"mixed, {name} off/4"] = Workload("mixed", 4, switches=Switches().turned_off(name))
    wanted |= {f"stream {kind}/4": Workload(kind, 4, streamed=True) for kind in STREAMS}
    assert costs.rails() == wanted and list(costs.rails()) == list(wanted)
    assert list(costs.rails())[:2] == ["plain/1", "cfg_full/1"]


def test_the_line_of_growth_goes_through_the_smallest_and_the_largest_depth() -> None:
    def ring(ticks: int, operators: int) -> Counts:
        return {"ticks": ticks, "operators": operators}

    counted = {
        "plain/8": ring(2, 36), "plain/4": ring(4, 400), "plain/1": ring(8, 32),
        "cfg, two passes/1": ring(1, 10), "cfg, two passes/8": ring(1, 80),
        "mixed, a off/4": ring(1, 1), "stream plain/4": ring(1, 1),
    }  # fmt: skip
    found = costs.growth(counted)
    assert found == {"cfg, two passes": (0.0, 10.0), "plain": (2.0, 2.0)}
    assert list(found) == sorted(found)


def test_the_package_has_growth_and_no_other_name_of_its_own() -> None:
    assert package.growth is costs.growth
    with pytest.raises(AttributeError, match=r"^module 'harness\.rails\.costs' has no attribute 'groth'$"):
        _ = package.groth


@pytest.mark.parametrize(("build", "version"), [
    ("2.13.0", "2.13.0"), ("2.13.0+cpu", "2.13.0"), ("2.11.0a0+git1+x", "2.11.0a0"), ("2.9.1.dev2", "2.9.1.dev2"),
])  # fmt: skip
def test_the_version_of_torch_is_without_its_build(monkeypatch: pytest.MonkeyPatch, build: str, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", build)
    assert costs.version() == version


# Which file.

PLACES = ("own", "reference", "aaa", "zzz")


@pytest.fixture(name="named")
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "name", lambda *_: "own")
    monkeypatch.setattr(platform, "reference_platform", lambda *_: "reference")


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("there", [order for n in range(5) for order in permutations(PLACES, n) if n < 3 or n == 4])
def test_costs_are_this_platform_s_else_the_reference_s_else_the_first_other_s(
    tmp_path: Path, there: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "costs.json").touch()
    (tmp_path / "bbb").mkdir()  # without costs
    wanted = next((name for name in PLACES if name in there), "own")
    assert costs.path(tmp_path) == tmp_path / wanted / "costs.json"


def test_where_there_is_no_file_there_are_no_costs(tmp_path: Path) -> None:
    assert costs.read(tmp_path / "costs.json") == {}
    with pytest.raises(store.ManifestMissing, match=r"costs\.json: missing"):
        counts.by_version(tmp_path / "costs.json")


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        ("torch", "torch: got a list of 0"),
        ("rails", "torch.3.0.0: got 1"),
        ("counts", "torch.3.0.0.two: got 4"),
    ],
)
def test_what_is_read_is_a_mapping_at_every_level_also_for_another_torch(tmp_path: Path, bad: str, where: str) -> None:
    good = {"1.0.0": {"one": {"ticks": 8}, "two": {"ticks": 4}}, "2.0.0": {}}
    file = tmp_path / "costs.json"
    store.write_document(file, {"torch": good, "reason": "why"})
    assert costs.read(file) == good
    spoilt: dict[str, Any] = {
        "torch": [],
        "rails": {**good, "3.0.0": 1},
        "counts": {**good, "3.0.0": {"one": {"ticks": 8}, "two": 4}},
    }
    store.write_document(file, {"torch": spoilt[bad], "reason": "why"})
    with pytest.raises(store.ManifestAltered) as altered:
        costs.read(file)
    assert str(altered.value) == f"{file}: altered, not of format 1 ({where}, expected a mapping)"


# Counting, checking and blessing, with counts that are made up.

NOW = {"one": {"ticks": 8, "operators": 3}, "two": {"ticks": 4, "operators": 2}}


class Counting:
    """In place of the rails: `now` is what is counted, and `calls` says in which order things happened."""

    def __init__(self, captures: Path) -> None:
        self.captures = captures
        self.now: dict[str, Counts] = {name: dict(counts) for name, counts in NOW.items()}
        self.later: Iterator[dict[str, Counts]] | None = None
        self.calls: list[str] = []

    def counted(self, advance: Callable[[str], None] = lambda _name: None) -> dict[str, Counts]:
        self.calls.append("here")
        for name in self.now:
            advance(name)
        found = self.now if self.later is None else next(self.later)
        return {name: dict(counts) for name, counts in found.items()}

    def fresh(self) -> dict[str, Counts]:
        self.calls.append("afresh")
        return {name: dict(counts) for name, counts in self.now.items()}

    def bless(self, reason: str = "why") -> CostReport:
        return costs.bless(reason, self.captures, self.fresh)

    @property
    def file(self) -> Path:
        return self.captures / "own" / "costs.json"


@pytest.fixture(name="made")
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: None) -> Counting:
    made = Counting(tmp_path / "captures")
    monkeypatch.setattr(costs, "counted", made.counted)
    monkeypatch.setattr(costs, "version", lambda: "2.0.0")
    monkeypatch.setattr(costs, "refuse_unless_explicit", lambda reason, captures: made.calls.append(f"may {reason}"))
    return made


def test_a_check_names_each_rail_and_reports_every_count_in_order(made: Counting) -> None:
    store.write_document(
        made.file,
        {"torch": {"2.0.0": {"gone": {"ticks": 1}, "two": {"operators": 2, "ticks": 5}}, "1.0.0": NOW}, "reason": "r"},
    )
    named: list[str] = []
    report = costs.check(made.captures, named.append)
    assert named == ["one", "two"]
    assert report == CostReport(
        (
            Row("one", "ticks", None, 8),
            Row("one", "operators", None, 3),
            Row("two", "ticks", 5, 4),
            Row("two", "operators", 2, 2),
            Row("gone", "ticks", 1, None),
        ),
        made.file,
        "2.0.0",
        gated=True,
    )


@pytest.mark.parametrize("torches", [None, {}, {"1.0.0": NOW}, {"2.0.0": {}}])
def test_without_counts_of_this_torch_every_count_is_reported_and_none_is_gated(
    made: Counting, torches: dict[str, Any] | None
) -> None:
    if torches is not None:
        store.write_document(made.file, {"torch": torches, "reason": "r"})
    report = costs.check(made.captures)
    assert (report.gated, report.passes, report.file, report.torch) == (False, False, made.file, "2.0.0")
    assert [(row.rail, row.name, row.blessed, row.now) for row in report.rows] == [
        ("one", "ticks", None, 8), ("one", "operators", None, 3),
        ("two", "ticks", None, 4), ("two", "operators", None, 2),
    ]  # fmt: skip


def test_blessing_asks_whether_it_may_and_counts_three_times_and_tells_what_was_there_before(made: Counting) -> None:
    first = made.bless("first")
    assert made.calls == ["may first", "here", "here", "afresh"]
    assert (first.gated, first.wrong()) == (False, [])
    assert store.read_document(made.file) == {"torch": {"2.0.0": NOW}, "reason": "first"}
    made.now["one"]["ticks"] = 9
    del made.now["two"]
    second = made.bless("second")
    assert [(row.rail, row.name, row.blessed, row.now) for row in second.wrong()] == [
        ("one", "ticks", 8, 9), ("two", "operators", 2, None), ("two", "ticks", 4, None)
    ]  # fmt: skip
    assert store.read_document(made.file) == {
        "torch": {"2.0.0": {"one": {"ticks": 9, "operators": 3}}},
        "reason": "second",
    }


def test_blessing_keeps_the_costs_of_other_versions(made: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    made.bless("first")
    monkeypatch.setattr(costs, "version", lambda: "3.0.0")
    made.now["one"]["ticks"] = 9
    made.bless("second")
    assert store.read_document(made.file) == {"torch": {"2.0.0": NOW, "3.0.0": made.now}, "reason": "second"}


def test_blessing_what_is_blessed_writes_nothing(made: Counting) -> None:
    made.bless("first")
    was = made.file.read_bytes(), made.file.stat().st_mtime_ns
    assert made.bless("second").passes
    assert (made.file.read_bytes(), made.file.stat().st_mtime_ns) == was


def test_blessing_writes_this_platform_s_file_where_another_s_differs_and_nothing_where_it_is_equal(
    made: Counting,
) -> None:
    board = made.captures / "board" / "costs.json"
    store.write_document(board, {"torch": {"2.0.0": NOW, "1.0.0": {}}, "reason": "board"})
    was = board.read_bytes()
    assert made.bless().passes and not made.file.exists()
    made.now["one"]["ticks"] = 9
    report = made.bless("own")
    assert report.file == board and len(report.wrong()) == 1
    assert store.read_document(made.file) == {"torch": {"2.0.0": made.now}, "reason": "own"}
    assert board.read_bytes() == was


@pytest.mark.parametrize(("where", "said"), [
    ("here", "the costs are not reproducible: a second count in this process differs"),
    ("afresh", "the costs are not reproducible: a count in a fresh process differs"),
])  # fmt: skip
@pytest.mark.parametrize("change", ["more", "gone", "another rail"])
def test_counts_that_are_not_the_same_again_are_not_blessed(made: Counting, where: str, said: str, change: str) -> None:
    other: dict[str, Counts] = {name: dict(counts) for name, counts in NOW.items()}
    if change == "more":
        other["two"]["operators"] += 1
    elif change == "gone":
        del other["two"]["operators"]
    else:
        other["three"] = {"ticks": 1}
    if where == "here":
        made.later = iter([NOW, other])
    else:
        made.fresh = lambda: other  # type: ignore[method-assign]
    with pytest.raises(BlessRefused) as refused:
        made.bless()
    assert str(refused.value) == said
    assert not made.captures.exists()


def test_blessing_that_may_not_be_counts_nothing(made: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(reason: str, captures: Path) -> None:
        raise BlessRefused(f"{reason} {captures.name}")

    monkeypatch.setattr(costs, "refuse_unless_explicit", refuse)
    with pytest.raises(BlessRefused, match="^why captures$"):
        made.bless()
    assert made.calls == []


def test_every_rail_is_counted_in_order_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: SimpleNamespace(name=name) for name in ("zoo", "alpha", "mid")}
    threads, before = [], torch.get_num_threads()
    monkeypatch.setattr(costs, "rails", lambda: few)

    def count(workload: Any) -> Counts:
        threads.append(torch.get_num_threads())
        return {"ticks": len(workload.name)}

    monkeypatch.setattr(costs, "count", count)
    torch.set_num_threads(2)
    try:
        found = costs.counted()
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert (threads, after) == ([1, 1, 1], 2)
    assert list(found.items()) == [("zoo", {"ticks": 3}), ("alpha", {"ticks": 5}), ("mid", {"ticks": 3})]


def test_a_fresh_process_that_fails_is_reported_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []

    def run(command: list[str], **more: Any) -> Any:
        ran.append((command, more))
        return SimpleNamespace(returncode=code, stdout=json.dumps({"one": {"ticks": 1}}), stderr="  broke\nhere \n")

    monkeypatch.setattr(subprocess, "run", run)
    for code in (1, 2, -9):
        with pytest.raises(ReplayFailed) as failed:
            costs.counted_afresh()
        assert str(failed.value) == f"harness _costs exited with {code}:\nbroke\nhere"
    code = 0
    assert costs.counted_afresh() == {"one": {"ticks": 1}}
    (command, more) = ran[-1]
    assert command == [sys.executable, "-m", "harness", "_costs"]
    assert more["cwd"] == PACKAGE.parent
