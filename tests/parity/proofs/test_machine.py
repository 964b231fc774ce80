"""One pipeline that anything may happen to, judged by the oracle; red as well where nothing interesting happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from harness import registry
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Control, Correct, Depth, Drain, Event, Gain, Script, Submit, Tick, Wavelets
from harness.registry import COMPARED
from tests.parity.journal import JournaledPipeline
from tests.parity.strategies import CHANGES, CONTROLS, LEVELS, WAVELETS, submissions

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

LONGEST = 64
FRAMES = 9
REQUESTS = submissions(LONGEST)

# What must have happened for a green run to mean something, and in how many of 100 examples at least. It happens some
# four times as often; which examples are drawn depends on the modules that were imported before, and on their text.
WANTED = {
    "two step ages in one tick": 12,
    "a late arrival": 12,
    "guided and unguided slots in one tick": 8,
    "two guidance modes in one tick": 3,
    "a change of Depth in flight": 2,
    "a change of Control in flight": 2,
    "a change of Correct in flight": 3,
    "a change of Gain in flight": 3,
    "another length displaced something": 6,
    "the queue dropped something": 12,
    "a finished latent was judged": 90,
}


class Anything(RuleBasedStateMachine):
    """Counts in `happened` the examples in which something happened."""

    kind: str
    happened: Counter[str]

    @initialize(
        depth=st.sampled_from([3, 2, 4, 1, 6, 8]),
        steps=st.integers(1, 12),
        solver=st.sampled_from(["ode", "ode", "sde"]),
        dcw=st.none() | WAVELETS,
        max_rows=st.integers(8, 20),
        first=REQUESTS,
    )
    def start(self, depth: int, steps: int, solver: str, dcw: Wavelets | None, max_rows: int, first: Submit) -> None:
        script = Script((), depth, steps, 3.0, solver, LONGEST, dcw, FRAMES)
        self.props, self.length = Props(script), FRAMES
        self.pipeline = self.made(script, max_rows)
        self.seen: set[str] = set()
        self.judged = 0
        self.arrive(first, 1)

    def made(self, script: Script, max_rows: int) -> JournaledPipeline:
        return JournaledPipeline(registry.executor(self.kind, AffineDecoder(), max_rows), script.config())

    @rule(submit=REQUESTS, count=st.integers(0, 2))
    def arrive(self, submit: Submit, count: int) -> None:
        self.happen(replace(submit, frames=self.length), Tick(count))

    @rule(submit=REQUESTS)
    def crowd(self, submit: Submit) -> None:
        """One more than the queue holds, with no tick between them."""
        self.happen(*[replace(submit, frames=self.length)] * (self.pipeline.depth + 1), Tick())

    @rule(count=st.sampled_from([1, 2, 3, None]))
    def tick(self, count: int | None) -> None:
        self.happen(Drain() if count is None else Tick(count))

    @rule(change=CHANGES, count=st.integers(0, 2))
    def alter(self, change: Control | Gain | Correct | Depth, count: int) -> None:
        self.change(change, count)

    def change(self, change: Control | Gain | Correct | Depth, count: int) -> None:
        if self.pipeline.stats().in_flight and not (isinstance(change, Depth) and change.depth == self.pipeline.depth):
            self.seen.add(f"a change of {type(change).__name__} in flight")
        self.happen(change, Tick(count))

    @rule(depth=st.integers(1, 8), count=st.integers(0, 2))
    def resize(self, depth: int, count: int) -> None:
        self.change(Depth(depth), count)

    @rule(name=st.sampled_from(CONTROLS), level=LEVELS, count=st.integers(1, 3))
    def bend(self, name: str, level: float | tuple[float, float], count: int) -> None:
        """A per-frame control, for a while: with it in force a request of another length would be refused."""
        if self.length == FRAMES:
            self.happen(Control(name, level), Tick(count), Control(name, None))

    @rule(submit=REQUESTS, more=st.sampled_from([0, 0, 1, 4]))
    def change_length(self, submit: Submit, more: int) -> None:
        self.length = FRAMES + more
        self.happen(replace(submit, frames=self.length), Tick())

    def happen(self, *events: Event) -> None:
        for event in events:
            before, dropped = self.pipeline.stats(), "the queue dropped something"
            event.happen(self.pipeline, self.props)
            if self.pipeline.stats().dropped > before.dropped:
                emptied = before.in_flight > 0 and self.pipeline.stats().in_flight == 0
                self.seen.add("another length displaced something" if emptied else dropped)
            self.look()
            self.judge()

    def look(self) -> None:
        slots = [slot for slot in self.pipeline.slots if slot is not None]
        modes = {slot.request.guidance and slot.request.guidance.mode for slot in slots}
        if len({slot.step for slot in slots}) > 1:
            self.seen |= {"two step ages in one tick", "a late arrival"}
        if None in modes and len(modes) > 1:
            self.seen.add("guided and unguided slots in one tick")
        if len(modes - {None}) > 1:
            self.seen.add("two guidance modes in one tick")

    def judge(self) -> None:
        """Every latent that finished since the last look has the bits of its request alone."""
        new = self.pipeline.finished[self.judged :]
        self.judged += len(new)
        if new:
            self.pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1), new)
            self.seen.add("a finished latent was judged")

    def teardown(self) -> None:
        if hasattr(self, "pipeline"):
            self.happen(Drain())
            assert self.judged == self.pipeline.stats().finished
            self.happened.update(self.seen)


def run(machine: type[Anything], kind: str, **options: Any) -> Counter[str]:
    """What happened, and in how many examples."""
    happened: Counter[str] = Counter()
    ran = type(machine.__name__, (machine,), {"kind": kind, "happened": happened})
    run_state_machine_as_test(ran, settings=settings(stateful_step_count=20, **options))
    return happened


def missed(happened: Counter[str], examples: int = 100) -> dict[str, int]:
    """What happened in too few of so many examples."""
    return {what: happened[what] for what, least in WANTED.items() if happened[what] < least * examples // 100}


@pytest.mark.parametrize("kind", COMPARED)
def test_whatever_happens_every_latent_is_the_oracle_s(kind: str) -> None:
    examples = 100 if kind == "eager" else 50
    happened = run(Anything, kind, max_examples=examples)
    few = missed(happened, examples)
    assert not few, f"too seldom for a green run to mean much: {few} of {dict(happened)}"


class Lonely(Anything):
    """Never has two requests in flight."""

    def happen(self, *events: Event) -> None:
        for event in events:
            super().happen(event, *[Drain()] * isinstance(event, Submit))


def test_a_run_in_which_nothing_overlaps_is_red() -> None:
    happened = run(Lonely, "eager", max_examples=20)
    assert happened["a finished latent was judged"] >= 20
    assert {"two step ages in one tick", "a late arrival", "a change of Depth in flight"} <= missed(happened).keys()
