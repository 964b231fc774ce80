"""What each switch saves: a load as it is, in turn with the same load and one switch off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.engine.switches import SWITCHES
from harness.rails.bench.throughput import Advance, Driver, Load, Window, silent


@dataclass(frozen=True)
class Saving:
    """What a switch saves, in ms; medians over turns of a tick and of its host part.

    Attributes:
        switch: its name, or `FLOOR`.
        tick_ms: a tick with it off.
        host_ms: until `tick()` returned, with it off.
        saved_tick_ms: what a tick takes less with it on.
        saved_host_ms: what its host part takes less with it on.
    """

    switch: str
    tick_ms: float
    host_ms: float
    saved_tick_ms: float
    saved_host_ms: float


FLOOR = "nothing (noise)"
"""In place of a switch: what two measurements of the same load differ by."""


def ablate(load: Load, advance: Advance = silent) -> list[Saving]:
    """What each switch saves: the load as it is, and with each switch off.

    These run in turn, `load.steps` ticks of each at a time and every other time backwards, so that a slow moment falls
    on all of them; what is saved is the median of the differences within a turn. The first row switches nothing: what
    it "saves" is what noise does.
    """
    variants = {"": load, FLOOR: load}
    variants |= {switch: replace(load, switches=load.switches.turned_off(switch)) for switch in SWITCHES}
    drivers = {name: Driver(variant) for name, variant in variants.items()}
    turns: dict[str, list[Window]] = {name: [] for name in drivers}
    for driver in drivers.values():
        driver.warm_up(advance)
    for number in range(_turns(load)):
        for name in list(drivers)[:: 1 if number % 2 == 0 else -1]:
            turns[name].append(drivers[name].window(load.steps, advance))
    for driver in drivers.values():
        driver.session.close()
    tick = {name: [fmean(window.tick_ms) for window in windows] for name, windows in turns.items()}
    host = {name: [fmean(window.host_ms) for window in windows] for name, windows in turns.items()}
    return [
        Saving(name, median(tick[name]), median(host[name]), _saved(tick[name], tick[""]), _saved(host[name], host[""]))
        for name in drivers
        if name
    ]


def ablated_ticks(load: Load) -> int:
    """How often `ablate` advances."""
    return (len(SWITCHES) + 2) * (load.warmup + _turns(load) * load.steps)


def _turns(load: Load) -> int:
    return -(-load.ticks // load.steps)


def _saved(off: Sequence[float], on: Sequence[float]) -> float:
    return median(a - b for a, b in zip(off, on, strict=True))
