"""Hypothesis strategies: scripts that use every feature, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner

from harness.engine import Switches
from harness.engine.controls import SharedControl
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.switches import SWITCHES
from harness.parity.battery.scripts import (
    Control,
    Correct,
    Depth,
    Drain,
    Event,
    Gain,
    Guided,
    Level,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)

T = TypeVar("T")


@contextmanager
def each_drawn_anew() -> Iterator[None]:
    """Hypothesis draws every example anew inside.

    Left alone it makes three of four examples from the one before, with a part of it repeated in another place: of 100
    scripts some 25 were different ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConjectureRunner, "generate_mutations_from", lambda runner, data: None)
        yield


CONTROLS = tuple(map(str, SharedControl))
MODES = tuple(map(str, GuidanceMode))
SCALARS = st.one_of(st.sampled_from([0.0, 1.0]), st.integers(-4, 24).map(lambda eighths: eighths / 8))
# Mapped, the numbers are one alternative, as the curves are; hypothesis would take them for two.
LEVELS: st.SearchStrategy[Level] = st.one_of(SCALARS.map(lambda number: number), st.tuples(SCALARS, SCALARS))
# Small ones meet each other and share sources; the largest is the largest a request takes.
SEEDS = st.one_of(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**64 - 1))

WAVELETS = st.builds(
    Wavelets,
    mode=st.sampled_from(["low", "high", "double", "pix"]),
    a=st.sampled_from([0.0, 0.05, 0.3, (0.0, 0.2)]),
    b=st.sampled_from([0.0, 0.02, (0.1, 0.0)]),
    wavelet=st.sampled_from(["haar", "db2", "sym4", "bior2.2"]),
)


@dataclass(frozen=True)
class Case:
    """A script, how the switches that are not in question stand, and how many rows a run may have or always has."""

    script: Script
    others: Switches
    max_rows: int
    pinned: bool = False

    @property
    def pin_rows(self) -> int | None:
        return self.max_rows if self.pinned else None


# Every strategy is made once: hypothesis works out what one is the first time that it draws from it.

POOL = 4
"""A script has so many prompts, as a person who returns to his; what names one is its number."""


@lru_cache
def texts(longest: int) -> st.SearchStrategy[Text]:
    """Conditions of 1 to `longest` tokens."""
    ranges = st.sampled_from([None, (0.0, 0.5), (0.25, 1.0), (0.9, 0.95)])
    weights = st.none() | st.sampled_from([0.0, 0.5, (1.0, 0.0)])
    plain = st.builds(Text, seed=SEEDS, tokens=st.integers(1, longest), weight=weights, span=ranges)
    masked = st.builds(Text, seed=SEEDS, tokens=st.integers(min(2, longest), longest), hidden=st.just(longest > 1))
    return st.one_of(plain, masked)


@lru_cache
def pools(longest: int) -> st.SearchStrategy[list[Text]]:
    """The prompts of a script."""
    return st.lists(texts(longest), min_size=POOL, max_size=POOL)


