"""What two revisions compared look like to a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from harness.rails.compare.revisions import SLOWDOWNS, Comparison, smallest_caught
from harness.rails.compare.statistics import CONFIDENCE, Ratio

RATIO = ("B/A", f"{CONFIDENCE:.0%} interval", "A/A, B/B")


def compared(found: Comparison) -> Iterator[Table | str]:
    """What both make, what their ticks take, and the verdict."""
    yield from found.outputs.lines()
    yield from (f"A: {found.base}", f"B: {found.head}")
    yield _sides(found)
    yield _ratios(found)
    yield found.summary()


def calibrated(tried: Mapping[float, Comparison]) -> Iterator[Table | str]:
    """A row for each slowdown that was tried, and the smallest that was caught."""
    yield from next(iter(tried.values())).outputs.lines()
    table = Table("slower by", *RATIO, "draws", "verdict")
    for share, found in tried.items():
        table.add_row(f"{share:.0%}", *_figures(found.draws[0].judged.ratio), str(len(found.draws)), found.verdict)
    yield table
    smallest = smallest_caught(tried)
    if smallest is None:
        yield f"no slowdown up to {SLOWDOWNS[-1]:.0%} is caught here today"
    else:
        yield f"the smallest slowdown that is caught here today: {smallest:.0%}"


def _sides(found: Comparison) -> Table:
    """A row for each side of each draw."""
    columns = ("p25", "median", "p95", "p99", "control")
    table = Table("ms a tick", *columns)
    for drawn in found.draws:
        for name, side in (("A", 0), ("B", 1)):
            ms = drawn.ms(side)
            table.add_row(name, *(f"{ms[column]:.3f}" for column in columns))
    return table


def _ratios(found: Comparison) -> Table:
    """What the sides of each draw are to each other."""
    table = Table("", "rounds", "quads matched", *RATIO)
    for drawn in found.draws:
        judged = drawn.judged
        table.add_row("tick", str(len(drawn.rounds)), f"{judged.matched} of {judged.quads}", *_figures(judged.ratio))
        table.add_row("control", "", "", *_figures(judged.control))
    return table


def _figures(ratio: Ratio) -> tuple[str, str, str]:
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", f"{ratio.floor:.1%}"
