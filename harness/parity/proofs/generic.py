"""Lockstep of two foreign engines: both get the same events, and their results are compared byte for byte.

`harness.parity.proofs.lockstep` knows this project's pipeline and compares the stages of its ticks. This module knows
nothing of an engine. For an engine with the protocol of `harness.parity.proofs.ring` it compares after every event the
stages that the engine reported, the tree that the engine returned, and the engine's state. For any other engine only
the returned tree is compared: state that the proof must cover then has to be part of the tree.

Each side draws its own random numbers (`randomness`), and outputs of earlier events are compared again (`handed_out`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import Difference, NothingCompared, named_differences, tree_differences
from harness.parity.proofs.bounds import Bound
from harness.parity.proofs.handed_out import REMEMBERED, Changed, HandedOut
from harness.parity.proofs.parted import Agreed, EnginesParted, OutputChanged, Where
from harness.parity.proofs.randomness import Isolation
from harness.parity.proofs.ring import Side, sides
from harness.parity.proofs.stages import Recorder, Stages
from harness.parity.trees import leaves, named
from harness.parity.values import is_array

__all__ = ["Agreed", "EnginesParted", "OutputChanged", "nans", "run"]

STATE = "state"
"""First step of the paths of a ring's state."""


def run(
    plain: object,
    fast: object,
    events: Iterable[object],
    *,
    isolate: bool = True,
    remember: int = REMEMBERED,
    where_both: Iterable[str] = (),
    bounds: Mapping[str, Bound] | None = None,
) -> Agreed:
    """Feed every event to `plain`, then to `fast`, and compare stages, returned trees, state and earlier outputs.

    Args:
        plain: the reference engine. An event that can be called, such as `operator.methodcaller("tick")`, is called
            with the engine. Any other event goes to the ring's `step`; an engine without the protocol of
            `harness.parity.proofs.ring` is called with it.
        fast: the engine that must make the same bytes.
        events: the events, in order. Both engines read the tensors of an event, so neither may write to them.
        isolate: True keeps the random state of each side apart, and restores the caller's; see `randomness`.
        remember: number of the last events whose outputs are compared again after every event; 0 compares none. The
            outputs of so many events are kept, and a copy of each.
        where_both: stages (`"guidance"`) or tensors of stages (`"guidance/scale"`) that an optimization may skip: they
            are compared only where both sides report them.
        bounds: bounds of stages that need not be exact, by stage; see `bounds`. All other stages stay exact.

    Raises:
        EnginesParted: the engines differ, only one raises, one writes to an event's tensors, or both make a NaN.
        OutputChanged: an output that was handed out earlier has changed.
        NothingCompared: no event made the engines return a tensor with an element, rings report stages and no stage
            was reported, or a stage in `where_both` or `bounds` was never compared.
        NotComparable: an engine returns anything but a tree of tensors; see `trees.named`.
        InvalidInput: `plain` and `fast` are the same object or have different parts of the protocol, or an option is
            out of range.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    pair = sides(plain, fast)
    stages = Stages(_stage_names(where_both), _checked(bounds or {}))
    lockstep = _Lockstep(pair, stages, HandedOut(remember), isolate=isolate)
    with lockstep.observing():
        for number, event in enumerate(events):
            lockstep.feed(number, event)
    return lockstep.agreed()


def nans(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN; equal NaNs may have different causes and prove nothing."""
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()}
    return [name for name, tensor in numbers.items() if bool(torch.isnan(tensor).any())]


def _stage_names(where_both: Iterable[str]) -> frozenset[str]:
    if isinstance(where_both, str):
        raise InvalidInput("where_both", repr(where_both), f"a list of stages, such as [{where_both!r}]")
    return frozenset(where_both)


def _checked(bounds: Mapping[str, Bound]) -> Mapping[str, Bound]:
    for stage, bound in bounds.items():
        if not isinstance(bound, Bound):
            raise InvalidInput(f"bounds[{stage!r}]", type(bound).__name__, "a Bound, such as measured(...).free")
    return dict(bounds)


