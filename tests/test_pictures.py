"""The pictures of the documentation show the numbers of the kept reports, and are those that the code draws now."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.engine.switches import SWITCHES
from harness.parity.baselines.platform import ROOT
from harness.rails.compare.statistics import TimeVerdict
from tests.pictures import draw, paper, reports
from tests.pictures.__main__ import PICTURES, made

FOLDER = ROOT / "docs/pictures"


@pytest.fixture(name="drawn", scope="module")
def _drawn() -> dict[str, str]:
    return made()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_one_that_is_drawn_from_the_reports_now(name: str, drawn: dict[str, str]) -> None:
    assert (FOLDER / f"{name}.svg").read_text() == drawn[name], "run `make figures` and commit docs/pictures"


def test_there_is_no_other_picture_and_every_one_is_shown_on_a_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert [name for name in PICTURES if f"pictures/{name}.svg)" not in pages] == []
    assert len(re.findall(r"!\[.+\]\(docs/pictures/\w+\.svg\)", (ROOT / "README.md").read_text())) == 2


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_fetches_nothing_has_a_title_and_takes_the_reader_s_ink(name: str, drawn: dict[str, str]) -> None:
    text = drawn[name]
    assert PICTURES[name][0] in text
    assert "<script" not in text and "url(http" not in text and 'xlink:href="http' not in text
    assert "prefers-color-scheme: dark" in text and "var(--ink)" in text
    assert paper.INK not in text and paper.PAPER not in text
    assert "#000000" not in text and ": black" not in text, "black is not readable on dark paper"


def bars(figure: Any) -> list[list[float]]:
    return [[each.get_width() for each in ax.patches if isinstance(each, Rectangle)] for ax in figure.axes]


def test_bars_are_as_long_as_ticks_and_decoders_take() -> None:
    found = reports.ticks()
    places = dict.fromkeys(each.where for each in found)
    wanted = [[ms for t in found if t.where == place for ms in (t.tick_ms, t.decoder_ms)] for place in places]
    assert bars(draw.ticks(found)) == [pytest.approx(each) for each in wanted]
    assert len(found) == 12


def lines(ax: Any) -> Iterator[list[tuple[float, float]]]:
    for each in ax.lines:
        assert isinstance(each, Line2D)
        yield list(zip(map(float, each.get_xdata()), map(float, each.get_ydata()), strict=True))


def test_intervals_are_those_of_the_switches_and_the_band_is_that_of_the_noise() -> None:
    noise, *switches = reports.savings()
    for ax, what in zip(draw.savings([noise, *switches]).axes, ("tick", "host"), strict=True):
        wanted = []
        for row, each in enumerate(switches):
            value, low, high = getattr(each, what)
            wanted += [[(low, row), (high, row)], [(value, row)]]
        assert list(lines(ax)) == wanted
        (band,) = ax.patches
        assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(getattr(noise, what)[1:])
    assert [each.switch for each in switches] == list(SWITCHES)


def test_lines_are_the_counts_at_each_depth() -> None:
    counts = reports.operators(), reports.launches()
    for ax, found in zip(draw.growth(*counts).axes, counts, strict=True):
        assert list(lines(ax)) == [[(float(d), float(n)) for d, n in points] for points in found.values()]
    assert counts[0]["plain"][0] == (1, 7.375)


def test_a_field_of_the_matrix_says_what_the_contract_says() -> None:
    found = reports.guarantees()
    (ax,) = draw.matrix(found).axes
    words = {"exact": "all", "some": "some", "no": "none"}
    assert [each.get_text() for each in ax.texts] == [words[said] for each in found for said in each.said]
    free = next(each for each in found if each.subject == "2b, compiled_graph, bfloat16, H200, free rows")
    assert free.said[:3] == ("some", "some", "exact")


def test_a_row_of_the_forest_has_the_ratio_the_interval_and_the_limit_of_its_load() -> None:
    metrics = json.loads((ROOT / "captures/cpu-x86_64-avx2/compare/decoder_rows.json").read_text())["metrics"]
    (ax,) = draw.forest(reports.ratios()).axes
    *drawn, one = lines(ax)
    assert [x for x, _y in one] == [1, 1] and ax.get_xscale() == "log"
    assert [each.get_text() for each in ax.get_yticklabels()] == list(metrics)
    for row, metric in enumerate(metrics.values()):
        last, band = metric["draws"][-1], ax.patches[row]
        ratio, limit = last["ratio"], last["limit"]
        assert drawn[2 * row : 2 * row + 2] == [[(ratio["low"], row), (ratio["high"], row)], [(ratio["value"], row)]]
        assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((1 - limit, 1 + limit))
        assert (band.get_y(), band.get_height()) == (row - 0.4, 0.8)
    assert len(drawn) == 2 * len(ax.patches) == 2 * len(metrics)


def test_a_row_of_the_forest_says_its_figures_and_its_verdict_in_words_and_in_colour() -> None:
    found = [reports.Ratio(verdict, 0.5, 0.25, 2, 0.025, verdict) for verdict in TimeVerdict]
    (ax,) = draw.forest(found).axes
    assert [text.get_text() for text in ax.texts] == [f"0.500 (0.250 to 2.000) {verdict}" for verdict in TimeVerdict]
    assert [text.get_position()[1] for text in ax.texts] == [0, 1, 2, 3]
    assert ax.get_xlabel().startswith("ms of HEAD ÷ ms of BASE")
    colours = {"faster": paper.GREEN, "same": paper.BLUE, "slower": paper.ORANGE, "inconclusive": draw.COLOURS[3]}
    assert [line.get_color() for line in ax.lines[:-1:2]] == [colours[verdict] for verdict in TimeVerdict]
    assert [line.get_color() for line in ax.lines[1:-1:2]] == [colours[verdict] for verdict in TimeVerdict]


def test_every_interval_of_the_forest_lies_where_its_verdict_says() -> None:
    for each in reports.ratios():
        outside = {"faster": each.high < 1 - each.limit, "slower": each.low > 1 + each.limit}
        within = 1 - each.limit <= each.low <= each.high <= 1 + each.limit
        assert each.verdict == "inconclusive" or (within if each.verdict == "same" else outside[each.verdict])
        assert each.low <= each.ratio <= each.high


def test_the_timeline_has_a_box_for_every_step_that_the_engine_ran() -> None:
    steps = reports.ring()
    (ax,) = draw.ring(steps).axes
    assert [each.get_text() for each in ax.texts] == [f"{each.request}{each.step + 1}" for each in steps]
    assert [each.get_xy()[0] for each in ax.patches] == pytest.approx([each.tick + 0.04 for each in steps])
    assert sorted({each.request for each in steps}) == list("abcde") and len(steps) == 25


def test_another_number_makes_another_picture() -> None:
    first, *rest = reports.ticks()
    other = replace(first, tick_ms=first.tick_ms + 0.01)
    assert paper.svg(draw.ticks([other, *rest]), "t") != paper.svg(draw.ticks([first, *rest]), "t")
