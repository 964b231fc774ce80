"""What two revisions compared look like to a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from harness.rails.ratios import CONFIDENCE, Ratio
from harness.rails.revisions import SLOWDOWNS, Comparison, smallest_caught

RATIO = ("B/A", f"{CONFIDENCE:.0%} interval", "A/A, B/B")


def compared(found: Comparison) -> Iterator[Table | str]:
    """What both make, what their ticks take, and the verdict."""
    yield from found.outputs.lines()
    yield _draws(found)
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


def _draws(found: Comparison) -> Table:
    """A row for each side of each draw, and one for what they are to each other."""
    columns = ("p25", "median", "p95", "p99", "control")
    table = Table("ms a tick", *columns, *RATIO)
    for drawn in found.draws:
        for name, revision, side in (("A", found.base, 0), ("B", found.head, 1)):
            ms = drawn.ms(side)
            table.add_row(Text(f"{name}: {revision}"), *(f"{ms[column]:.3f}" for column in columns))
        for name, ratio in (("tick", drawn.judged.ratio), ("control", drawn.judged.control)):
            table.add_row(f"{name}, {len(drawn.rounds)} rounds", *([""] * len(columns)), *_figures(ratio))
    return table


def _figures(ratio: Ratio) -> tuple[str, str, str]:
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", f"{ratio.floor:.1%}"
