"""Tables and text of a profile for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Column, Table
from rich.text import Text

from harness.files.refused import shown
from harness.rails.profile.report import Breakdown
from harness.rails.profile.rules import RULES_VERSION


def tables(report: Breakdown, top: int) -> Iterator[Table | str]:
    """Tables of the figures, of the categories and of the `top` slowest layers, then notes."""
    yield _facts(report)
    yield _categories(report)
    yield _layers(report, top)
    yield from report.notes()
    unattributed = report.unattributed
    by = "time" if report.timed else "layers"
    yield (
        f"unattributed: {unattributed.share:.2%} of the {by}, {unattributed.layers} of {len(report.rows)} layers "
        f"(rules {RULES_VERSION})"
    )


def _facts(report: Breakdown) -> Table:
    table = Table(show_header=False)
    for name, value in report.profile.provenance.items():
        if value not in (None, [], {}):
            table.add_row(name, Text(shown(str(value)), overflow="fold"))
    table.add_row("source", report.profile.source)
    if report.timed:
        table.add_row("profiled runs", str(report.profile.runs))
        table.add_row("wall time, ms per run", _wall(report))
        table.add_row("sum of layers, ms per run", f"{report.sum_ms:.3f}")
    if report.residual is not None and report.residual_share is not None:
        table.add_row("residual, ms per run", f"{report.residual:+.3f} ({report.residual_share:+.1%} of the wall time)")
    if report.profile.gaps is not None:
        found = report.profile.gaps
        share = f"{found.share:.1%} of {found.span_ms:.3f} ms from the first kernel to the last"
        table.add_row("gaps between kernels, ms per run", f"{found.ms:.3f} ({share})")
    return table


def _wall(report: Breakdown) -> str:
    if report.wall is None:
        return "not measured"
    samples = report.profile.wall_ms
    return f"{report.wall:.3f} (median; {min(samples):.3f} to {max(samples):.3f})"


def _categories(report: Breakdown) -> Table:
    table = Table("category", *_right(*(("layers", "ms", "share") if report.timed else ("layers", "share"))))
    for category, part in report.categories.items():
        ms = [f"{part.ms:.3f}"] if report.timed else []
        table.add_row(str(category), str(part.layers), *ms, f"{part.share:.1%}")
    return table


def _layers(report: Breakdown, top: int) -> Table:
    """A table of layers with their times; in a list without times, with the rules that matched."""
    figures = _right("ms", "share", "calls") if report.timed else [Column("rule", no_wrap=True)]
    table = Table(Column("layer", overflow="fold"), Column("category", no_wrap=True), *figures)
    for row in report.rows[:top]:
        times = (f"{row.timed.ms:.3f}", f"{row.share:.1%}", f"{row.timed.calls:g}")
        words = times if report.timed else (row.rule or "none",)
        table.add_row(Text(shown(row.timed.facts.layer.name)), str(row.category), *words)
    return table


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right", no_wrap=True) for name in names]
