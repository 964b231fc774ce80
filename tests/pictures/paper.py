"""Figures as SVG files that are readable on dark and on light paper, and the same bytes wherever they are made."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""A colour that no picture shows: the SVG file has the reader's ink in its place."""

PAPER = "#fdfcfb"
"""The same for the reader's paper."""

BLUE, ORANGE, GREEN, GREY = "#3f87c9", "#d9822b", "#4f9d69", "#8c959f"
"""Colours with enough contrast on white and on black."""

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pictures",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **{name: INK for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
}

STYLE = """<style>
svg { --ink: #1f2328; --paper: #ffffff }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --paper: #0d1117 } }
</style>"""


@contextmanager
def axes(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of so many inches and its axes, side by side."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        made = figure.subplots(1, columns, squeeze=False)
        yield figure, list(made[0])


def svg(figure: Figure, title: str) -> str:
    """The figure as SVG text, with a title for readers who see no picture."""
    out = io.StringIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Title": title, "Creator": None})
    text = out.getvalue().replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    head, rest = text.split("<defs>", 1)
    lines = f"{head}{STYLE}\n <defs>{rest}".splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
