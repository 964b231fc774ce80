"""Tables and text of a comparison for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table

from harness.rails.compare.commands import Compared
from harness.rails.compare.revisions import SLOWDOWNS, Comparison, smallest_caught
from harness.rails.compare.statistics import CONFIDENCE, Ratio

RATIO = ("B/A", f"{CONFIDENCE:.0%} interval", "noise floor")


def compared(found: Comparison) -> Iterator[Table | str]:
    """The comparison of the outputs, the times of both sides, the ratios, and the verdict."""
    yield from found.outputs.lines()
    yield from (f"A: {found.base}", f"B: {found.head}")
    yield _sides(found)
    yield _ratios(found)
    yield found.summary()


def of_command(found: Compared) -> Iterator[Table | str]:
    """The comparison of the outputs, the metrics of both sides with their ratios, and the verdicts."""
    yield from found.outputs.lines()
    yield from (f"A: {found.base}", f"B: {found.head}")
    table = Table("metric", "A", "B", "quads", *RATIO)
    for metric in found.metrics:
        judged = metric.draws[-1]
        medians = f"{metric.base:.4g}", f"{metric.head:.4g}"
        table.add_row(escape(metric.name), *medians, str(judged.quads), *_figures(judged.ratio))
    yield table
    yield from (metric.summary() for metric in found.metrics)
    yield found.summary()


def calibrated(tried: Mapping[float, Comparison]) -> Iterator[Table | str]:
    """The comparison of the outputs, a table with a row for each tested slowdown, and the smallest detected one."""
    yield from next(iter(tried.values())).outputs.lines()
    table = Table("slowdown", *RATIO, "draws", "verdict")
    for share, found in tried.items():
        table.add_row(f"{share:.0%}", *_figures(found.draws[0].judged.ratio), str(len(found.draws)), found.verdict)
    yield table
    smallest = smallest_caught(tried)
    if smallest is None:
        yield f"no slowdown up to {SLOWDOWNS[-1]:.0%} was detected on this machine today"
    else:
        yield f"smallest slowdown that was detected on this machine today: {smallest:.0%}"


def _sides(found: Comparison) -> Table:
    """A table of tick times in ms, with a row for each side of each draw."""
    columns = ("p25", "median", "p95", "p99", "control")
    table = Table("ms per tick", *columns)
    for drawn in found.draws:
        for name, side in (("A", 0), ("B", 1)):
            ms = drawn.ms(side)
            table.add_row(name, *(f"{ms[column]:.3f}" for column in columns))
    return table


def _ratios(found: Comparison) -> Table:
    """A table of the ratios B/A of each draw, for ticks and control workload."""
    table = Table("", "rounds", "quads matched", *RATIO)
    for drawn in found.draws:
        judged = drawn.judged
        table.add_row("tick", str(len(drawn.rounds)), f"{judged.matched} of {judged.quads}", *_figures(judged.ratio))
        table.add_row("control", "", "", *_figures(judged.control))
    return table


def _figures(ratio: Ratio) -> tuple[str, str, str]:
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", f"{ratio.floor:.1%}"
