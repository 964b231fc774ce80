"""Where the blessed costs of a block are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.parity.baselines import platform
from harness.parity.baselines.blessed import Place
from harness.rails.costs.block import COSTS, folder


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
