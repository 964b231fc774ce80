"""The table of `docs/gpu.md` is the kept report's."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

import pytest

from harness.parity.baselines.platform import ROOT

KEPT: dict[str, Any] = json.loads((ROOT / "captures/cuda-nvidia-h100-80gb-hbm3/bench/steady.json").read_text())
ROWS = [line for line in (ROOT / "docs/gpu.md").read_text().splitlines() if line[:3] in ("| 7", "| 1")]


def row(load: dict[str, Any]) -> str:
    name = load["load"].replace("both", "cfg and dcw") + (", fresh" if load["fresh"] else "")
    figures = f"{load['tick_ms']:.2f} | {load['bare_ms']:.2f} | {load['ratio']:.3f}"
    return f"| {load['frames']} | {name} | {figures} | {load['low']:.3f} to {load['high']:.3f} | {load['launches']:g} |"


def test_the_page_has_every_kept_load_and_no_other_figure() -> None:
    assert [row(load) for load in KEPT["loads"]] == ROWS
    assert len(ROWS) == 9


@pytest.mark.parametrize("load", KEPT["loads"], ids=row)
def test_a_kept_ratio_is_the_mean_of_its_pairs_and_every_run_was_replayed(load: dict[str, Any]) -> None:
    assert load["ratio"] == pytest.approx(fmean(load["pairs"]), abs=1e-4)
    assert load["low"] < load["ratio"] < load["high"] and len(load["pairs"]) >= 8
    assert load["runs"] == load["replays"]
    assert load["launches"] == pytest.approx(sum(load["by_call"].values()))
