"""Figures of `bench --json` and `compare --json`, and of kept sections of them, read back for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from harness.files import FileRefused, documents
from harness.files.refused import field_of
from harness.files.schema import Name, Natural, Within, fit

Number = Annotated[float, Within(-1e300, 1e300)]


_COMPARED = ("", "HEAD / BASE", "from", "to", "verdict")


@dataclass(frozen=True)
class _Spread:
    median: Number
    p95: Number
    p99: Number


@dataclass(frozen=True)
class _Bare:
    rows: int
    forms: Mapping[str, Number]


@dataclass(frozen=True)
class _Saving:
    switch: Name
    saved_tick_ms: Number
    tick_interval: tuple[Number, Number] | None = None
    tick: Name = ""


@dataclass(frozen=True)
class _Bench:
    load: Mapping[str, Any]
    tick: _Spread
    host: _Spread
    bare: _Bare
    realtime: Number
    ablation: tuple[_Saving, ...] = ()


@dataclass(frozen=True)
class _Ratio:
    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class _Draw:
    verdict: Name
    ratio: _Ratio
    control: _Ratio
    limit: Number


@dataclass(frozen=True)
class _Compare:
    verdict: Name
    why: Name
    draws: tuple[_Draw, ...]
    bench: tuple[Name, ...] = ()


@dataclass(frozen=True)
class _MetricDraw:
    ratio: _Ratio


@dataclass(frozen=True)
class _Metric:
    verdict: Name
    draws: tuple[_MetricDraw, ...]


@dataclass(frozen=True)
class _Outputs:
    same: Natural
    moved: tuple[Any, ...]
    only_base: tuple[Any, ...]
    only_head: tuple[Any, ...]


@dataclass(frozen=True)
class _Commands:
    verdict: Name
    command: tuple[Name, ...]
    outputs: _Outputs
    metrics: Mapping[str, _Metric]


@dataclass(frozen=True)
class _Section:
    section: Name
    ring: Mapping[str, Any]
    found: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Interval:
    """A value with its interval, for a forest plot; `note` is its verdict."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """The figures of one file.

    Attributes:
        title: what was measured.
        where: the platform, and the file.
        head: names of the columns.
        rows: cells of the rows.
        intervals: values of a forest plot; may be empty.
        middle: value that means no change, in the plot.
        band: distance from `middle` within which a value counts as no change; 0 without one.
        unit: unit of the plot.
    """

    title: str
    where: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    intervals: tuple[Interval, ...] = ()
    middle: float = 0.0
    band: float = 0.0
    unit: str = ""


def read(path: Path) -> Figures:
    """Read one file.

    Raises:
        FileRefused: it is missing, not JSON, or no such report.
    """
    document = documents.load(path)
    if not isinstance(document, dict):
        raise FileRefused(path, "", "no mapping", "a report of bench or compare")
    where = f"{_platform(path, document)}, {path.name}"
    if "draws" in document:
        return _of_compare(_fitted(_Compare, document, path), where)
    if "metrics" in document:
        return _of_commands(_fitted(_Commands, document, path), path, where)
    if "section" in document:
        return _of_section(_fitted(_Section, document, path), where)
    if "tick" in document:
        return _of_bench(_fitted(_Bench, document, path), where)
    raise FileRefused(path, "", "neither draws, metrics, a section nor a tick", "a report of bench or compare")


def _fitted(kind: Any, document: Mapping[str, Any], path: Path) -> Any:
    """Fit the fields that a report of this project shows; a file has more of them."""
    return fit(kind, _cut(kind, document), path)


def _cut(kind: Any, value: Any) -> Any:
    """Leave out, at every level, what the schema does not name."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind, include_extras=True)
        return {name: _cut(hint, value[name]) for name, hint in hints.items() if name in value}
    if origin is tuple and isinstance(value, list):
        return [_cut(arguments[0], each) for each in value]
    if origin is Mapping and isinstance(value, dict):
        return {name: _cut(arguments[1], each) for name, each in value.items()}
    return value


def _platform(path: Path, document: Mapping[str, Any]) -> str:
    found = document.get("platform")
    if not isinstance(found, dict):
        return "unknown platform"
    return " ".join(str(fit(Name, found[key], path, ("platform", key))) for key in ("name", "measured") if key in found)