class _Lockstep:
    """Two sides, and the counts of what was compared."""

    def __init__(self, pair: tuple[Side, Side], stages: Stages, outputs: HandedOut, *, isolate: bool) -> None:
        self._pair, self._stages, self._outputs = pair, stages, outputs
        self._random = Isolation([side.generators() for side in pair], on=isolate)
        plain = Recorder(pair[0].ticks)
        self._recorders = (plain, Recorder(pair[1].ticks, stages.bounds.keys(), plain.seen))
        self._events, self._tensors, self._elements, self._states = 0, 0, 0, 0

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Let both rings report their stages inside a `with` block."""
        try:
            for side, recorder in zip(self._pair, self._recorders, strict=True):
                side.observe(recorder)
            yield
        finally:
            for side in self._pair:
                side.observe(None)

    def feed(self, number: int, event: object) -> None:
        """Feed one event to both sides and compare everything."""
        __tracebackhide__ = True
        for recorder in self._recorders:
            recorder.seen.clear()
        self._outputs.event()
        began = self._ticks(number, event)
        plain, fast = self._pair
        turns = self._turn(plain, number, event), self._turn(fast, number, event)
        words = [_words(turn.error) for turn in turns]
        if words[0] != words[1]:
            self._part(number, event, f"plain {words[0]}, fast {words[1]}{self._reached(turns)}", where=Where(began))
        if turns[0].error is not None:
            raise turns[0].error
        self._compare_stages(number, event)
        ended = self._ticks(number, event)
        where = Where(began, ticks=0 if began is None or ended is None else ended - began)
        self._compare_trees(number, event, turns, where)
        changed = next((turn.changed for turn in turns if turn.changed is not None), None)
        if changed is not None:
            raise OutputChanged(number, event, changed, where, self._in_force())
        self._events = number + 1

    def agreed(self) -> Agreed:
        """Return the counts.

        Raises:
            NothingCompared: see `run`.
        """
        if not self._elements:
            raise NothingCompared(f"none of {self._events} events made the engines return a tensor with an element")
        if self._pair[0].ring is not None and not self._states:
            raise NothingCompared("the state of the rings held no tensor with an element after any event")
        self._stages.refuse_unused(observable=self._pair[0].observable())
        return Agreed(
            self._events,
            self._tensors,
            self._states,
            self._stages.compared,
            self._outputs.compared,
            tuple(sorted(self._stages.skipped)),
            self._in_force(),
        )

    def _turn(self, side: Side, number: int, event: object) -> _Turn:
        """Feed an event to one side. Everything is copied before the other side runs, as both may share a buffer."""
        __tracebackhide__ = True
        given = _inputs(event)
        with self._random.turn(side.number):
            result, error = _outcome(side, event)
            state = None if side.ring is None or error is not None else {STATE: side.ring.state()}
        copies = named(result) if error is None else {}
        turn = _Turn(copies, {} if state is None else named(state), error)
        if named_differences(_inputs(event), given):
            self._part(number, event, f"{side.name} wrote to the event's own tensors, which both engines read")
        turn.changed = self._outputs.changed(side.name)
        self._outputs.keep(side.name, number, result, copies)
        return turn

    def _compare_stages(self, number: int, event: object) -> None:
        __tracebackhide__ = True
        plain, fast = (recorder.seen for recorder in self._recorders)
        apart = self._stages.first_apart(plain, fast)
        if apart is not None:
            place, differences, notes = apart
            self._part(number, event, "\n  ".join(notes), differences, Where(place.tick, place.slot, place.stage))
        undefined = nans({str(place): tensor for place, tensor in plain.items()})
        for place in plain:
            if str(place) in undefined and place in fast:
                where = Where(place.tick, place.slot, place.stage)
                self._part(number, event, f"{place.path} is NaN in both: equal NaNs prove nothing", where=where)

    def _compare_trees(self, number: int, event: object, turns: tuple[_Turn, _Turn], where: Where) -> None:
        """Compare what both sides returned, and the state of both."""
        __tracebackhide__ = True
        plain, fast = turns
        differences = tree_differences(fast.tree, plain.tree) + tree_differences(fast.state, plain.state)
        if differences:
            self._part(number, event, "", differences, where)
        undefined = nans(plain.tree) + nans(plain.state)
        if undefined:
            self._part(number, event, f"{undefined[0]} is NaN in both: equal NaNs prove nothing", where=where)
        self._tensors += sum(tensor.numel() > 0 for tensor in plain.tree.values())
        self._states += sum(tensor.numel() > 0 for tensor in plain.state.values())
        self._elements += sum(tensor.numel() for tensor in (*plain.tree.values(), *plain.state.values()))

    def _ticks(self, number: int, event: object) -> int | None:
        """The number of ticks that both sides have completed."""
        __tracebackhide__ = True
        plain, fast = (side.ticks() for side in self._pair)
        if plain != fast:
            self._part(number, event, f"plain has completed {plain} ticks, fast {fast}", where=Where(plain))
        return plain

    def _reached(self, turns: tuple[_Turn, _Turn]) -> str:
        """The last stage that the side which raised had reported, in words."""
        raised = next(number for number, turn in enumerate(turns) if turn.error is not None)
        last = next(reversed(self._recorders[raised].seen), None)
        return "" if last is None else f" (after {last.path})"

    def _in_force(self) -> tuple[str, ...]:
        return tuple(map(str, self._stages.bounded.values()))

    def _part(
        self,
        number: int,
        event: object,
        detail: str,
        differences: Iterable[Difference] = (),
        where: Where | None = None,
    ) -> NoReturn:
        __tracebackhide__ = True
        raise EnginesParted(number, event, detail, differences, where, bounds=self._in_force())


@dataclass
class _Turn:
    """Copies of what an engine returned and of its state, its error, and an earlier output that has changed."""

    tree: dict[str, Tensor]
    state: dict[str, Tensor]
    error: Exception | None
    changed: Changed | None = None


def _outcome(side: Side, event: object) -> tuple[object, Exception | None]:
    try:
        return side.call(event), None
    except Exception as error:  # noqa: BLE001 - any exception that only one engine raises is a difference
        return None, error


def _inputs(event: object) -> dict[str, Tensor]:
    """Copy the tensors and arrays of an event, by path; other leaves are left out."""
    return named({path: leaf for path, leaf in leaves(event) if isinstance(leaf, Tensor) or is_array(leaf)})


def _words(error: Exception | None) -> str:
    return "returns" if error is None else f"raises {type(error).__name__}: {error}"
