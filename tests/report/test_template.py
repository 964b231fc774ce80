"""Words, numbers and colours that the template of a report adds to what it is given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.parity.proofs.evidence import Evidence, Picture, Place
from harness.report.differences import DESCRIBED
from harness.report.figures import Figures, Interval
from harness.report.page import WORDS, page
from tests.report.made import captured, difference, document, evidence


def counted(name: str, blessed: int | None, now: int | None, rail: str = "plain/1") -> dict[str, Any]:
    return {"rail": rail, "name": name, "blessed": blessed, "now": now, "verdict": ["moved", "exact"][blessed == now]}


def test_three_differences_are_unfolded_and_the_others_have_only_their_titles() -> None:
    html = page(document(), [difference(f"s{number}") for number in range(5)])
    opened = re.findall(r'<details id="(d\d)"( open)?>', html)
    assert opened == [("d0", " open"), ("d1", " open"), ("d2", " open"), ("d3", ""), ("d4", "")]


def test_a_play_that_ended_early_says_so_and_one_to_its_end_does_not() -> None:
    html = page(
        document(), [difference(shown=replace(evidence(), stopped="ValueError: x")), difference(shown=evidence())]
    )
    assert html.count("The play ended early: ") == 1 and "The play ended early: ValueError: x" in html


def test_the_words_of_a_heat_map_are_of_elements_and_not_of_pixels() -> None:
    expected = torch.zeros(321, 97)
    got = expected.clone()
    got[320, 96] = 1.0
    html = page(document(), [difference(shown=Evidence((), Place(0, 0, "step"), (Picture("x", got, expected),)))])
    assert f"x: 1 of {321 * 97} elements differ, first at frame 320, channel 96</h3>" in html
    assert "Frames go to the right (321), channels go up (97); a pixel is 3 × 2 elements." in html


def test_every_tensor_that_differs_has_its_maps() -> None:
    one = evidence()
    two = replace(one, pictures=(one.pictures[0], replace(one.pictures[0], name="other")))
    html = page(document(), [difference(shown=two)])
    assert re.findall(r"<h3>(\w+): \d+ of", html) == ["velocity", "other"]
    assert re.findall(r"<figcaption><b>(\w+)</b>", html) == ["expected", "got", "distance"] * 2


def test_a_count_of_zero_is_no_missing_count() -> None:
    html = page(document(costs=[counted("a", 0, 3), counted("b", 3, 0), counted("c", None, 1), counted("d", 1, None)]))
    rows = re.findall(r'<td>([a-d])</td><td>(\w+)</td><td class="x">(\w+)</td>', html)
    assert rows == [("a", "0", "3"), ("b", "3", "0"), ("c", "none", "1"), ("d", "1", "none")]


def test_a_rail_without_a_count_has_an_empty_cell_and_operators_are_counted_apart() -> None:
    rows = [counted("copies", 1, 1), counted("ticks", 2, 2, "cfg/4"), *[counted(f"operator {n}", 1, 1) for n in "abc"]]
    html = page(document(costs=rows))
    assert "<tr><th>plain/1</th><td>1</td><td></td></tr>" in html
    assert "<tr><th>cfg/4</th><td></td><td>2</td></tr>" in html
    assert "3 counts of single operators are compared too" in html


def test_counts_and_differences_beyond_the_listed_ones_are_counted() -> None:
    costs = [counted(f"n{number}", 1, 2) for number in range(307)]
    html = page(document(costs=costs), [difference(f"s{number}") for number in range(DESCRIBED + 1)])
    assert "and 7 more; <code>--json</code> has all." in html
    assert "<b>1 more differences are not described here.</b>" in html and f"Differences ({DESCRIBED + 1})" in html


@pytest.mark.parametrize(("verdict", "colour"), [
    ("exact", "p"), ("tolerance", "p"), ("outside_profile", "w"), ("not_gated", "w"),
    ("moved", "x"), ("digest_differs", "x"), ("missing", "x"), ("orphan", "x"), ("corrupt", "x"),
])  # fmt: skip
def test_a_verdict_has_the_colour_of_what_it_means(verdict: str, colour: str) -> None:
    assert f'<th>one</th><td class="{colour}">' in page(document(scenarios=[captured("one", verdict)]))


def test_a_description_is_cut_with_a_mark_and_only_where_it_is_too_long() -> None:
    html = page(document(), [difference(detail="x" * WORDS), difference(detail="y" * (WORDS + 1))])
    assert f"<pre>{'x' * WORDS}</pre>" in html and f"<pre>{'y' * WORDS} …</pre>" in html


def test_a_plot_draws_its_band_and_each_interval_to_both_of_its_ends() -> None:
    made = (Interval("one", 1.0, 0.5, 1.5),)
    html = page(document(), (), [Figures("t", "w", ("",), (), made, 1.0, 0.25, "HEAD / BASE")])
    ((left, width),) = re.findall(r'<rect x="([\d.]+)" y="16" width="([\d.]+)"', html)
    ((low, high),) = re.findall(
        r'<line x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" stroke="var\(--accent', html
    )
    middle = (float(low) + float(high)) / 2
    assert float(left) + float(width) / 2 == pytest.approx(middle, abs=0.2)
    assert float(width) == pytest.approx((float(high) - float(low)) / 2, abs=0.2)