def sometimes(values: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """None as often as a value; mapped, the values are one alternative, however many they are made of."""
    return st.one_of(st.none(), values.map(lambda value: value))


def some(most: int) -> st.SearchStrategy[tuple[int, ...]]:
    """The numbers of one to `most` prompts."""
    return st.lists(st.integers(0, POOL - 1), min_size=1, max_size=most).map(tuple)


GUIDED = st.builds(
    Guided,
    scale=LEVELS,
    negatives=some(2),
    mode=st.sampled_from(["full", *MODES]),
    momentum=st.sampled_from([-0.75, 0.0, 0.5, (0.0, -0.5)]),
    rescale=st.none() | LEVELS,
    threshold=st.sampled_from([None, 0.5, 2.5]),
    eta=st.sampled_from([0.0, 0.3]),
)
TARGETS = st.one_of(
    *[st.builds(Toward, seed=SEEDS, strength=LEVELS)] * 2,
    st.builds(Toward, seed=SEEDS, curve=LEVELS, gate=st.sampled_from([0.0, 0.4, 1.0])),
)
MASKS = st.builds(
    Masked,
    seed=SEEDS,
    level=st.sampled_from([1.0, 0.0, 0.5, 0.25, (0.0, 1.0)]),
    every=st.sampled_from([0, 0, 2, 3]),
    fading=st.booleans(),
)
NUMBERED = st.builds(
    Submit,
    seed=SEEDS,
    texts=some(3),
    denoise=st.sampled_from([1.0, 1.0, 0.6, 0.3, 0.0]),
    source=st.none() | SEEDS,
    guided=st.none() | GUIDED,
    velocity_scale=sometimes(LEVELS),
    noise_injection=sometimes(LEVELS),
    sde_curve=st.none() | sometimes(LEVELS),
    initial_noise=sometimes(LEVELS),
    toward=sometimes(TARGETS),
    masked=sometimes(MASKS),
)
"""Requests whose conditions are numbers of prompts, and which may lack the source that they need."""


def written_out(submit: Submit, pool: list[Text]) -> Submit:
    """The request with its prompts, and without what it has no source for."""
    guided = submit.guided
    if guided is not None:
        guided = replace(guided, negatives=tuple(pool[number] for number in guided.negatives))
    submit = replace(submit, texts=tuple(pool[number] for number in submit.texts), guided=guided)
    if submit.source is None and submit.masked is None:
        return replace(submit, denoise=1.0, sde_curve=None, initial_noise=None)
    return submit


@lru_cache
def submissions(longest: int) -> st.SearchStrategy[Submit]:
    """Requests with prompts of their own of up to `longest` tokens."""
    return st.builds(written_out, NUMBERED, pools(longest))


# The velocity scale acts on every request and needs no second chance.
CHANGED = st.sampled_from([*CONTROLS, *CONTROLS[1:]])
CHANGES: st.SearchStrategy[Control | Gain | Correct | Depth] = st.one_of(
    *[st.builds(Control, CHANGED, st.one_of(st.none(), SCALARS, SCALARS))] * 3,
    st.builds(Gain, st.none() | LEVELS),
    st.builds(Correct, st.none() | WAVELETS),
    st.builds(Depth, st.integers(1, 8)),
)
"""What a person does to a running pipeline."""

LATER_OFF = st.tuples(st.builds(Control, CHANGED, SCALARS), st.just(Tick()))
"""A control that is in force for some ticks alone; then each request's own value is again."""

MORE_CHANGES = st.one_of(CHANGES, CHANGES, st.builds(Control, CHANGED, LEVELS), LATER_OFF, LATER_OFF)
"""Per-frame controls too, which fit one length alone."""

FIRST_CHANGES = st.lists(MORE_CHANGES.map(lambda change: change), max_size=3)

REWRITES = st.builds(Rewrite, st.integers(0, POOL - 1), SEEDS)
# A request, whether it is of another length than the first, and how many ticks pass before the next event: requests of
# one tick alone would stay at one step for ever. CROWD: submitted once more than the queue holds, with no tick between.
CROWD = -1
ARRIVALS = st.tuples(NUMBERED, st.sampled_from([False] * 3 + [True]), st.sampled_from([1, 0, 2, 1, 0, 2, 1, CROWD]))
TICKS = st.builds(Tick, st.integers(1, 3))
EVENTS = {
    rewrites: st.lists(
        # Mapped, the changes are one alternative among the others; hypothesis would take them for many.
        st.one_of(*[ARRIVALS] * 3, TICKS, *[MORE_CHANGES.map(lambda change: change)] * 2, *[REWRITES] * rewrites),
        min_size=4,
        max_size=14,
    )
    for rewrites in (True, False)
}
FRAMES, STEPS = st.integers(1, 24), st.sampled_from([4, 2, 6, 3, 8, 5, 12, 1])
DEPTHS = st.sampled_from([3, 2, 1, 4, 1, 5, 6, 8])
LONGEST, SHIFTS = st.sampled_from([1, 16, 64, 300]), st.sampled_from([1.0, 3.0])
SOLVERS, CORRECTIONS = st.sampled_from(["ode", "ode", "sde"]), st.none() | WAVELETS


@st.composite
def scripts(draw: st.DrawFn, rewrites: bool = True) -> Script:
    """A script that ends with an empty ring; with `rewrites`, its caller may write into conditions in flight."""
    longest, frames = draw(LONGEST), draw(FRAMES)
    pool, several, depth = draw(pools(longest)), draw(st.booleans()), draw(DEPTHS)

    def resolved(event: Any) -> list[Event]:
        match event:
            case (Submit() as submit, bool(longer), int(ticks)):
                arrival = replace(written_out(submit, pool), frames=frames + (several and longer))
                return [arrival] * (depth + 1) if ticks == CROWD else [arrival, Tick(ticks)] if ticks else [arrival]
            case (Control() as change, Tick() as ticks):
                return [change, ticks, replace(change, level=None), Tick()]
            case Rewrite():
                return [replace(event, text=pool[event.text])]
            case Control(level=(first, _)) if several:
                # A per-frame control does not fit another length; that a pipeline refuses it is claimed elsewhere.
                return [replace(event, level=first)]
        return [event]

    events = [draw(ARRIVALS), *draw(FIRST_CHANGES), draw(ARRIVALS), *draw(EVENTS[rewrites])]
    return Script(
        events=(*(made for event in events for made in resolved(event)), Drain()),
        depth=depth,
        steps=draw(STEPS),
        shift=draw(SHIFTS),
        solver=draw(SOLVERS),
        encoder_length=longest,
        dcw=draw(CORRECTIONS),
        frames=frames,
    )


SETTINGS = st.builds(Switches, **{name: st.sampled_from([each.plain, each.fast]) for name, each in SWITCHES.items()})
"""Every switch on or off."""

ALWAYS = [name for name, each in SWITCHES.items() if not each.needs_own_stream]
"""The switches that act on any executor."""


@st.composite
def cases(draw: st.DrawFn, rewrites: bool = True) -> Case:
    """A script on an executor that takes at least as many rows as there are slots: often so few that runs are split."""
    script = draw(scripts(rewrites))
    slots = max([script.depth, *(event.depth for event in script.events if isinstance(event, Depth))])
    return Case(script, draw(SETTINGS), slots + draw(st.sampled_from([0, 12, 1, 4])), draw(st.booleans()))


CASES = cases()
