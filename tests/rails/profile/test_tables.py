"""What a person reads of a profile of layers."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from harness.engine.aot.layers import Layer
from harness.rails.profile.report import Breakdown, Profile, Timed
from harness.rails.profile.rules import Facts
from harness.rails.profile.tables import tables


def printed(report, top=10):
    console = Console(width=120)
    with console.capture() as captured:
        for part in tables(report, top):
            console.print(part)
    return captured.get()


def profile(*layers, wall=(5.0,), runs=3, **provenance):
    return Breakdown(
        Profile("torch", [Timed(Facts(Layer(name)), ms) for name, ms in layers], runs, wall, False, provenance)
    )


def test_the_residual_is_printed_with_its_sign_and_share():
    assert "+1.000 (+20.0% of the wall time)" in printed(profile(("a/MatMul_1", 4.0)))
    assert "-1.000 (-20.0% of the wall time)" in printed(profile(("a/MatMul_1", 6.0)))


def test_the_wall_time_is_printed_with_the_spread_of_its_samples():
    assert "5.000 (median; 4.000 to 9.000)" in printed(profile(("a/MatMul_1", 4.0), wall=(4.0, 9.0, 5.0)))


def test_only_the_top_layers_are_listed_and_brackets_in_a_name_are_not_markup():
    text = printed(profile(("{ForeignNode[a...b]}", 3.0), ("a/MatMul_1", 2.0), ("b/Add_3", 1.0)), top=2)
    assert "{ForeignNode[a...b]}" in text
    assert "a/MatMul_1" in text
    assert "b/Add_3" not in text


def test_the_last_line_is_what_is_unattributed():
    lines = printed(profile(("a/MatMul_1", 3.0), ("{ForeignNode[a...b]}", 0.5), ("?", 0.5))).splitlines()
    assert lines[-1] == "unattributed: 25.00% of the time, 2 of 3 layers (rules 1)"


def test_a_list_without_times_prints_none():
    text = printed(profile(("a/MatMul_1", 0.0), ("?", 0.0), wall=(), runs=0))
    assert "unattributed: 50.00% of the layers, 1 of 2 layers" in text
    assert "wall" not in text
    assert "ms" not in text
    assert "product" in text


def test_a_profile_from_a_file_says_that_the_wall_time_was_not_measured():
    text = printed(profile(("a/MatMul_1", 4.0), wall=()))
    assert "not measured" in text
    assert "residual" not in text


def test_what_was_run_is_said_and_what_is_empty_is_not():
    text = printed(profile(("a/MatMul_1", 4.0), device="cuda", engine=None))
    assert "cuda" in text
    assert "engine" not in text


@pytest.mark.parametrize(("wall", "ms", "columns"), [
    ((5.0,), 4.0, ["category", "layers", "ms", "share"]),
    ((), 0.0, ["category", "layers", "share"]),
])  # fmt: skip
def test_every_figure_of_a_category_has_a_name(wall, ms, columns):
    lines = printed(profile(("a/MatMul_1", ms), wall=wall, runs=len(wall))).splitlines()
    (header,) = [line for line in lines if "category" in line and "layers" in line]
    assert re.findall(r"\w+", header) == columns
