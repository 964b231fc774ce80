"""Where the blessed costs of a block are looked for, and that every name has its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engine.errors import InvalidInput
from harness.parity.baselines import platform
from harness.parity.baselines.blessed import Place
from harness.rails.costs.block import COSTS, CostsMoved, bless, check, entries, file, folder


@pytest.mark.parametrize(("there", "asked", "found"), [
    (["aaa", "zzz", "own"], "", "own"),
    (["zzz", "aaa"], "", "aaa"),
    (["aaa", "own"], "zzz", "zzz"),
    ([], "", "own"),
])  # fmt: skip
def test_costs_of_another_platform_serve_only_where_there_are_no_own_ones_and_none_is_named(
    tmp_path: Path, there: list[str], asked: str, found: str
) -> None:
    names = {"own": platform.name()}
    for name in there:
        (tmp_path / names.get(name, name) / COSTS).mkdir(parents=True)
    assert folder(Place(tmp_path, tmp_path, asked)).parent.name == names.get(found, found)


NAMES = [
    "tick",
    "tick.v1",
    "tick.v2",
    "tick.v1.2",
    "tick.",
    "tick.json",
    "tick.json.json",
    "tick.safetensors",
    "Tick-1_",
]


def test_every_name_has_a_file_of_its_own_that_is_the_name_and_json(tmp_path: Path) -> None:
    assert [file(tmp_path, name) for name in NAMES] == [tmp_path / f"{name}.json" for name in NAMES]


def test_blessing_one_name_leaves_the_costs_of_every_other_name_as_they_were(tmp_path: Path) -> None:
    place = Place(tmp_path / "captures", tmp_path)
    costs = {name: {"operators": number, "host_reads": 0} for number, name in enumerate(NAMES, start=1)}
    for name, counts in costs.items():
        changed = bless(name, counts, place, "first")
        assert changed is not None and list(changed.lines()) == [f"{name} new"]
    assert {path.name for path in entries(place)} == {f"{name}.json" for name in NAMES}
    for name in NAMES:
        assert check(name, costs[name], place) == ""
        for other in costs.keys() - {name}:
            with pytest.raises(CostsMoved):
                check(name, costs[other], place)


@pytest.mark.parametrize("name", ["", ".tick", "../tick", "a/b", "a tick", "tick\n", "tïck"])
def test_a_name_that_can_be_no_file_s_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        file(tmp_path, name)
