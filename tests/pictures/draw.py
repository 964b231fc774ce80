"""The drawings: each takes the numbers that `reports` reads, and returns a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.pictures.paper import BLUE, GREEN, GREY, INK, ORANGE, PAPER, axes
from tests.pictures.reports import PROPERTIES, Guarantee, Ratio, Saving, Step, Tick

COLOURS = (BLUE, ORANGE, GREEN, "#b65fa8", "#c9a227")


def ring(steps: Sequence[Step]) -> Figure:
    """The ring as a timeline: a row for each place, a box for each step, a colour for each request."""
    requests = sorted({each.request for each in steps})
    last = {request: max(each.step for each in steps if each.request == request) for request in requests}
    with axes(7.2, 1.9) as (figure, (ax,)):
        for each in steps:
            colour = COLOURS[requests.index(each.request) % len(COLOURS)]
            ends = each.step == last[each.request]
            box = Rectangle(
                (each.tick + 0.04, each.place - 0.4), 0.92, 0.8, facecolor=colour, alpha=1 if ends else 0.55
            )
            ax.add_patch(box)
            ax.text(each.tick + 0.5, each.place, f"{each.request}{each.step + 1}", ha="center", va="center")
        ax.set(xlim=(0, 1 + max(each.tick for each in steps)), xlabel="tick", ylabel="place in the ring")
        ax.set(ylim=(max(each.place for each in steps) + 0.5, -0.5), yticks=sorted({each.place for each in steps}))
        ax.set_title("Each tick moves every request one step; a request leaves after its last", loc="left", fontsize=9)
        return figure


def ticks(found: Sequence[Tick]) -> Figure:
    """A tick beside its bare decoder, a panel for each machine."""
    places = list(dict.fromkeys(each.where for each in found))
    with axes(7.2, 2.6, len(places)) as (figure, panels):
        for place, ax in zip(places, panels, strict=True):
            here = [each for each in found if each.where == place]
            for row, each in enumerate(here):
                ax.barh(row - 0.2, each.tick_ms, 0.36, color=BLUE, label="tick" if not row else None)
                ax.barh(row + 0.2, each.decoder_ms, 0.36, color=GREY, label="bare decoder" if not row else None)
                ax.text(each.tick_ms, row - 0.2, f" {each.tick_ms:.2f}", va="center", fontsize=8)
                ax.text(each.decoder_ms, row + 0.2, f" {each.decoder_ms:.2f}", va="center", fontsize=8)
            ax.set(yticks=range(len(here)), yticklabels=[each.load for each in here], xlabel="ms", title=place)
            ax.set(xlim=(0, 1.25 * max(max(each.tick_ms, each.decoder_ms) for each in found)))
            ax.invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        return figure


def savings(found: Sequence[Saving]) -> Figure:
    """What each switch saves, with intervals; the band is the difference of two equal loads."""
    noise, *switches = found
    with axes(7.2, 2.2, 2) as (figure, panels):
        for ax, what in zip(panels, ("tick", "host"), strict=True):
            _value, low, high = getattr(noise, what)
            ax.axvspan(low, high, color=GREY, alpha=0.35, lw=0)
            for row, each in enumerate(switches):
                value, low, high = getattr(each, what)
                ax.plot([low, high], [row, row], color=BLUE, lw=2)
                ax.plot([value], [row], "o", color=BLUE)
                ax.annotate(f"{value:.2f}", (value, row), (0, 5), textcoords="offset points", ha="center", fontsize=8)
            ax.set(yticks=range(len(switches)), yticklabels=[each.switch for each in switches])
            ax.set(xlabel=f"ms saved of {'a tick' if what == 'tick' else 'the host’s time'}", ylim=(len(switches), -1))
        panels[1].set(yticklabels=[])
        return figure


def growth(
    operators: Mapping[str, Sequence[tuple[int, float]]], launches: Mapping[str, Sequence[tuple[int, float]]]
) -> Figure:
    """Operators on a CPU, and launches on a GPU, against the depth."""
    with axes(7.2, 2.8, 2) as (figure, (left, right)):
        _lines(left, operators)
        _lines(right, launches)
        left.set(xlabel="depth", ylabel="operators a tick", title="CPU, slot by slot")
        right.set(xlabel="depth", ylabel="launches a tick", title="GPU, kernels over all slots", ylim=(0, 14))
        return figure


def _lines(ax: Axes, found: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for (name, points), colour in zip(found.items(), COLOURS, strict=False):
        depths, counts = zip(*points, strict=True)
        ax.plot(depths, counts, "o-", color=colour, label=name)
        ax.annotate(f"{counts[-1]:g}", (depths[-1], counts[-1]), (4, 3), textcoords="offset points", fontsize=8)
    ax.set(xticks=sorted({depth for points in found.values() for depth, _count in points}), xlim=(0, 9.4))
    ax.legend(frameon=False, fontsize=8)


def matrix(found: Sequence[Guarantee]) -> Figure:
    """What is exact where: a row for each decoder and machine, a column for each property."""
    shown = {"exact": (GREEN, "all"), "some": (ORANGE, "some"), "no": (GREY, "none")}
    with axes(7.2, 0.6 + 0.26 * len(found)) as (figure, (ax,)):
        for row, each in enumerate(found):
            for column, said in enumerate(each.said):
                colour, word = shown[said]
                ax.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=PAPER, lw=1.5))
                ax.text(column + 0.5, row + 0.5, word, ha="center", va="center", fontsize=8, color=INK)
        ax.set(xlim=(0, len(PROPERTIES)), ylim=(len(found), 0))
        ax.set(xticks=[n + 0.5 for n in range(len(PROPERTIES))], xticklabels=[p.replace("_", " ") for p in PROPERTIES])
        ax.set(yticks=[n + 0.5 for n in range(len(found))], yticklabels=[each.subject for each in found])
        ax.tick_params(length=0, labelsize=7.5)
        ax.xaxis.tick_top()
        ax.spines[:].set_visible(False)
        return figure


VERDICTS = {"faster": GREEN, "same": BLUE, "slower": ORANGE, "inconclusive": COLOURS[3]}
"""Colour by verdict of `compare`."""


def forest(found: Sequence[Ratio]) -> Figure:
    """Ratios of two revisions with their intervals, a row a load; a row's band is the limit of `same` there."""
    with axes(7.2, 0.8 + 0.3 * len(found)) as (figure, (ax,)):
        beside = ax.get_yaxis_transform()  # x in widths of the axes, y in rows
        for row, each in enumerate(found):
            colour = VERDICTS[each.verdict]
            band = Rectangle((1 - each.limit, row - 0.4), 2 * each.limit, 0.8, facecolor=GREY, alpha=0.35, lw=0)
            ax.add_patch(band)
            ax.plot([each.low, each.high], [row, row], color=colour, lw=2)
            ax.plot([each.ratio], [row], "s", color=colour, ms=5)
            says = f"{each.ratio:.3f} ({each.low:.3f} to {each.high:.3f}) {each.verdict}"
            ax.text(1.02, row, says, transform=beside, va="center", fontsize=8)
        ax.axvline(1.0, color=INK, lw=0.8)
        ax.set(xscale="log", xlim=_room(found), ylim=(len(found) - 0.4, -0.6))
        ax.set(yticks=range(len(found)), yticklabels=[each.load for each in found])
        marks = [mark for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10) if ax.get_xlim()[0] < mark < ax.get_xlim()[1]]
        ax.set_xticks(marks, [f"{mark:g}" for mark in marks])
        ax.set_xticks([], minor=True)
        ax.set(xlabel="ms of HEAD ÷ ms of BASE; the band is the limit of “same”")
        return figure


def _room(found: Sequence[Ratio]) -> tuple[float, float]:
    """Ends of an axis on which every interval and every band is seen whole."""
    lows, highs = [min(x.low, 1 - x.limit) for x in found], [max(x.high, 1 + x.limit) for x in found]
    return 0.9 * min(lows), 1.1 * max(highs)
