"""The oracle of a foreign ring: every request ends with the bits that it has alone, in a new ring.

Alone, a request meets the live changes that it met in the script, before the same of its own ticks. Ticks are counted
from the end of the request, so it does not matter when a ring admits. Where the rows of a ring are not exact, a stage
can have a bound: alone, the stage is compared within the bound, and the ring then goes on with the tensor of the
script, so that the end is compared byte for byte. An adapter with the method `reference` is compared with that too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import Difference, NothingCompared, copied, identical, named_differences
from harness.parity.foreign.journal import Journal, Report, play, undisturbed
from harness.parity.foreign.records import Depth, Live, Operation, Script, Submit, Tick
from harness.parity.proofs.bounds import Bound, Bounded
from harness.parity.proofs.generic import nans
from harness.parity.trees import named

REFERENCE = "reference"
"""Key of the bound between a request's end and the tree of the adapter's method `reference`."""

Make = Callable[[], Any]
"""Function that makes a new adapter."""


class NotAlone(AssertionError):
    """A request does not end with the bits that it has alone.

    Attributes:
        request: number of the request.
        tick: number of the first of the request's own ticks that differs, from 0; None if no report shows it.
        stage: first stage that differs in that tick, in the order of the reports; else None.
        differences: the differences of the trees that the request ended with.
    """

    def __init__(
        self,
        request: int,
        what: str,
        operations: Iterable[Operation],
        differences: Iterable[Difference] = (),
        where: tuple[int, Report] | None = None,
        hint: str = "",
    ) -> None:
        """Name the request, the first tick and stage that differ, and the script of the request alone."""
        self.request, self.differences = request, tuple(differences)
        self.tick: int | None = None if where is None else where[0]
        self.stage: str | None = None if where is None else where[1].stage
        place = "" if where is None else f", first apart in its tick {where[0]}, stage {where[1].stage}"
        title = f"request {request} {what}{place}:"
        lines = [title, *map(str, self.differences), *([hint] if hint else []), f"alone it is {_short(operations)}"]
        super().__init__("\n  ".join(lines))


@dataclass
class Alone:
    """Comparisons with requests alone, over any number of scripts.

    Attributes:
        make: makes the ring.
        bounds: bounds of stages, and of the reference.
        compared: number of requests that were compared.
        referred: number of requests that were compared with the adapter's reference.
        bounded: for each bound the comparisons within it.
    """

    make: Make
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    compared: int = 0
    referred: int = 0
    bounded: dict[str, Bounded] = field(default_factory=dict)
    _known: dict[str, Journal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start a count for each bound.

        Raises:
            InvalidInput: a bound of a stage, and a ring that reports none.
        """
        self.bounded = {stage: Bounded(stage, bound) for stage, bound in self.bounds.items()}
        stages = self.bounds.keys() - {REFERENCE}
        with undisturbed():
            reports = hasattr(self.make(), "observe")
        if stages and not reports:
            known = "an adapter with the method observe, or rows that are exact"
            raise InvalidInput(f"bounds of {', '.join(sorted(stages))}", "an adapter that reports no stage", known)

    def check(self, journal: Journal) -> None:
        """Compare every request of a script with the request alone.

        Raises:
            NotAlone: a request ends with other bits, or after another number of ticks.
        """
        for number, event in journal.ends().items():
            self._check(journal, number, event)

    def refuse_unused(self) -> None:
        """Check that something was compared, and something within each bound.

        Raises:
            NothingCompared: nothing was.
        """
        if not self.compared:
            raise NothingCompared("no request of any script ended with a tensor that has an element")
        unused = sorted(stage for stage, each in self.bounded.items() if not each.compared)
        if unused:
            raise NothingCompared(f"nothing was compared within the bound of {', '.join(unused)}")

    def _check(self, journal: Journal, number: int, event: int) -> None:
        submit = journal.submits()[number]
        ended = journal.moments[event].finished[number]
        own = self._own_ticks(journal, submit, event)
        operations = self._operations(journal, submit, event, own)
        replay = _Replay(journal.stages.get(number, []), len(own), self.bounded)
        again = self._played(operations, submit, replay)
        (moment,) = (moment for moment in again.moments if number in moment.finished)
        if replay.beyond:
            raise NotAlone(number, "is beyond a bound", operations, (), replay.apart, replay.beyond)
        differences = named_differences(ended, moment.finished[number])
        if differences:
            where = replay.apart or _first_apart(journal.stages.get(number, []), again.stages.get(number, []))
            hint = self._hint(operations, number, moment.finished[number], where)
            raise NotAlone(number, "does not end with the bits that it has alone", operations, differences, where, hint)
        self._refer(journal, submit, own, ended)
        undefined = nans(ended)
        if undefined:
            raise NotAlone(number, f"ends with NaN in {undefined[0]}: equal NaNs prove nothing", operations)
        self.compared += any(tensor.numel() for tensor in ended.values())

    def _own_ticks(self, journal: Journal, submit: Submit, event: int) -> list[int]:
        """Numbers of the events that are the last ticks of a request, as many as the request has alone."""
        since = next(at for at, each in enumerate(journal.operations) if each == submit)
        ticks = [at for at in range(since, event + 1) if isinstance(journal.operations[at], Tick)]
        first = [*self._start(journal), submit]
        alone = len([each for each in self._without_changes(first, submit).operations if isinstance(each, Tick)])
        if len(ticks) < alone:
            raise NotAlone(submit.number, f"ended after {len(ticks)} ticks, and alone after {alone}", first)
        return ticks[len(ticks) - alone :]

    def _without_changes(self, first: list[Operation], submit: Submit) -> Journal:
        key = repr(submit.values)
        if key not in self._known:
            with undisturbed():
                self._known[key] = play(self.make(), first)
        return self._known[key]

    def _start(self, journal: Journal) -> list[Operation]:
        return [Depth(min(journal.features.depths))] if journal.features.depths else []

    def _operations(self, journal: Journal, submit: Submit, event: int, own: list[int]) -> list[Operation]:
        kept = [*self._start(journal)]
        for at, operation in enumerate(journal.operations[: event + 1]):
            if isinstance(operation, Live) or operation is submit or at in own:
                kept.append(operation)
        return kept

    def _played(self, operations: list[Operation], submit: Submit, replay: _Replay) -> Journal:
        with undisturbed():
            ring = self.make()
            again = play(ring, operations, replay if replay.stages else None, drain=False)
        ends = again.ends()
        if submit.number not in ends:
            raise NotAlone(submit.number, "has not ended alone after as many ticks as in the script", operations)
        if ends[submit.number] != len(again.moments) - 1:
            raise NotAlone(submit.number, "ends alone after fewer ticks than in the script", operations)
        return again

    def _refer(self, journal: Journal, submit: Submit, own: list[int], ended: dict[str, Tensor]) -> None:
        with undisturbed():
            ring = self.make()
            tree = ring.reference(submit, _controls(journal, own)) if hasattr(ring, REFERENCE) else None
        if tree is None:
            return
        expected = named(tree)
        differences = named_differences(ended, expected)
        beyond = self._beyond_reference(ended, expected) if differences and REFERENCE in self.bounded else ""
        if differences and (beyond or REFERENCE not in self.bounded):
            what = "does not end with the bits of the reference"
            raise NotAlone(submit.number, what, [submit], differences, None, beyond)
        self.referred += 1

    def _beyond_reference(self, ended: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
        if ended.keys() != expected.keys():
            return "no bound covers other tensors"
        bound = self.bounded[REFERENCE]
        return "; ".join(filter(None, (bound.beyond(name, ended[name], expected[name]) for name in expected)))

    def _hint(
        self, operations: list[Operation], number: int, once: Mapping[str, Tensor], where: tuple[int, Report] | None
    ) -> str:
        """What to do, where that is known: a request that draws other numbers, or a stage that has no bound."""
        with undisturbed():
            ring = self.make()
            _disturb(ring)
            again = play(ring, operations, drain=False).moments[-1].finished.get(number, {})
        if named_differences(again, once):
            return (
                "alone, the request ends with other bits again if random numbers were drawn before it: "
                "let each request draw from its own seed, or say why not with not_alone="
            )
        if where is None or where[1].stage in self.bounded:
            return ""
        stage = where[1].stage
        return f"if the rows of {stage} are not exact in batches: bounds={{{stage!r}: measured(...).free}}"


class _Replay:
    """Callback of a ring that runs one request alone: compares stages, and returns the script's where there is a bound.

    Attributes:
        stages: stages that have a bound.
        beyond: how the first stage that differs exceeds its bound; empty where it has none.
        apart: the first report that differs, with the number of the request's own tick.
    """

    def __init__(self, ticks: list[dict[Report, Tensor]], own: int, bounded: Mapping[str, Bounded]) -> None:
        self._ticks, self._bounded = ticks[len(ticks) - own :], bounded
        self.stages = bounded.keys() - {REFERENCE}
        self.beyond = ""
        self.apart: tuple[int, Report] | None = None
        self._seen: list[Report] = []
        self._at = -1

    def begin(self) -> None:
        """Note that a tick begins."""
        self._at += 1
        self._seen.clear()

    def __call__(self, stage: str, slot: int | None, name: str, tensor: Tensor, /) -> Tensor:
        """Compare a reported tensor; return the one to go on with."""
        if slot is None:
            return tensor
        again = sum(each[:2] == (stage, name) for each in self._seen)
        report = Report(stage, name, again)
        self._seen.append(report)
        known = self._ticks[self._at].get(report) if 0 <= self._at < len(self._ticks) else None
        if known is None:
            return tensor
        if stage not in self.stages:
            self.apart = self.apart or (None if identical(copied(tensor, name), known) else (self._at, report))
            return tensor
        beyond = self._bounded[stage].beyond(f"{stage}/{name}", copied(tensor, name), known)
        if beyond and self.apart is None:
            self.beyond, self.apart = beyond, (self._at, report)
        return known.to(tensor.device)


def _first_apart(ticks: list[dict[Report, Tensor]], alone: list[dict[Report, Tensor]]) -> tuple[int, Report] | None:
    """The first report of a request that differs, with the number of the request's own tick."""
    for at, (here, there) in enumerate(zip(ticks[len(ticks) - len(alone) :], alone, strict=False)):
        for name, tensor in here.items():
            if name in there and not identical(tensor, there[name]):
                return at, name
    return None


def _controls(journal: Journal, own: list[int]) -> list[dict[str, object]]:
    """The values of the live controls in each of a request's own ticks."""
    found = []
    for last in own:
        now = {name: values[0] for name, values in journal.features.live.items()}
        now.update({each.control: each.value for each in journal.operations[:last] if isinstance(each, Live)})
        found.append(now)
    return found


def _disturb(ring: Any) -> None:
    """Draw from the global generators and from those that a ring names."""
    torch.rand(7), np.random.random(7), random.random()  # noqa: B018 - drawn and thrown away
    for generator in ring.generators() if hasattr(ring, "generators") else ():
        if isinstance(generator, torch.Generator):
            torch.rand(7, generator=generator, device=generator.device)
        elif isinstance(generator, random.Random):
            generator.random()
        else:
            generator.random(7)


def _short(operations: Iterable[Operation]) -> str:
    """Operations as a script, equal ticks in a row as one operation."""
    kept: list[Operation] = []
    for operation in operations:
        if isinstance(operation, Tick) and kept and isinstance(kept[-1], Tick):
            kept[-1] = Tick(kept[-1].count + operation.count)
        else:
            kept.append(operation)
    return repr(Script(tuple(kept)))
