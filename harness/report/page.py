"""The page of a report: plain rows and cells made from what a check found, put into one template that escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.rails.costs.counts import OPERATOR
from harness.report.differences import DESCRIBED, Difference
from harness.report.figures import Figures
from harness.report.forest import Forest, forest
from harness.report.grid import Grid, grid
from harness.report.heat import Heat, heat
from harness.report.matrix import MEANINGS, matrix
from harness.report.open import not_compared
from harness.report.template import template

WORDS = 1200
"""The most characters of a description."""
TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class _Told:
    """A difference for the template."""

    link: str
    title: str
    verdict: str
    where: str
    detail: str
    repro: str
    why: str
    stopped: str
    grid: Grid | None
    heats: tuple[Heat, ...]


@dataclass(frozen=True)
class _Rails:
    """Cost rails for the template: rows that differ, and the sums of every rail as `now` or `blessed → now`."""

    wrong: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
    operators: int


def page(
    document: Mapping[str, Any],
    found: Sequence[Difference] = (),
    figures: Sequence[Figures] = (),
    made: str = "",
) -> str:
    """Make the page.

    Everything that comes from a name or a message is escaped; the page has no script and fetches nothing.

    Args:
        document: the document of the check; see `--json`.
        found: the differences, with their evidence.
        figures: figures of benches and comparisons.
        made: when and by which command the check was made.
    """
    told = [_told(number, each) for number, each in enumerate(found[:DESCRIBED])]
    links = {(each.scenario, _column(each)): f"d{number}" for number, each in reversed([*enumerate(found[:DESCRIBED])])}
    plots: list[tuple[Figures, Forest | None]] = [
        (each, forest(each.intervals, each.middle, each.band)) for each in figures
    ]
    return template(TEMPLATE).render(
        document=document,
        platform=document["platform"],
        summary=document["summary"],
        made=made,
        open=not_compared(document, found),
        matrix=matrix(document, links),
        meanings=MEANINGS,
        told=told,
        untold=len(found) - len(told),
        rails=_rails(document["costs"]),
        figures=plots,
    )


def _column(found: Difference) -> str:
    """The key of a column of the matrix."""
    switch, on, rest = found.subject.partition(" on ")
    if found.subject == "captures" or switch == "compiled decoder":
        return "captures" if found.subject == "captures" else "compiled"
    return f"{switch}/{rest.partition(',')[0]}" if on else found.subject


def _told(number: int, found: Difference) -> _Told:
    evidence = found.evidence
    where = ""
    if evidence is not None and evidence.first is not None:
        first = evidence.first
        places = [("tick", first.tick), ("slot", first.slot), ("stage", first.stage)]
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    detail = found.detail if len(found.detail) <= WORDS else found.detail[:WORDS] + " …"
    return _Told(
        f"d{number}",
        f"{found.scenario}: {found.subject}",
        found.verdict,
        where,
        detail,
        found.repro,
        found.why,
        "" if evidence is None else evidence.stopped,
        None if evidence is None or not evidence.ticks else grid(evidence),
        () if evidence is None else tuple(heat(picture) for picture in evidence.pictures),
    )


def _rails(rows: Sequence[Mapping[str, Any]]) -> _Rails:
    sums = [row for row in rows if not row["name"].startswith(OPERATOR)]
    names = tuple(dict.fromkeys(row["name"] for row in sums))
    by_rail: dict[str, dict[str, tuple[str, bool]]] = {}
    for row in sums:
        same = row["blessed"] == row["now"]
        text = str(row["now"]) if same else f"{row['blessed']} → {row['now']}"
        by_rail.setdefault(row["rail"], {})[row["name"]] = (text, same)
    table = tuple((rail, tuple(cells.get(name, ("", True)) for name in names)) for rail, cells in by_rail.items())
    wrong = tuple(row for row in rows if row["verdict"] == "moved")
    return _Rails(wrong, names, table, len(rows) - len(sums))
