"""What a check of a block's costs says, what it writes and what it leaves as it was, to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.parity.baselines import platform, store
from harness.parity.baselines.blessed import Place
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.compare import NothingCompared
from harness.rails.costs import block
from harness.rails.costs.block import COSTS, Block, CostsMoved, bless, check, entries, file, folder
from harness.rails.costs.lines import Line

COUNTS = {"host_reads": 2, "allocations": 0, "copies": 1, "operators": 3, "operator aten::add": 3}


@pytest.fixture(name="place")
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(block, "version", lambda: "2.0.0")
    return Place(tmp_path / "captures", tmp_path)


def blessed(place: Place, reason: str = "why", **changes: int | None) -> str | None:
    """Bless `COUNTS` with changes, where None takes a count away; the lines that say what was written."""
    counts = {name: number for name, number in {**COUNTS, **changes}.items() if number is not None}
    rewritten = bless("tick", counts, place, reason)
    return None if rewritten is None else "\n".join(rewritten.lines())


def document(place: Place) -> dict[str, Any]:
    return store.read_document(file(folder(place), "tick"))


def test_a_difference_names_the_file_the_torch_and_every_count_that_differs(place: Place) -> None:
    bless("tick", {**COUNTS, **{f"operator aten::op{n}": n for n in range(20)}}, place, "why")
    now = {"operators": 4, "host_reads": 2, "copies": 0, "operator aten::add": 3, "operator aten::mul": 1}
    with pytest.raises(CostsMoved) as moved:
        check("tick", now, place)
    path = place.captures / platform.name() / "costs" / "tick.json"
    wanted = [
        f"tick: costs differ from those blessed in {path} for torch 2.0.0:",
        "operators: blessed 3, now 4",
        "copies: blessed 1, now 0",
        "operator aten::mul: blessed None, now 1",
        "allocations: blessed 0, now None",
        *(f"operator aten::op{n}: blessed {n}, now None" for n in sorted(range(20), key=str)),
    ]
    assert str(moved.value).split("\n  ") == wanted
    assert [(row.rail, row.name, row.blessed, row.now) for row in moved.value.rows][:4] == [
        ("tick", "operators", 3, 4),
        ("tick", "copies", 1, 0),
        ("tick", "operator aten::mul", None, 1),
        ("tick", "allocations", 0, None),
    ]
    assert len(moved.value.rows) == 24


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("by", [1, -1, None])
def test_each_count_that_is_more_or_less_or_gone_is_a_difference(place: Place, name: str, by: int | None) -> None:
    blessed(place)
    changed = {key: number for key, number in COUNTS.items() if key != name or by is not None}
    if by is not None:
        changed[name] += by
    elif name in ("operators", "host_reads"):
        changed[name] = 0  # these two are always counted
    with pytest.raises(CostsMoved) as moved:
        check("tick", changed, place)
    assert [row.name for row in moved.value.rows] == [name]


def test_equal_counts_in_another_order_are_equal(place: Place) -> None:
    blessed(place)
    assert check("tick", dict(reversed(COUNTS.items())), place) == ""


def test_a_version_without_counts_is_named_beside_those_that_have_some_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(folder(place), "tick")
    for version in ("2.9.0", "2.10.0"):
        monkeypatch.setattr(block, "version", lambda version=version: version)
        blessed(place)
    monkeypatch.setattr(block, "version", lambda: "3.0.0")
    assert check("tick", COUNTS, place) == f"{path} has costs for torch 2.10.0, 2.9.0, this is 3.0.0"
    assert check("tick", {**COUNTS, "copies": 9}, place) == f"{path} has costs for torch 2.10.0, 2.9.0, this is 3.0.0"
    monkeypatch.setattr(block, "version", lambda: "2.9.0")
    assert check("tick", COUNTS, place) == ""


def test_a_name_that_was_never_blessed_is_no_pass_and_its_file_is_named(place: Place) -> None:
    blessed(place)
    with pytest.raises(store.CaptureMissing) as missing:
        check("tock", COUNTS, place)
    path = place.captures / platform.name() / "costs" / "tock.json"
    assert str(missing.value) == f"{path}: missing, tock was never blessed"


NOTHING = "tick: no operator ran inside the block, in the block's own thread"


@pytest.mark.parametrize(("operators", "reads"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_a_block_in_which_nothing_ran_is_refused_and_one_with_an_operator_or_a_read_is_not(
    place: Place, operators: int, reads: int
) -> None:
    counts = {"operators": operators, "host_reads": reads}
    if operators or reads:
        assert bless("tick", counts, place, "why") is not None
        assert check("tick", counts, place) == ""
        return
    for act in (lambda: bless("tick", counts, place, "why"), lambda: check("tick", counts, place)):
        with pytest.raises(NothingCompared) as refused:
            act()
        assert str(refused.value) == NOTHING
    assert not place.captures.exists()
    blessed(place)
    with pytest.raises(NothingCompared):
        check("tick", counts, place)


def test_blessing_says_what_changed_and_keeps_reason_and_other_versions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert blessed(place, "first") == "tick new"
    assert document(place) == {"torch": {"2.0.0": COUNTS}, "reason": "first"}
    said = blessed(place, "second", copies=0, host_reads=3, allocations=None, **{"operator aten::mul": 1})
    assert said == "tick moved: host_reads 2 -> 3, copies 1 -> 0, operator aten::mul None -> 1, allocations 0 -> None"
    moved = {"host_reads": 3, "copies": 0, "operators": 3, "operator aten::add": 3, "operator aten::mul": 1}
    assert document(place) == {"torch": {"2.0.0": moved}, "reason": "second"}
    monkeypatch.setattr(block, "version", lambda: "3.0.0")
    assert blessed(place, "third") == "tick new for torch 3.0.0"
    assert document(place) == {"torch": {"2.0.0": moved, "3.0.0": COUNTS}, "reason": "third"}


def test_blessing_what_is_blessed_writes_nothing(place: Place) -> None:
    blessed(place, "first")
    path = file(folder(place), "tick")
    was = path.read_bytes(), path.stat().st_mtime_ns
    assert blessed(place, "second") is None
    assert bless("tick", dict(reversed(COUNTS.items())), place, "third") is None
    assert (path.read_bytes(), path.stat().st_mtime_ns) == was


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "torch": {}}', '{"format": 9}'])
def test_a_file_that_is_corrupt_is_no_pass_and_blessing_restores_it_and_says_so(place: Place, text: str) -> None:
    blessed(place)
    path = file(folder(place), "tick")
    path.write_text(text)
    with pytest.raises(store.CaptureCorrupt, match=r"tick\.json: "):
        check("tick", COUNTS, place)
    assert blessed(place, "again") == "tick restored, its file was corrupt"
    assert document(place) == {"torch": {"2.0.0": COUNTS}, "reason": "again"}


def test_counts_that_were_edited_by_hand_are_corrupt(place: Place) -> None:
    blessed(place)
    path = file(folder(place), "tick")
    edited = json.loads(path.read_text())
    edited["torch"]["2.0.0"]["copies"] = 9
    path.write_text(json.dumps(edited))
    with pytest.raises(store.ManifestAltered):
        check("tick", {**COUNTS, "copies": 9}, place)


def test_another_platform_s_costs_cannot_be_blessed_here_and_nothing_is_written(place: Place) -> None:
    elsewhere = Place(place.captures, place.project, "board")
    with pytest.raises(BlessRefused) as refused:
        bless("tick", COUNTS, elsewhere, "why")
    assert str(refused.value) == f"captures of board cannot be blessed on {platform.name()}"
    assert not place.captures.exists()
    own = Place(place.captures, place.project, platform.name())
    assert bless("tick", COUNTS, own, "why") is not None


def test_costs_are_written_where_a_project_keeps_them(place: Place) -> None:
    (place.captures / "board" / COSTS).mkdir(parents=True)
    assert blessed(place) == "tick new"
    assert [path.relative_to(place.captures).as_posix() for path in place.captures.rglob("*.json")] == [
        "board/costs/tick.json"
    ]
    assert check("tick", COUNTS, place) == ""


def test_the_reference_platform_s_costs_go_before_those_of_any_other(place: Place) -> None:
    (place.project / "pyproject.toml").write_text('[tool.harness]\nreference-platform = "mmm"\n')
    for name in ("aaa", "mmm", "zzz"):
        (place.captures / name / COSTS).mkdir(parents=True)
    assert folder(place).parent.name == "mmm"


def test_entries_are_every_file_of_the_folder_in_order_and_none_without_a_folder(place: Place) -> None:
    assert entries(place) == []
    where = place.captures / platform.name() / COSTS
    where.mkdir(parents=True)
    for name in ("zoo.json", "stray.txt", "Alpha.json", "beta.json", "beta-1.json"):
        (where / name).touch()
    assert [path.name for path in entries(place)] == sorted(
        ["zoo.json", "stray.txt", "Alpha.json", "beta.json", "beta-1.json"]
    )
    assert {path.parent for path in entries(place)} == {where}


# Calls and lines.


def test_calls_alone_are_something_to_compare_and_none_is_not(place: Place) -> None:
    counts = {"operators": 0, "host_reads": 0, "calls execute": 1}
    assert bless("tick", counts, place, "why") is not None
    assert check("tick", counts, place) == ""
    with pytest.raises(CostsMoved, match="calls execute: blessed 1, now 2"):
        check("tick", {**counts, "calls execute": 2}, place)
    with pytest.raises(NothingCompared):
        check("tick", {**counts, "calls execute": 0}, place)


READ = {
    (Line("/other/late.py", 9, "late"), "torch.Tensor.cpu"): 1,
    (Line("{root}/ring/tick.py", 7, "Ring.tick"), "torch.Tensor.item"): 2,
}


def test_where_host_reads_differ_the_lines_that_read_are_named_from_the_project_s_folder(place: Place) -> None:
    blessed(place)
    lines = {(line._replace(file=line.file.format(root=place.project)), name): n for (line, name), n in READ.items()}
    with pytest.raises(CostsMoved) as moved:
        check("tick", {**COUNTS, "host_reads": 3}, place, lines)
    assert str(moved.value).split("\n  ")[1:] == [
        "host_reads: blessed 2, now 3",
        "host reads now, by line of code:",
        "  /other/late.py:9 in late: torch.Tensor.cpu",
        "  ring/tick.py:7 in Ring.tick: torch.Tensor.item, 2 times",
    ]
    with pytest.raises(CostsMoved) as moved:
        check("tick", {**COUNTS, "copies": 3}, place, lines)
    assert str(moved.value).split("\n  ")[1:] == ["copies: blessed 1, now 3"]


def test_a_line_that_moves_is_no_difference_and_is_in_no_file(place: Place) -> None:
    blessed(place)
    assert check("tick", COUNTS, place, dict(READ)) == ""
    assert "late" not in file(folder(place), "tick").read_text()


# The block itself.


def test_a_block_counts_what_runs_inside_it_and_nothing_after_and_lets_an_error_out() -> None:
    values, made = torch.ones(3), Block()
    assert made.counts == {"host_reads": 0, "allocations": 0, "copies": 0, "operators": 0}
    with made as entered:
        assert entered is made
        values.clone()
        values.tolist()
        (values + 1.0).sum().item()
        inside = made.counts
    values.clone()
    values.tolist()
    assert made.counts == inside == {
        "host_reads": 2, "allocations": 3, "copies": 1, "operators": 4, "operator aten::_local_scalar_dense": 1,
        "operator aten::add": 1, "operator aten::clone": 1, "operator aten::sum": 1,
    }  # fmt: skip
    assert list(inside)[:4] == ["host_reads", "allocations", "copies", "operators"]
    assert list(inside)[4:] == sorted(list(inside)[4:])
    failing = Block()
    with pytest.raises(ZeroDivisionError), failing:
        values.add(1.0)
        raise ZeroDivisionError
    values.add(1.0)
    values.tolist()
    assert (failing.counts["operators"], failing.counts["host_reads"]) == (1, 0)


def test_a_block_within_another_is_counted_in_both() -> None:
    values = torch.ones(3)
    with Block() as outer:
        values.neg()
        with Block() as inner:
            values.clone()
            values.tolist()
        values.neg()
    assert (inner.counts["operators"], inner.counts["host_reads"], inner.counts["copies"]) == (1, 1, 1)
    assert (outer.counts["operators"], outer.counts["host_reads"], outer.counts["copies"]) == (3, 1, 1)
