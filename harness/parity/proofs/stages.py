"""Stages that rings report: records of both sides, and the first stage at which they differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from harness.parity.bits import copied
from harness.parity.compare import Difference, NothingCompared, named_differences
from harness.parity.proofs.bounds import Bound, Bounded


class Place(NamedTuple):
    """Place of a reported tensor within one event.

    Attributes:
        tick: number of the tick, from 0; None where the ring does not count ticks.
        stage: name of the stage.
        slot: place in the ring; None for a tensor that belongs to no slot.
        name: name of the tensor.
        again: how often the same tick, stage, slot and name were reported before in this event.
    """

    tick: int | None
    stage: str
    slot: int | None
    name: str
    again: int

    @property
    def path(self) -> str:
        """Path of the tensor in messages, such as `guidance[2]/velocity`; `#2` follows if it is the second report."""
        slot = "" if self.slot is None else f"[{self.slot}]"
        return f"{self.stage}{slot}/{self.name}" + (f"#{self.again + 1}" if self.again else "")


Seen = dict[Place, Tensor]
"""Copies of reported tensors, in the order of the reports."""


class Recorder:
    """Callback of a ring: keeps a copy of every reported tensor.

    Args:
        tick: returns the number of the tick that runs.
        replayed: names of the stages for which the callback returns the other side's tensor.
        other: the records of the other side, which ran first.
    """

    def __init__(
        self,
        tick: Callable[[], int | None],
        replayed: Collection[str] = (),
        other: Mapping[Place, Tensor] | None = None,
    ) -> None:
        self.seen: Seen = {}
        self._tick, self._replayed, self._other = tick, replayed, {} if other is None else other

    def __call__(self, stage: str, slot: int | None, name: str, tensor: Tensor) -> Tensor:
        """Keep a copy of the tensor; return the tensor that the ring must go on with."""
        place = Place(self._tick(), stage, slot, name, 0)
        while place in self.seen:
            place = place._replace(again=place.again + 1)
        self.seen[place] = copied(tensor, place.path)
        given = self._other.get(place) if stage in self._replayed else None
        if given is None or (given.shape, given.dtype) != (tensor.shape, tensor.dtype):
            return tensor
        # With the strides of the ring's own tensor, because a kernel may round differently for other strides.
        return torch.empty_like(tensor, requires_grad=False).copy_(given)


@dataclass
class Stages:
    """Comparison of the stages of two rings.

    Attributes:
        where_both: stages, or `stage/name`, that are compared only where both sides report them.
        bounds: bounds of stages that need not be exact.
        compared: number of tensors with an element that were compared.
        reported: every stage and every `stage/name` that a side reported.
        skipped: members of `where_both` that only one side reported at some place.
        bounded: for each stage with a bound, the comparisons within the bound.
    """

    where_both: frozenset[str] = frozenset()
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    compared: int = 0
    reported: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    bounded: dict[str, Bounded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start a count for each bound."""
        self.bounded = {stage: Bounded(stage, bound) for stage, bound in self.bounds.items()}

    def first_apart(self, plain: Seen, fast: Seen) -> tuple[Place, list[Difference], list[str]] | None:
        """Compare one event's stages; return the first place that differs, the differences there, and notes on bounds.

        Stages come in the order in which `plain` reported them, and within a stage slots in that order. What `fast`
        alone reports comes with its stage, or last if `plain` did not report the stage.
        """
        for places in _groups(plain, fast):
            differences: list[Difference] = []
            notes: list[str] = []
            for place in places:
                differences += self._differences(place, plain.get(place), fast.get(place), notes)
            if differences:
                return places[0], differences, notes
        return None

    def refuse_unused(self, *, observable: bool) -> None:
        """Check that an option named no stage in vain, and that rings which report stages reported one.

        Raises:
            NothingCompared: one did.
        """
        unknown = sorted((self.where_both | self.bounds.keys()) - self.reported)
        if unknown:
            raise NothingCompared(f"no ring reported {', '.join(unknown)}, which where_both or bounds names")
        unbounded = sorted(stage for stage, each in self.bounded.items() if not each.compared)
        if unbounded:
            raise NothingCompared(f"nothing was compared within the bound of {', '.join(unbounded)}")
        if observable and not self.reported:
            raise NothingCompared("both rings have the method observe, and neither reported a stage")

    def _differences(
        self, place: Place, plain: Tensor | None, fast: Tensor | None, notes: list[str]
    ) -> list[Difference]:
        names = {place.stage, f"{place.stage}/{place.name}"}
        self.reported |= names
        if plain is None or fast is None:
            if names & self.where_both:
                self.skipped |= names & self.where_both
                return []
            alone = "fast" if plain is None else "plain"
            notes.append(f"only {alone} reports {place.path}; where_both compares a stage only where both report it")
            return named_differences(*({place.path: each} if each is not None else {} for each in (fast, plain)))
        self.compared += plain.numel() > 0
        found = named_differences({place.path: fast}, {place.path: plain})
        if place.stage not in self.bounded:
            return found
        note = self.bounded[place.stage].beyond(place.path, fast, plain)
        notes += [note] if note else []
        return found if note else []


def _groups(plain: Seen, fast: Seen) -> list[list[Place]]:
    """Places of both sides, grouped by stage and slot, in the order of the reports of `plain`."""
    ranks: dict[tuple[int | None, str, int], int] = {}
    groups: dict[tuple[int, int | None], list[Place]] = {}
    for place in {**plain, **fast}:
        rank = ranks.setdefault((place.tick, place.stage, place.again), len(ranks))
        groups.setdefault((rank, place.slot), []).append(place)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]
