"""Evidence of a difference: a comparison that failed, played again without a stop at the first difference.

Lockstep stops where two pipelines part. A report also shows what each tick, stage and slot was like before and after,
and the tensors that differ first. Evidence is no verdict: the comparison that failed has given it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import CurveLike
from harness.engine.execute import Observer, Stage
from harness.engine.executors import Executor
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Request
from harness.engine.results import Dropped, Outcomes, Stats, Submission
from harness.engine.slot import Slot
from harness.parity.baselines import platform
from harness.parity.battery.player import Played, Player
from harness.parity.battery.scenarios import Scenario, configuration, executor
from harness.parity.compare import identical, named_differences
from harness.parity.differences import LATENTS
from harness.parity.proofs.lockstep import HOST, one_apart
from harness.parity.proofs.switches import Pair

T = TypeVar("T")
Named = dict[str, Tensor]
Side = tuple[Executor, PipelineConfig]
Seen = dict[str, dict[int, dict[str, Tensor]]]

SAME, DIFFERS, NONE = "same", "differs", "none"
"""States of a stage in a tick; `NONE` made no tensor that could be compared."""
STATE = "state"
"""The one stage of a capture: a digest of every slot's state after a tick."""
NO_LATENT = "no finished latent moved: a part of the state did that no later tick read"
STAGES = (HOST, *(str(stage) for stage in Stage))
PICTURES = 3
"""The most tensors of one difference that are kept."""


@dataclass(frozen=True)
class Place:
    """Place of the first difference; None where the evidence cannot tell.

    Attributes:
        tick: number of the tick, from 0.
        slot: place in the ring, from 0.
        stage: stage of the tick, `HOST`, or `STATE`.
    """

    tick: int | None
    slot: int | None
    stage: str


@dataclass(frozen=True)
class Seat:
    """A request in the ring: its id, the steps that it has done after a tick, and the steps of its schedule."""

    id: str
    step: int
    total: int


