"""The tables of `docs/decoder.md` are those of the kept reports."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from harness.engine.decoders.decoder_switches import ACCELERATIONS
from harness.parity.baselines.platform import ROOT
from harness.parity.proofs.decoder_error import BOUND, Lengths

PAGE = (ROOT / "docs/decoder.md").read_text().splitlines()
TINY, MID, ON_GPU, TIMES = (
    json.loads((ROOT / "captures" / name).read_text())
    for name in (
        "cpu-x86_64-avx2/decoder_parity/tiny.json",
        "cpu-x86_64-avx2/decoder_parity/mid.json",
        "cuda-nvidia-h200/decoder_parity/2b.json",
        "cuda-nvidia-h100-80gb-hbm3/decoder_times/2b.json",
    )
)


def interval(found: dict[str, float], verdict: str) -> str:
    return "exact" if verdict == "exact" else f"{found['low']:.3f} to {found['high']:.3f}"


def errors(*cases: tuple[dict[str, Any], int, int]) -> Iterator[str]:
    """Rows of a table: a report's findings for so many frames and rows, and conditions of full length, side by side."""
    tables: list[dict[tuple[str, str], list[str]]] = [
        {
            (each["variant"], each["dtype"]): [interval(each[name], each["verdict"]) for name in ("velocity", "latent")]
            for each in report["found"]
            if (each["frames"], each["rows"], each["lengths"]) == (frames, rows, "full") and "verdict" in each
        }
        for report, frames, rows in cases
    ]
    for variant, dtype in tables[0]:
        cells = chain.from_iterable(table.get((variant, dtype), ["not measured"] * 2) for table in tables)
        yield f"| {variant} | {dtype} | {' | '.join(cells)} |"
    for name in cases[0][0].get("untested", []):
        yield f"| {name} | any |{' untested |' * 2 * len(cases)}"


ON_CPU = (TINY, 26, 2), (MID, 26, 2), (MID, 300, 2)


def times(report: dict[str, Any]) -> Iterator[str]:
    for each in report["found"]:
        ms = defaultdict(float, each["kernels"]["ms"])
        norms, elementwise = ms["norm"] + ms["other"], ms["elementwise"] + ms["copy"]
        figures = (each["ms"], each["products_ms"], each["ratio"])
        parts = (ms["product"], ms["attention"], norms, elementwise, ms["gap"])
        cells = [each["frames"], each["rows"], each["variant"], *(f"{figure:.2f}" for figure in (*figures, *parts))]
        yield f"| {' | '.join(map(str, cells))} | {round(sum(each['kernels']['launches'].values()))} |"


@pytest.mark.parametrize("lines", [[*errors(*ON_CPU)], [*errors((ON_GPU, 750, 4))], [*times(TIMES)]])
def test_a_table_has_every_figure_of_its_report_and_no_other(lines: list[str]) -> None:
    first = PAGE.index(lines[0])
    assert PAGE[first : first + len(lines)] == lines
    assert not PAGE[first + len(lines)].startswith("|")
    assert PAGE[first - 1].startswith("| --- ")


def test_every_variant_was_timed_and_the_page_says_what_was_reached() -> None:
    found = {(each["frames"], each["rows"], each["variant"]): each for each in TIMES["found"]}
    assert [each for each in TIMES["found"] if "ms" not in each] == []
    reached = [found[750, 8, "all, band flex"]["ratio"], found[750, 4, "all"]["ratio"], found[1500, 8, "all"]["ratio"]]
    assert "{:.2f} and {:.2f} were reached, and {:.2f} with eight".format(*reached) in " ".join(PAGE)


def test_every_acceleration_is_in_the_reports_and_in_the_table_of_switches() -> None:
    for report in (TINY, MID, ON_GPU):
        assert set(ACCELERATIONS) <= {each["variant"] for each in report["found"]}
    assert [line.split("`")[1] for line in PAGE if line.startswith("| `")] == list(ACCELERATIONS)


def test_what_is_in_the_reports_of_a_cpu_alone_is_said() -> None:
    beside = [each for report in (TINY, MID) for each in report["found"] if "verdict" in each]
    highest = max(each[name]["high"] for each in beside for name in ("velocity", "latent"))
    assert f"no upper end there is above {math.ceil(100 * highest) / 100:.2f}." in " ".join(PAGE)
    assert {(each["rows"], each["frames"]) for each in TINY["found"]} == {(2, 26), (1, 27), (5, 27)}
    for frames in (26, 27):
        assert {each["lengths"] for each in TINY["found"] if each["frames"] == frames} == set(Lengths)
    cases = {(each["dtype"], each["frames"], each["lengths"]) for each in MID["found"]}
    at_26 = {("float32", 26, "full"), ("float32", 26, "mixed"), ("bfloat16", 26, "full")}
    assert cases == {*at_26, ("float32", 300, "full")}


def test_no_error_is_above_the_bound_and_no_row_depends_on_others() -> None:
    for each in chain.from_iterable(report["found"] for report in (TINY, MID, ON_GPU)):
        assert each["apart"]
        assert max(each["velocity"]["high"], each["latent"]["high"]) <= BOUND
        assert (each["velocity"]["error"] == each["velocity"]["plain"]) or each["verdict"] == "within"
