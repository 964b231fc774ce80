"""What the layers of a decoder take: averages, categories, shares, and what is left of the wall time."""

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
"""Beyond this share of opaque blobs a profile says too little, and the report says what to do."""

WAITS = ("stream-order", "stream-order-name")
"""The rules of layers in which a stream waits for another one, or tells it to go on."""


class ProfileRefused(EngineError):
    """Something is no profile of layers, or not one that can be attributed; the subclasses say why."""


class NoLayers(ProfileRefused):
    """A profile, or a list of layers, that has none."""


class NamelessLayers(ProfileRefused):
    """A profile of a plan without verbosity: its layers are called by their indices, which say nothing."""


class NotAProfile(ProfileRefused):
    """A file, or what a profiler wrote, is not what it has to be."""


class OtherEngine(ProfileRefused):
    """The layers that were given beside a profile are not those of its engine."""


@dataclass(frozen=True)
class Timed:
    """A layer and what it takes.

    Attributes:
        facts: what is known of it.
        ms: a run, averaged over the profiled runs; 0 in a list without times.
        calls: a run, likewise.
    """

    facts: Facts
    ms: float = 0.0
    calls: float = 1.0


@dataclass(frozen=True)
class Profile:
    """What a source has measured.

    Attributes:
        source: which: `tensorrt`, `onnxruntime`, `torch`, `trtexec`, or `plan` for a list without times.
        layers: each once.
        runs: that were profiled; 0 for a list without times.
        wall_ms: of runs that were not profiled, one each; empty where nobody measured them.
        resolved: whether `layers` were joined with an engine's list.
        provenance: what was run, where and by what.

    Raises:
        NoLayers: there are none.
        NamelessLayers: their names are indices.
    """

    source: str
    layers: Sequence[Timed]
    runs: int = 0
    wall_ms: Sequence[float] = ()
    resolved: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be attributed."""
        if not self.layers:
            raise NoLayers(f"{self.source}: no layer was reported")
        if all(re.fullmatch(r"\d+", timed.facts.layer.name) for timed in self.layers):
            raise NamelessLayers(
                f"{self.source}: layers are called by their indices: the plan was built with profiling verbosity none; "
                "build it again with detailed verbosity"
            )


@dataclass(frozen=True)
class Row:
    """A layer of the report.

    Attributes:
        timed: the layer.
        category: of it.
        rule: that says so; empty where none does.
        share: of the sum of all layers, by time, or by number in a list without times.
    """

    timed: Timed
    category: Category
    rule: str
    share: float

    def document(self) -> dict[str, Any]:
        """For a program."""
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
    """Several layers together.

    Attributes:
        layers: how many.
        ms: a run.
        share: of the sum of all layers, by time, or by number in a list without times.
    """

    layers: int
    ms: float
    share: float

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {"layers": self.layers, "ms": self.ms, "share": self.share}


@dataclass(frozen=True)
class Report:
    """A profile, attributed."""

    profile: Profile

    @property
    def timed(self) -> bool:
        """Whether there are times: shares are by number in a list without them."""
        return self.profile.runs > 0

    @cached_property
    def sum_ms(self) -> float:
        """Of all layers, a run. Layers of several streams overlap: it may exceed the wall time."""
        return sum(timed.ms for timed in self.profile.layers)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every layer, the one that takes most first; in a list without times, in its order."""
        total = self.sum_ms if self.timed else float(len(self.profile.layers))
        found = [
            Row(timed, *categorise(timed.facts), share=_ratio(timed.ms if self.timed else 1.0, total))
            for timed in self.profile.layers
        ]
        return tuple(sorted(found, key=lambda row: -row.timed.ms))

    @cached_property
    def categories(self) -> dict[Category, Part]:
        """Every category in its order, the empty ones too."""
        return {category: self._part((category,)) for category in Category}

    @property
    def opaque(self) -> Part:
        """Myelin blobs: nobody can say what is in them."""
        return self.categories[Category.OPAQUE]

    @cached_property
    def unattributed(self) -> Part:
        """What is opaque, and what no rule matches."""
        return self._part(UNATTRIBUTED)

    @cached_property
    def waits(self) -> Part:
        """Layers in which streams wait for each other; they are in `copy-reformat`."""
        return _part([row for row in self.rows if row.rule in WAITS])

    @property
    def wall(self) -> float | None:
        """Milliseconds of a run that was not profiled, the median; None where nobody measured it."""
        return median(self.profile.wall_ms) if self.profile.wall_ms else None

    @property
    def residual(self) -> float | None:
        """Wall time without the layers, in ms, with its sign; None where there is no wall time."""
        return None if self.wall is None else self.wall - self.sum_ms

    @property
    def residual_share(self) -> float | None:
        """The residual's share of the wall time."""
        return None if self.residual is None or not self.wall else self.residual / self.wall

    @property
    def streams(self) -> int:
        """How many streams the layers run on, as far as the engine says."""
        return len({timed.facts.layer.stream for timed in self.profile.layers})

    def notes(self) -> Iterator[str]:
        """What a reader of the figures has to know."""
        if self.residual is not None and self.residual < 0:
            why = (
                f"the engine has {self.streams} streams, whose layers overlap"
                if self.streams > 1
                else "profiling makes each layer slower, or layers overlap"
            )
            yield f"the sum of the layers exceeds the wall time by {-self.residual:.3f} ms: {why}"
        elif self.timed and self.streams > 1:
            yield f"the engine has {self.streams} streams, whose layers overlap: their sum is not the wall time"
        if self.waits.layers:
            yield (
                f"copy-reformat holds {self.waits.layers} layers in which streams wait for each other "
                f"({self.waits.share:.1%})"
            )
        if self.opaque.share > MOSTLY_OPAQUE:
            yield (
                f"{self.opaque.share:.1%} is in opaque Myelin blobs: rebuild the engine with detailed profiling "
                "verbosity and give its list of layers, which names the nodes that they compute"
            )

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
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
    """The layers of a profile, by name, as the engine's own list describes them.

    Args:
        names: as the profiler reported them. One that the engine does not list stays a bare name.
        engine: its layers; empty where nothing lists them.

    Raises:
        OtherEngine: the engine has layers, and none of these names.
    """
    known = {layer.name: layer for layer in engine}
    if known and names and known.keys().isdisjoint(names):
        raise OtherEngine(
            f"none of the profile's {len(names)} layers is one of the engine's {len(known)}: "
            f"{names[0]!r} is not, they are of different builds"
        )
    return {name: known.get(name, Layer(name)) for name in names}


def _part(rows: Sequence[Row]) -> Part:
    return Part(len(rows), sum(row.timed.ms for row in rows), sum(row.share for row in rows))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