@dataclass(frozen=True)
class TickSeen:
    """One tick.

    Attributes:
        number: from 0.
        seats: the request of each slot, one that finishes in the tick included; None is a free slot.
        stages: `SAME`, `DIFFERS` or `NONE` by stage, in the order of a tick.
        slots: slots in which a stage differs; of a capture, those of requests whose finished latents moved.
    """

    number: int
    seats: tuple[Seat | None, ...]
    stages: Mapping[str, str]
    slots: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Picture:
    """Both sides of a tensor that differs, on the CPU: `[frames, channels]`, or rows of the last dimension."""

    name: str
    got: Tensor
    expected: Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence of one difference.

    Attributes:
        ticks: the ticks in order.
        first: place of the first difference; None where the repeated play shows none.
        pictures: the tensors that differ at that place, at most `PICTURES`.
        notes: the differences there in words.
        stopped: the error that ended the play early, or empty.
    """

    ticks: tuple[TickSeen, ...]
    first: Place | None = None
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str = ""


class _OneSideRaised(Exception):
    pass


@dataclass(eq=False)
class _Watch:
    """Driver of pipelines with the interface of one: notes every tick, and compares two of them where there are two."""

    sides: Sequence[Side]
    ticks: list[TickSeen] = field(default_factory=list)
    first: Place | None = None
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._seen: list[Seen] = [{} for _ in self.sides]
        self.pipelines = [
            StreamPipeline(made, config, observe=_recorder(seen))
            for (made, config), seen in zip(self.sides, self._seen, strict=True)
        ]

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        return self.pipelines[0].slots

    def stats(self) -> Stats:
        return self.pipelines[0].stats()

    def submit(self, request: Request) -> Submission:
        return self._each(lambda pipeline: pipeline.submit(request))[0]

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        self._each(lambda pipeline: pipeline.set_shared_curve(name, value))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        self._each(lambda pipeline: pipeline.set_channel_gain(gain))

    def set_dcw(self, dcw: DCW | None) -> None:
        self._each(lambda pipeline: pipeline.set_dcw(dcw))

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        return self._each(lambda pipeline: pipeline.set_depth(depth))[0]

    def drain(self) -> Outcomes:
        ticks = []
        while self.stats().queued or self.stats().in_flight:
            ticks.append(self.tick())
        return Outcomes().joined(*ticks)

    def tick(self) -> Outcomes:
        number, before = self.stats().ticks, self.slots
        for seen in self._seen:
            seen.clear()
        outcomes = self._each(lambda pipeline: pipeline.tick())
        ran = {place for stage in self._seen[0].values() for place in stage}
        seats = _seats(before, self.slots, outcomes[0], ran)
        stages, places = self._compared(number, outcomes) if len(outcomes) > 1 else ({}, set())
        self.ticks.append(TickSeen(number, seats, stages, frozenset(places)))
        return outcomes[0]

    def close(self) -> None:
        for pipeline in self.pipelines:
            pipeline.close()
            pipeline.executor.close()

    def _each(self, act: Callable[[StreamPipeline], T]) -> list[T]:
        number, done, errors = self.stats().ticks, [], []
        for pipeline in self.pipelines:
            try:
                done.append(act(pipeline))
            except Exception as error:  # noqa: BLE001 - an error of one side alone is a difference
                errors.append(error)
        if errors and done:
            self.first = self.first or Place(number, None, HOST)
            raise _OneSideRaised(f"only one side raised {type(errors[0]).__name__}: {errors[0]}")
        if errors:
            raise errors[0]
        return done

    def _compared(self, number: int, outcomes: Sequence[Outcomes]) -> tuple[dict[str, str], set[int]]:
        """Compare both sides of a tick, stage by stage; note the first difference of all."""
        differs: set[int] = set()
        stages = dict.fromkeys(STAGES, NONE)
        facts = [_facts(pipeline, made) for pipeline, made in zip(self.pipelines, outcomes, strict=True)]
        stages[HOST] = SAME
        for key in {**facts[0], **facts[1]}:
            one, other = (side.get(key) for side in facts)
            if one != other:
                stages[HOST] = DIFFERS
                self._note(number, key[0], HOST, (f"{key[1]}: {one} and {other}",), ())
        for stage, place, first, second in self._tensors(outcomes):
            if first.keys() == second.keys() and all(identical(first[name], second[name]) for name in first):
                stages[stage] = SAME if stages[stage] == NONE else stages[stage]
                continue
            stages[stage] = DIFFERS
            differs |= set() if place is None else {place}
            found = tuple(each.told(LATENTS) for each in named_differences(first, second))
            self._note(number, place, stage, found, _pictures(first, second))
        return stages, differs

    def _tensors(self, outcomes: Sequence[Outcomes]) -> Iterator[tuple[str, int | None, Named, Named]]:
        """The tensors of both sides, by stage and slot in the order of a tick."""
        a, b = self._seen
        for stage in Stage:
            for place in sorted(a.get(stage, {}).keys() | b.get(stage, {}).keys()):
                yield str(stage), place, a.get(stage, {}).get(place, {}), b.get(stage, {}).get(place, {})
        for place, (one, two) in enumerate(zip(self.pipelines[0].slots, self.pipelines[1].slots, strict=False)):
            if one is not None and two is not None:
                yield str(Stage.COMMIT), place, one.state(), two.state()
        latents = [{str(each.id): each.latent for each in made} for made in outcomes]
        if latents[0] or latents[1]:
            yield str(Stage.COMMIT), None, latents[0], latents[1]

    def _note(
        self, tick: int, slot: int | None, stage: str, notes: tuple[str, ...], pictures: tuple[Picture, ...]
    ) -> None:
        if self.first is None:
            self.first, self.notes, self.pictures = Place(tick, slot, stage), notes, pictures


def watched(scenario: Scenario, first: Side, second: Side) -> Evidence:
    """Play a scenario on two pipelines to its end, and compare every tensor of every tick; one torch thread.

    Args:
        scenario: the scenario.
        first: executor and configuration whose tensors are `got`.
        second: executor and configuration whose tensors are `expected`.
    """
    return _played(scenario, (first, second))


def of_pair(pair: Pair, scenario: Scenario) -> Evidence:
    """Evidence of a comparison of `check --switches`: switch on is `got`, switch off is `expected`."""
    on_it = replace(scenario, decoder=pair.decoder, dtype=pair.dtype, device=pair.device)
    on, off = one_apart(configuration(on_it), pair.switch)
    first, second = (executor(on_it, pair.executor, pair.engine) for _ in range(2))
    return watched(on_it, (first, on), (second, off))


def of_capture(
    scenario: Scenario, play: Callable[[Scenario], Played], expected: Mapping[str, Tensor], ticks: Sequence[str]
) -> Evidence:
    """Evidence of a scenario whose capture moved.

    A capture has one digest for the state of all slots after a tick. So the slot of the first difference is known only
    where one request alone was in the ring then whose finished latent moved; every such slot is marked in the ticks
    that moved.

    Args:
        scenario: the scenario; where it is none of this package, there is no timeline.
        play: plays the scenario.
        expected: the tensors of the capture, by request.
        ticks: the blessed digests of the ticks; empty where only finished tensors are compared.
    """
    played = play(scenario)
    ring = _played(scenario, ((executor(scenario), configuration(scenario)),)) if _is_ours(scenario) else Evidence(())
    states = _states(played.ticks, ticks)
    seats = [tick.seats for tick in ring.ticks] + [()] * max(0, len(states) - len(ring.ticks))
    differs = named_differences(played.finished, expected)
    names = {each.name for each in differs}
    slots = [frozenset(n for n, seat in enumerate(each) if seat is not None and seat.id in names) for each in seats]
    seen = [
        TickSeen(number, seats[number], {STATE: state}, slots[number] if state == DIFFERS else frozenset())
        for number, state in enumerate(states)
    ]
    moved = next((number for number, state in enumerate(states) if state == DIFFERS), None)
    there = slots[moved] if moved is not None else frozenset().union(*slots)
    first = Place(moved, min(there) if len(there) == 1 else None, STATE) if differs or moved is not None else None
    notes = tuple(each.told(LATENTS) for each in differs) or (NO_LATENT,) * (moved is not None)
    return Evidence(tuple(seen), first, _pictures(played.finished, expected), notes, ring.stopped)


def _is_ours(scenario: object) -> bool:
    return isinstance(scenario, Scenario)


def _states(now: Sequence[str], blessed: Sequence[str]) -> list[str]:
    """The state of each tick; a tick that only one side has differs."""
    if not blessed:
        return [NONE] * len(now)
    same = [SAME if one == other else DIFFERS for one, other in zip(now, blessed, strict=False)]
    return same + [DIFFERS] * (max(len(now), len(blessed)) - len(same))


def _played(scenario: Scenario, sides: Sequence[Side]) -> Evidence:
    stopped = ""
    with platform.one_thread():
        watch = _Watch(sides)
        try:
            scenario.script(Player(watch, scenario.sizes))
        except Exception as error:  # noqa: BLE001 - what was seen until then is evidence too
            stopped = str(error) if isinstance(error, _OneSideRaised) else f"{type(error).__name__}: {error}"
        finally:
            watch.close()
    return Evidence(tuple(watch.ticks), watch.first, watch.pictures, watch.notes, stopped)


def _recorder(seen: Seen) -> Observer:
    def observe(stage: Stage, slot: int, name: str, tensor: Tensor) -> None:
        seen.setdefault(str(stage), {}).setdefault(slot, {})[name] = tensor.clone()

    return observe


def _facts(pipeline: StreamPipeline, outcomes: Outcomes) -> dict[tuple[int | None, str], object]:
    """Host facts of a pipeline after a tick: its slots, and the requests that left."""
    facts: dict[tuple[int | None, str], object] = {(None, "places"): len(pipeline.slots)}
    for place, slot in enumerate(pipeline.slots):
        facts[place, "slot"] = None if slot is None else (slot.id, slot.admitted_at, slot.step, slot.total)
    facts[None, "left"] = [*(each.id for each in outcomes), *outcomes.failed, *outcomes.dropped]
    return facts


def _seats(
    before: Sequence[Slot | None], after: Sequence[Slot | None], outcomes: Outcomes, ran: set[int]
) -> tuple[Seat | None, ...]:
    """The request of each slot in a tick; one that left with the tick has the place that it had, or that ran for it."""
    left = {str(each.id): each.steps for each in outcomes if each.steps}
    known = {place: str(slot.id) for place, slot in enumerate(before) if slot is not None and str(slot.id) in left}
    others = iter([name for name in left if name not in known.values()])
    seats: list[Seat | None] = []
    for place in range(max(len(after), len(before))):
        slot = after[place] if place < len(after) else None
        if slot is not None:
            seats.append(Seat(str(slot.id), slot.step, slot.total))
        elif place in ran:
            name = known.get(place) or next(others, None)
            seats.append(None if name is None else Seat(name, left[name], left[name]))
        else:
            seats.append(None)
    return tuple(seats)


def _pictures(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> tuple[Picture, ...]:
    """The pairs of tensors of one shape whose bits differ, as rows of the last dimension."""
    found = []
    for name in first:
        one, other = first[name], second.get(name)
        alike = other is not None and one.shape == other.shape and one.dtype == other.dtype
        if other is None or not alike or identical(one, other) or not (one.is_floating_point() and one.dim()):
            continue
        found.append(Picture(name, *(each.detach().cpu().reshape(-1, each.shape[-1]).clone() for each in (one, other))))
    return tuple(found[:PICTURES])