def _of_bench(bench: _Bench, where: str) -> Figures:
    said = {name: value for name, value in bench.load.items() if not isinstance(value, dict | list | None)}
    load = ", ".join(f"{name} {value}" for name, value in said.items() if value is not False and value != "")
    rows = [
        (name, *(f"{value:.3f}" for value in (spread.median, spread.p95, spread.p99)))
        for name, spread in (("a tick, ms", bench.tick), ("until tick() returned, ms", bench.host))
    ]
    rows += [
        (f"bare decoder, {bench.bare.rows} rows, {form}, ms", f"{ms:.3f}") for form, ms in bench.bare.forms.items()
    ]
    rows.append(("times real time", f"{bench.realtime:.1f}"))
    saved = tuple(_interval(saving) for saving in bench.ablation)
    return Figures(f"bench: {load}", where, ("", "median", "p95", "p99"), tuple(rows), saved, unit="ms saved a tick")


def _interval(saving: _Saving) -> Interval:
    low, high = saving.tick_interval or (saving.saved_tick_ms, saving.saved_tick_ms)
    return Interval(saving.switch, saving.saved_tick_ms, low, high, saving.tick.replace("_", " "))


def _of_compare(compared: _Compare, where: str) -> Figures:
    intervals, rows = [], []
    for number, draw in enumerate(compared.draws, start=1):
        for label, ratio in ((f"draw {number}", draw.ratio), (f"draw {number}, control", draw.control)):
            note = draw.verdict if label == f"draw {number}" else "the same code on both sides"
            intervals.append(Interval(label, ratio.value, ratio.low, ratio.high, note))
            rows.append((label, f"{ratio.value:.4f}", f"{ratio.low:.4f}", f"{ratio.high:.4f}", note))
    title = f"compare: {compared.verdict}{': ' * bool(compared.why)}{compared.why} ({' '.join(compared.bench)})"
    band = max((draw.limit for draw in compared.draws), default=0.0)
    return Figures(title, where, _COMPARED, tuple(rows), tuple(intervals), 1.0, band, "HEAD / BASE")


def _of_commands(compared: _Commands, path: Path, where: str) -> Figures:
    """A row for each metric: its last draw, with the verdict of all its draws."""
    intervals = []
    for label, metric in compared.metrics.items():
        if not metric.draws:
            raise FileRefused(path, field_of(("metrics", label, "draws")), "an empty list", "one draw or more")
        ratio = metric.draws[-1].ratio
        intervals.append(Interval(label, ratio.value, ratio.low, ratio.high, metric.verdict))
    rows = [(one.label, f"{one.value:.4f}", f"{one.low:.4f}", f"{one.high:.4f}", one.note) for one in intervals]
    outputs = compared.outputs
    told = f"{outputs.same} the same, {len(outputs.moved)} moved"
    told += f", {len(outputs.only_base) + len(outputs.only_head)} on one side"
    title = f"compare: {compared.verdict} ({' '.join(compared.command)}), outputs: {told}"
    return Figures(title, where, _COMPARED, tuple(rows), tuple(intervals), 1.0, unit="HEAD / BASE")


def _of_section(section: _Section, where: str) -> Figures:
    flat = [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in section.found]
    head = tuple(dict.fromkeys(name for row in flat for name in row))
    ring = ", ".join(f"{name} {value}" for name, value in section.ring.items() if not isinstance(value, dict | list))
    rows = tuple(tuple(_cell(row.get(name)) for name in head) for row in flat)
    return Figures(f"{section.section}: {ring}", where, head, rows, _steady(section.found), 1.0, unit="tick / decoder")


def _steady(found: Sequence[Mapping[str, Any]]) -> tuple[Interval, ...]:
    """The ratios of a section that has some."""
    numbers = [row for row in found if all(type(row.get(name)) in (int, float) for name in ("ratio", "low", "high"))]
    return tuple(Interval(_label(row), row["ratio"], row["low"], row["high"]) for row in numbers)


def _label(row: Mapping[str, Any]) -> str:
    named = {name: row[name] for name in ("frames", "depth", "load", "fresh") if row.get(name)}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in named.items())


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
