"""The verdict matrix: a row for each scenario and trace, a column for captures, traces, each switch and executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.switches import EVERY

IDLE = "idle"
"""In place of `exact` where the switch did not act, so that equal bits prove nothing."""
GLYPHS = {
    "exact": "✓",
    "tolerance": "≈",
    IDLE: "·",
    "outside_profile": "○",
    "not_gated": "?",
    "moved": "✗",
    "digest_differs": "✗",
    "missing": "✗",
    "orphan": "✗",
    "corrupt": "✗",
}
MEANINGS = (
    ("✓", "exact: the same bits"),
    ("≈", "tolerance: other bits, within a measured bound"),
    ("·", "the same bits, but the switch did not act: proves nothing"),
    ("○", "outside the profile of a compiled decoder: not compared"),
    ("?", "not gated: nothing was compared"),
    ("✗", "a verdict that fails"),
)
_WORST = (
    "moved",
    "digest_differs",
    "missing",
    "orphan",
    "corrupt",
    "not_gated",
    "outside_profile",
    "tolerance",
    "exact",
    IDLE,
)


@dataclass(frozen=True)
class Cell:
    """One cell: the verdict of a scenario and a column, the worst one over all decoders; `link` names a difference."""

    verdict: str
    glyph: str
    link: str = ""


@dataclass(frozen=True)
class Matrix:
    """The matrix.

    Attributes:
        groups: name of each group of columns, with the number of its columns.
        columns: names of the columns.
        rows: name of each scenario, with a cell or None for each column.
    """

    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def matrix(document: Mapping[str, Any], links: Mapping[tuple[str, str], str]) -> Matrix:
    """Make the matrix of a check's document.

    Args:
        document: the document of the check; see `--json`.
        links: name of the part of the page about a difference, by scenario and column key.
    """
    cells: dict[tuple[str, str], list[str]] = {}
    columns: dict[str, tuple[str, str]] = {}
    of_captures = "compiled" if "engine" in document else "captures"
    for result in document["scenarios"]:
        columns.setdefault(of_captures, (of_captures, ""))
        cells.setdefault((result["name"], of_captures), []).append(str(result["verdict"]))
    for result in document.get("traces", ()):
        columns.setdefault("traces", ("traces", ""))
        cells[f"trace {result['name']}", "traces"] = [str(result["verdict"])]
    for result in document["switches"]:
        key = f"{result['switch']}/{result['executor']}"
        columns.setdefault(key, (result["switch"], str(result["executor"])))
        passed = str(result["verdict"]) == Verdict.EXACT
        cells.setdefault((result["scenario"], key), []).append(
            IDLE if passed and not result["acted"] else str(result["verdict"])
        )
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = []
    for name in names:
        found = [cells.get((name, key)) for key in columns]
        row = [
            None if each is None else _cell(each, links.get((name, key), ""))
            for each, key in zip(found, columns, strict=True)
        ]
        rows.append(("every scenario" if name == EVERY else name, tuple(row)))
    return Matrix(_groups([group for group, _ in columns.values()]), tuple(c for _, c in columns.values()), tuple(rows))


def _cell(verdicts: Sequence[str], link: str) -> Cell:
    """A scenario passes in a column if it passes with every decoder; it acted there if it acted with one of them."""
    ranked = [verdict for verdict in _WORST if verdict in verdicts]
    verdict = ranked[0] if ranked else verdicts[0]
    return Cell(verdict, GLYPHS.get(verdict, "✗"), link)


def _groups(names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for name in names:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return tuple(found)
