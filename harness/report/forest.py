"""Forest plots: a row for each value with its interval, as a drawing inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.figures import Interval

WIDTH, LABELS, ROW, EDGE = 640.0, 200.0, 22.0, 26.0


@dataclass(frozen=True)
class Line:
    """One row in pixels: the ends of its interval, its value, and its height; the label and the figures as text."""

    label: str
    low: float
    high: float
    value: float
    y: float
    says: str


@dataclass(frozen=True)
class Forest:
    """A plot in pixels: rows, ticks of the axis, the middle that means no change, and a band around it or None."""

    lines: tuple[Line, ...]
    axis: tuple[tuple[float, str], ...]
    middle: float
    band: tuple[float, float] | None
    height: float


def forest(intervals: Sequence[Interval], middle: float, band: float = 0.0) -> Forest | None:
    """Lay out a plot; None where there is nothing to draw.

    Args:
        intervals: the values.
        middle: value that means no change.
        band: distance from `middle` within which a value counts as no change; 0 without one.
    """
    if not intervals:
        return None
    ends = [middle - band, middle + band]
    ends += [value for each in intervals for value in (each.low, each.high, each.value)]
    low, high = min(ends), max(ends)
    margin = 0.06 * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(LABELS + (WIDTH - LABELS - 10) * (value - low) / (high - low), 1)

    lines = tuple(
        Line(each.label, x(each.low), x(each.high), x(each.value), EDGE + ROW * (number + 0.5), _says(each))
        for number, each in enumerate(intervals)
    )
    axis = tuple((x(at), f"{at:.3g}") for at in (low + (high - low) * share / 4 for share in range(5)))
    edges = (x(middle - band), x(middle + band)) if band else None
    return Forest(lines, axis, x(middle), edges, EDGE + ROW * len(intervals) + 8)


def _says(each: Interval) -> str:
    return f"{each.value:.4g} [{each.low:.4g}, {each.high:.4g}] {each.note}".strip()
