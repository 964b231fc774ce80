"""Forest plots: marks lie where their values do on the axis that is drawn."""

from __future__ import annotations

import pytest

from harness.report.figures import Interval
from harness.report.forest import LABELS, WIDTH, Forest, forest

ROWS = (Interval("one", 1.1, 1.05, 1.2, "slower"), Interval("two", 0.9, 0.7, 0.95))


def scale(made: Forest) -> float:
    """Pixels of a unit of the axis, by its outer ticks."""
    (first, low), *_, (last, high) = made.axis
    return (last - first) / (float(high) - float(low))


def test_ends_values_middle_and_band_lie_at_their_places_on_one_axis() -> None:
    made = forest(ROWS, 1.0, 0.02)
    assert made is not None and made.band is not None
    wide = scale(made)
    for each, line in zip(ROWS, made.lines, strict=True):
        for at, value in ((line.low, each.low), (line.value, each.value), (line.high, each.high)):
            assert at - made.middle == pytest.approx(wide * (value - 1.0), rel=0.02)
    assert made.band[0] < made.middle < made.band[1]
    assert [end - made.middle for end in made.band] == pytest.approx([-0.02 * wide, 0.02 * wide], rel=0.05)


def test_ticks_of_the_axis_are_labelled_with_their_values() -> None:
    made = forest((Interval("x", 50.0, 0.0, 100.0),), 50.0)
    assert made is not None and made.band is None
    wide = (made.lines[0].high - made.lines[0].low) / 100.0
    for at, words in made.axis:
        assert float(words) == pytest.approx((at - made.lines[0].low) / wide, abs=0.5)


def test_rows_stand_in_their_order_with_their_figures_and_nothing_leaves_the_plot() -> None:
    made = forest(ROWS, 1.0, 0.02)
    assert made is not None
    assert [line.label for line in made.lines] == ["one", "two"] and made.lines[0].y < made.lines[1].y < made.height
    assert [line.says for line in made.lines] == ["1.1 [1.05, 1.2] slower", "0.9 [0.7, 0.95]"]
    places = [at for line in made.lines for at in (line.low, line.high, line.value)] + [at for at, _ in made.axis]
    assert min(places) >= LABELS and max(places) <= WIDTH


def test_equal_values_at_the_middle_are_drawn_and_nothing_is_not() -> None:
    made = forest((Interval("x", 1.0, 1.0, 1.0),), 1.0)
    assert made is not None and made.lines[0].value == made.middle
    assert forest((), 1.0, 0.5) is None
