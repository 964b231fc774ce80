"""The tables of `docs/gpu.md` are those of the kept reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from harness.parity.baselines.platform import ROOT

REPORTS = ROOT / "captures/cuda-nvidia-h100-80gb-hbm3/bench"
LATER = ROOT / "captures/cuda-nvidia-h200/bench"
PAGE = (ROOT / "docs/gpu.md").read_text().splitlines()


def kept(section: str, where: Path = REPORTS) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((where / f"{section}.json").read_text())["found"]
    return found


def ratios(found: dict[str, Any]) -> str:
    figures = f"{found['tick_ms']:.2f} | {found['bare_ms']:.2f} | {found['ratio']:.3f}"
    interval = f"{found['low']:.3f} to {found['high']:.3f}"
    return f"{figures} | {interval} | {round(found['launches'], 1):g} | {found['host_ms']:.1f}"


def load(found: dict[str, Any]) -> str:
    return found["load"].replace("both", "cfg and dcw") + (", fresh" if found.get("fresh") else "")  # type: ignore[no-any-return]


def cells(section: str, where: Path) -> Iterator[str]:
    """The rows of a section's table."""
    for each in kept(section, where):
        if section in ("steady", "fast"):
            yield f"{each['frames']} | {load(each)} | {ratios(each)}"
        elif section == "depth":
            yield f"{each['depth']} | {load(each)} | {ratios(each)}"
        elif section.startswith("start"):
            seconds = " | ".join(
                f"{each[name]:.1f}" for name in ("import_s", "weights_s", "prepare_s", "without_weights_s")
            )
            yield f"{each['cache']} | {seconds}"
        elif section == "latency":
            times = f"{each['touched_ticks']:g} | {each['touched_ms']:.0f} | {each['whole_ticks']:g}"
            yield f"{each['max_ticks_ahead']} | {load(each)} | {times} | {each['whole_ms']:.0f}"
        elif section == "ablate":
            saved = [(each[f"saved_{what}_ms"], *each[f"{what}_interval"]) for what in ("tick", "host")]
            yield f"{each['switch']} | " + " | ".join(f"{s:.2f} ({low:.2f} to {high:.2f})" for s, low, high in saved)
        elif section == "lockstep":
            yield f"{each['decoder']} | {each['compared'].replace('_', ' ')} | {each['verdict']}"
        elif section == "bare":
            forms = ("engine", "compiled graph", "graph", "eager")
            yield f"{each['rows']} | " + " | ".join(f"{each['ms'][form]:.2f}" for form in forms)
        elif section.startswith("two"):
            assert set(each["equal"].values()) == {True}
            yield f"{each['decoder']} | {each['frames']} | {', '.join(each['equal'])}"
        else:
            yield f"{'buckets' if each['pin_rows'] is None else 'pinned to 8'} | {each['rows']} | {each['ms']:.2f}"


SECTIONS = ("steady", "depth", "bare", "pinned", "lockstep", "two")


WITH_LATER = ("steady", "fast", "start", "start_fast", "latency", "ablate", "two_compiled")
"""Reports of `LATER`; the other files there are those of the command `bench`."""


TABLES = [*((section, REPORTS) for section in SECTIONS), *((section, LATER) for section in WITH_LATER)]


def lines(section: str, where: Path) -> list[str]:
    return [f"| {each} |" for each in cells(section, where)]


@pytest.mark.parametrize(("section", "where"), TABLES)
def test_a_table_has_every_figure_of_its_report_and_no_other(section: str, where: Path) -> None:
    expected = lines(section, where)
    first = PAGE.index(expected[0])
    last = next(n for n in range(first, len(PAGE) + 1) if n == len(PAGE) or not PAGE[n].startswith("|"))
    assert PAGE[first:last] == expected
    assert PAGE[first - 1].replace(" ", "").replace("-", "") == "|" * (expected[0].count("|"))


def test_every_report_that_is_kept_has_a_table() -> None:
    assert {path.stem for path in REPORTS.glob("*.json")} == set(SECTIONS)
    made = {path.stem for path in LATER.glob("*.json") if "section" in json.loads(path.read_text())}
    assert made == set(WITH_LATER)


@pytest.mark.parametrize(
    "found", [*kept("steady"), *kept("depth"), *kept("steady", LATER), *kept("fast", LATER)], ids=ratios
)
def test_a_kept_ratio_is_the_mean_of_its_pairs_and_every_run_was_replayed(found: dict[str, Any]) -> None:
    assert found["ratio"] == pytest.approx(fmean(found["pairs"]), abs=1e-4)
    assert found["low"] < found["ratio"] < found["high"] and len(found["pairs"]) >= 8
    assert found["runs"] == found["replays"]
    assert found["launches"] == pytest.approx(sum(found["by_call"].values()), abs=1e-3)


def test_the_recorded_decoder_that_ticks_are_compared_with_is_the_fastest_form_or_within_two_percent_of_it() -> None:
    for each in kept("bare"):
        assert each["ms"]["engine"] <= 1.02 * min(each["ms"].values())


def test_every_verdict_is_exact_and_every_switch_acted() -> None:
    assert {each["verdict"] for each in kept("lockstep")} == {"exact"}
    assert [each for each in kept("lockstep") if not each.get("acted", True)] == []
    for decoder in ("compiled", "eager"):
        assert len({each["digest"] for each in kept("lockstep") if each["decoder"] == decoder}) == 1
