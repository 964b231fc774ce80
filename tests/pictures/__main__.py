"""Writes every picture: `python -m tests.pictures --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from tests.pictures import draw, reports
from tests.pictures.paper import svg

PICTURES: dict[str, tuple[str, Callable[[], Figure]]] = {
    "ring": ("The ring: requests enter, move one step a tick, and leave", lambda: draw.ring(reports.ring())),
    "ticks": ("Milliseconds of a tick and of its bare decoder", lambda: draw.ticks(reports.ticks())),
    "switches": ("What each switch saves", lambda: draw.savings(reports.savings())),
    "growth": (
        "Operators and launches against the depth",
        lambda: draw.growth(reports.operators(), reports.launches()),
    ),
    "exact": ("What is exact where", lambda: draw.matrix(reports.guarantees())),
    "forest": ("Ratios of two revisions, their intervals and verdicts", lambda: draw.forest(reports.ratios())),
}
"""Title and figure by name of the file."""


def made() -> dict[str, str]:
    """The SVG text of every picture, by name."""
    return {name: svg(figure(), title) for name, (title, figure) in PICTURES.items()}


def main() -> int:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in made().items():
        (out / f"{name}.svg").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
