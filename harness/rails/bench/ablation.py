"""Savings of each switch: a load as it is, in turn with the same load and one switch off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from statistics import fmean, median
from typing import Any

import numpy as np

from harness.engine.results import Stats
from harness.engine.switches import SWITCHES
from harness.parity.proofs.lockstep import acted
from harness.rails.bench.throughput import Advance, Driver, Load, Window, silent
from harness.rails.compare.statistics import interval, middle

FLOOR = "nothing (noise)"
"""In place of a switch: what two measurements of the same load differ by."""

FEWEST = 6
"""Turns: of fewer, noise alone gives all differences the same sign in more than 5 of 100 ablations."""

_LEVELS = ("depth", "in_flight", "queued")
"""The fields of `Stats` that are no counts since the pipeline was made."""


class Says(StrEnum):
    """The mark of a saving; only `beyond_noise` is a figure.

    `within_noise`: its interval is not wholly beyond what two equal loads differ by, or there were too few turns.
    `did_not_act`: the switch changed no work in the window, or was off anyhow.
    """

    BEYOND = "beyond_noise"
    WITHIN = "within_noise"
    IDLE = "did_not_act"


@dataclass(frozen=True)
class Difference:
    """Savings over all turns, in ms.

    Attributes:
        ms: middle of the differences within a turn.
        low: where its bootstrap interval over turns starts.
        high: where it ends.
        turns: how many there were.
    """

    ms: float
    low: float
    high: float
    turns: int

    def says(self, noise: Difference, *, acted: bool) -> Says:
        """The mark of this difference beside the difference of two equal loads."""
        if not acted:
            return Says.IDLE
        widest = max(abs(noise.low), abs(noise.high))
        beyond = self.low > widest or self.high < -widest
        return Says.BEYOND if beyond and self.turns >= FEWEST else Says.WITHIN


@dataclass(frozen=True)
class Saving:
    """Savings of one switch, in ms: of a tick and of its host part.

    Attributes:
        switch: its name, or `FLOOR`.
        turns: how often the load was measured with it on and with it off.
        tick_ms: a tick with it off; median over turns.
        host_ms: until `tick()` returned, with it off; likewise.
        saved_tick_ms: what a tick takes less with it on; see `Difference`.
        saved_host_ms: what its host part takes less with it on.
        tick_interval: of `saved_tick_ms`, from and to.
        host_interval: of `saved_host_ms`.
        tick: what the saving of a tick says.
        host: what that of the host part says.
    """

    switch: str
    turns: int
    tick_ms: float
    host_ms: float
    saved_tick_ms: float
    saved_host_ms: float
    tick_interval: tuple[float, float]
    host_interval: tuple[float, float]
    tick: Says
    host: Says


@dataclass(frozen=True)
class _Run:
    """Measurements of one variant: a mean for each turn, and the counts over all turns."""

    tick: Sequence[float]
    host: Sequence[float]
    counts: Stats


def ablate(load: Load, advance: Advance = silent) -> list[Saving]:
    """Measure the savings of each switch, and of each acceleration of the decoder that is on.

    The load is measured as it is, and with each of them off.

    These run in turn, `load.steps` ticks of each at a time and every other time backwards, so that a slow moment falls
    on all of them; what is saved is the middle of the differences within a turn. The first row switches nothing: what
    it "saves" is what noise does.
    """
    variants = {"": load, FLOOR: load}
    variants |= {switch: replace(load, switches=load.switches.turned_off(switch)) for switch in SWITCHES}
    of_decoder = {name: load.decoder_switches.turned_off(name) for name in load.decoder_switches.on}
    variants |= {name: replace(load, decoder_switches=switches) for name, switches in of_decoder.items()}
    runs = _measured(variants, load, advance)
    on = runs[""]
    noise = _differences(runs[FLOOR], on)
    found = []
    for name, variant in variants.items():
        if name:
            # Two equal loads are noise, whatever they do. No count of the ring says what a decoder did.
            same = name == FLOOR or name in of_decoder
            acts = same or (variant != load and acted(name, on.counts, runs[name].counts))
            found.append(_saving(name, runs[name], on, noise, acts=acts))
    return found


def ablated_ticks(load: Load) -> int:
    """How often `ablate` advances."""
    return (len(SWITCHES) + len(load.decoder_switches.on) + 2) * (load.warmup + _turns(load) * load.steps)


def difference(saved: Sequence[float]) -> Difference:
    """The middle of what each turn saves, with its interval."""
    turns = np.array(saved)
    low, high = interval([turns])
    return Difference(float(middle(turns)), low, high, len(turns))


def between(before: Stats, after: Stats) -> Stats:
    """The counts from one moment to a later one; levels, such as `queued`, are those of the later moment."""
    counted: dict[str, Any] = {
        each.name: _less(getattr(after, each.name), getattr(before, each.name))
        for each in fields(Stats)
        if each.name not in _LEVELS
    }
    return replace(after, **counted)


def _less(after: Any, before: Any) -> Any:
    """`after - before`, field by field for a record of counts."""
    if is_dataclass(after) and not isinstance(after, type):
        return replace(
            after, **{each.name: getattr(after, each.name) - getattr(before, each.name) for each in fields(after)}
        )
    return after - before


def _measured(variants: Mapping[str, Load], load: Load, advance: Advance) -> dict[str, _Run]:
    """Drive all variants in turn."""
    drivers = {name: Driver(variant) for name, variant in variants.items()}
    turns: dict[str, list[Window]] = {name: [] for name in drivers}
    for driver in drivers.values():
        driver.warm_up(advance)
    before = {name: driver.stream.pipeline.stats() for name, driver in drivers.items()}
    for number in range(_turns(load)):
        for name in list(drivers)[:: 1 if number % 2 == 0 else -1]:
            turns[name].append(drivers[name].window(load.steps, advance))
    found = {
        name: _Run(
            [fmean(window.tick_ms) for window in turns[name]],
            [fmean(window.host_ms) for window in turns[name]],
            between(before[name], driver.stream.pipeline.stats()),
        )
        for name, driver in drivers.items()
    }
    for driver in drivers.values():
        driver.session.close()
    return found


def _saving(name: str, off: _Run, on: _Run, noise: tuple[Difference, Difference], *, acts: bool) -> Saving:
    tick, host = _differences(off, on)
    tick_noise, host_noise = noise
    return Saving(
        switch=name,
        turns=tick.turns,
        tick_ms=median(off.tick),
        host_ms=median(off.host),
        saved_tick_ms=tick.ms,
        saved_host_ms=host.ms,
        tick_interval=(tick.low, tick.high),
        host_interval=(host.low, host.high),
        tick=tick.says(tick_noise, acted=acts),
        host=host.says(host_noise, acted=acts),
    )


def _differences(off: _Run, on: _Run) -> tuple[Difference, Difference]:
    """Savings of a tick and of its host part."""
    return _saved(off.tick, on.tick), _saved(off.host, on.host)


def _saved(off: Sequence[float], on: Sequence[float]) -> Difference:
    return difference([a - b for a, b in zip(off, on, strict=True)])


def _turns(load: Load) -> int:
    return -(-load.ticks // load.steps)
