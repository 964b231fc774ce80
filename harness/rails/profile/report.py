"""The report of a profile: times, categories and shares of layers, and the residual of the wall time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from harness.engine.aot.layers import Layer
from harness.engine.errors import EngineError
from harness.rails.profile.rules import RULES_VERSION, UNATTRIBUTED, Category, Facts, categorise

MOSTLY_OPAQUE = 0.5
"""The share of opaque layers above which the report advises a plan with detailed layer names."""

WAITS = ("stream-order", "stream-order-name")
"""The rules that match synchronization layers, in which a stream waits for or signals another stream."""


class ProfileRefused(EngineError):
    """Base class of errors: the input is no profile of layers, or its layers cannot be attributed."""


class NoLayers(ProfileRefused):
    """A profile or a list of layers is empty."""


class NamelessLayers(ProfileRefused):
    """All layers are named by their indices, because the plan was built without profiling verbosity."""


class NotAProfile(ProfileRefused):
    """A file, or the output of a profiler, is not in the expected format."""


class OtherEngine(ProfileRefused):
    """The given list of layers belongs to a plan other than the profiled one."""


@dataclass(frozen=True)
class Timed:
    """A layer and its time.

    Attributes:
        facts: the known facts about the layer.
        ms: milliseconds per run, averaged over the profiled runs; 0 in a list without times.
        calls: calls per run, averaged over the profiled runs.
    """

    facts: Facts
    ms: float = 0.0
    calls: float = 1.0


@dataclass(frozen=True)
class Gaps:
    """The gaps between the kernels of a run, in which a GPU does nothing.

    Attributes:
        ms: milliseconds of a run without any kernel, between its first and its last one.
        span_ms: milliseconds from the start of the first kernel to the end of the last one.
    """

    ms: float
    span_ms: float

    @property
    def share(self) -> float:
        """The share of the gaps in the span."""
        return _ratio(self.ms, self.span_ms)

    def document(self) -> dict[str, Any]:
        """The gaps as JSON values."""
        return {"ms": self.ms, "span_ms": self.span_ms, "share": self.share}


@dataclass(frozen=True)
class Profile:
    """The measurements of one source.

    Attributes:
        source: `tensorrt`, `onnxruntime`, `torch` or `trtexec`; `plan` for a list without times.
        layers: the layers, each once.
        runs: the number of profiled runs; 0 for a list without times.
        wall_ms: the wall times in ms of runs without a profiler; empty if not measured.
        resolved: True if the names were joined with a plan's list of layers, which names the ONNX nodes.
        provenance: the subject, the machine and the software of the measurement.
        gaps: the gaps between the kernels on a GPU; None where the profiler does not tell when kernels run.

    Raises:
        NoLayers: there are no layers.
        NamelessLayers: the names of all layers are indices.
    """

    source: str
    layers: Sequence[Timed]
    runs: int = 0
    wall_ms: Sequence[float] = ()
    resolved: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gaps: Gaps | None = None

    def __post_init__(self) -> None:
        """Refuse a profile whose layers cannot be attributed."""
        if not self.layers:
            raise NoLayers(f"{self.source}: no layer was reported")
        if all(re.fullmatch(r"\d+", timed.facts.layer.name) for timed in self.layers):
            raise NamelessLayers(
                f"{self.source}: the names of the layers are indices, because the plan was built with profiling "
                "verbosity none; build the plan again with detailed verbosity"
            )


@dataclass(frozen=True)
class Row:
    """A layer of the report.

    Attributes:
        timed: the layer and its time.
        category: the category of the layer.
        rule: the name of the rule that matched; empty if none did.
        share: the layer's share of the total time of all layers; in a list without times, of the number of layers.
    """

    timed: Timed
    category: Category
    rule: str
    share: float

    def document(self) -> dict[str, Any]:
        """The row as JSON values."""
        layer = self.timed.facts.layer
        return {
            "name": layer.name,
            "kind": layer.kind,
            "operator": self.timed.facts.op,
            "tactic": layer.tactic,
            "stream": layer.stream,
            "nodes": list(layer.nodes),
            "ms": self.timed.ms,
            "calls": self.timed.calls,
            "share": self.share,
            "category": str(self.category),
            "rule": self.rule,
        }


@dataclass(frozen=True)
class Part:
    """The sum of several layers.

    Attributes:
        layers: the number of layers.
        ms: milliseconds per run.
        share: the share of the total time of all layers; in a list without times, of the number of layers.
    """

    layers: int
    ms: float
    share: float

    def document(self) -> dict[str, Any]:
        """The sum as JSON values."""
        return {"layers": self.layers, "ms": self.ms, "share": self.share}


@dataclass(frozen=True)
class Breakdown:
    """A profile whose layers are attributed to categories.

    Attributes:
        profile: the measurements.
    """

    profile: Profile

    @property
    def timed(self) -> bool:
        """True if the profile has times; without times, shares are shares of the number of layers."""
        return self.profile.runs > 0

    @cached_property
    def sum_ms(self) -> float:
        """The total of all layers in ms per run; above the wall time where layers on several streams overlap."""
        return sum(timed.ms for timed in self.profile.layers)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All layers, the slowest first; a list without times keeps its order."""
        total = self.sum_ms if self.timed else float(len(self.profile.layers))
        found = [
            Row(timed, *categorise(timed.facts), share=_ratio(timed.ms if self.timed else 1.0, total))
            for timed in self.profile.layers
        ]
        return tuple(sorted(found, key=lambda row: -row.timed.ms))

    @cached_property
    def categories(self) -> dict[Category, Part]:
        """The sum of each category, in the order of `Category`; empty categories are included."""
        return {category: self._part((category,)) for category in Category}

    @property
    def opaque(self) -> Part:
        """The sum of the opaque Myelin layers, whose content is unknown."""
        return self.categories[Category.OPAQUE]

    @cached_property
    def unattributed(self) -> Part:
        """The sum of the layers that cannot be attributed: opaque ones, and those that no rule matches."""
        return self._part(UNATTRIBUTED)

    @cached_property
    def waits(self) -> Part:
        """The sum of the synchronization layers, which belong to the category `copy-reformat`."""
        return _part([row for row in self.rows if row.rule in WAITS])

    @property
    def wall(self) -> float | None:
        """The median wall time of a run without a profiler, in ms; None if not measured."""
        return median(self.profile.wall_ms) if self.profile.wall_ms else None

    @property
    def residual(self) -> float | None:
        """The wall time minus the sum of the layers, in ms; may be negative. None without a wall time."""
        return None if self.wall is None else self.wall - self.sum_ms

    @property
    def residual_share(self) -> float | None:
        """The residual as a share of the wall time; None without a wall time."""
        return None if self.residual is None or not self.wall else self.residual / self.wall

    @property
    def streams(self) -> int:
        """The number of streams that the layers run on, as far as the plan names them."""
        return len({timed.facts.layer.stream for timed in self.profile.layers})

    def notes(self) -> Iterator[str]:
        """Notes on the interpretation of the figures."""
        if self.residual is not None and self.residual < 0:
            why = (
                f"the layers of {self.streams} streams overlap"
                if self.streams > 1
                else "profiling makes each layer slower, or layers overlap"
            )
            yield f"the sum of the layers exceeds the wall time by {-self.residual:.3f} ms: {why}"
        elif self.timed and self.streams > 1:
            yield f"the layers of {self.streams} streams overlap: the sum of the layers is not the wall time"
        if self.waits.layers:
            yield (
                f"copy-reformat contains {self.waits.layers} layers in which streams wait for each other "
                f"({self.waits.share:.1%})"
            )
        if self.opaque.share > MOSTLY_OPAQUE:
            yield (
                f"{self.opaque.share:.1%} is in opaque Myelin layers: build the plan again with detailed profiling "
                "verbosity, and profile with the plan's list of layers, which names the ONNX nodes of each layer"
            )

    def document(self) -> dict[str, Any]:
        """The whole report as JSON values."""
        profile = self.profile
        return {
            "rules": RULES_VERSION,
            "source": profile.source,
            "provenance": dict(profile.provenance),
            "resolved": profile.resolved,
            "runs": profile.runs,
            "wall": {"ms": self.wall, "samples_ms": list(profile.wall_ms)},
            "sum_ms": self.sum_ms if self.timed else None,
            "residual": {"ms": self.residual, "share": self.residual_share},
            "gaps": None if profile.gaps is None else profile.gaps.document(),
            "streams": self.streams,
            "shares_by": "time" if self.timed else "layers",
            "categories": {str(category): part.document() for category, part in self.categories.items()},
            "unattributed": self.unattributed.document(),
            "opaque": self.opaque.document(),
            "waits": self.waits.document(),
            "notes": list(self.notes()),
            "layers": [row.document() for row in self.rows],
        }

    def _part(self, categories: Sequence[Category]) -> Part:
        return _part([row for row in self.rows if row.category in categories])


def joined(names: Sequence[str], engine: Sequence[Layer]) -> dict[str, Layer]:
    """Look up the layers of a profile in a plan's list of layers.

    Args:
        names: the names that the profiler reported. A name that is not in the list gives a layer without details.
        engine: the plan's list of layers; empty if there is none.

    Returns:
        A layer for each name.

    Raises:
        OtherEngine: the list is not empty and contains none of the names.
    """
    known = {layer.name: layer for layer in engine}
    if known and names and known.keys().isdisjoint(names):
        raise OtherEngine(
            f"none of the profile's {len(names)} layers is one of the plan's {len(known)} layers, for example "
            f"{names[0]!r}: the two are from different builds"
        )
    return {name: known.get(name, Layer(name)) for name in names}


def _part(rows: Sequence[Row]) -> Part:
    return Part(len(rows), sum(row.timed.ms for row in rows), sum(row.share for row in rows))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
