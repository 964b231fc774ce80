"""The time rails: which there are, what each allows, and that every one of them ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest

TURNS, WARM_UP = 15, 2

MARGIN = 1.25
"""Of 45 draws on two cores with four busy processes, a ring differed from its twin by 2 % in the median, by more than
9 % in three, by 29 % at most. None of these rails was beyond the margin twice in a row."""


@dataclass(frozen=True)
class Rail:
    """A ratio of two times, and what it usually is; beyond `MARGIN` of that, twice in a row, it is red."""

    name: str
    usual: float

    @property
    def bound(self) -> float:
        return self.usual * MARGIN


RAILS = {
    rail.name: rail
    for rail in (
        Rail("plain: fast path / plain path", 0.92),
        Rail("cfg_full: fast path / plain path", 0.68),
        Rail("rcfg_initialize: fast path / plain path", 0.85),
        Rail("rcfg_self: fast path / plain path", 0.95),
        Rail("mixed: fast path / plain path", 0.72),
        Rail("dcw: fast path / plain path", 0.98),
        Rail("plain: tick / bare decoder", 1.12),
        Rail("cfg_full: tick / bare decoder", 1.20),
        Rail("dcw: tick / bare decoder", 1.70),
    )
}

MEASURED = pytest.StashKey[set[str]]()
PARTIAL = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Draw:
    """A ratio, and by how much the same ratio of two rings that are the same differs from 1."""

    ratio: float
    floor: float


Side = Callable[[], Any]


def draw(first: Side, twin: Side, other: Side, benchmark: Any = None) -> Draw:
    """The median ratio of a turn of `first` to one of `other` beside it: a slow moment of the machine falls on both.

    Args:
        first: what is measured; in a `benchmark`, its rounds.
        twin: the same again.
        other: what it is measured against.
        benchmark: pytest-benchmark's fixture, for the draw that it is to report.
    """
    times: list[list[float]] = [[], [], []]
    sides = list(zip((first, twin, other), times, strict=True))

    def turn(chosen: Sequence[tuple[Side, list[float]]]) -> None:
        for side, taken in chosen:
            started = perf_counter()
            side()
            taken.append(perf_counter() - started)

    if benchmark is None:
        for _ in range(TURNS):
            turn(sides)
    else:
        benchmark.pedantic(lambda: turn(sides[:1]), setup=lambda: turn(sides[1:]), rounds=TURNS, warmup_rounds=WARM_UP)
    a, a_again, b = (taken[-TURNS:] for taken in times)
    return Draw(_ratio(a, b), abs(_ratio(a_again, a) - 1))


def _ratio(first: Sequence[float], other: Sequence[float]) -> float:
    return median(a / b for a, b in zip(first, other, strict=True))


def gate(rail: Rail, first: Side, twin: Side, other: Side, benchmark: Any) -> None:
    """Red where the ratio is out of bounds in two draws one after the other, or where nothing was measured."""
    assert not benchmark.disabled, f"{rail.name}: benchmarks are disabled, so nothing was measured"
    found = draw(first, twin, other, benchmark)
    benchmark.extra_info.update(**asdict(rail), bound=rail.bound, **asdict(found))
    if found.ratio > rail.bound:
        again = draw(first, twin, other)
        assert again.ratio <= rail.bound, (
            f"{rail.name}: {found.ratio:.2f} and again {again.ratio:.2f}, usually {rail.usual:.2f}, at most "
            f"{rail.bound:.2f}; the same ring differed from itself by {found.floor:.0%} and {again.floor:.0%}"
        )


def whole(config: pytest.Config) -> bool:
    """Whether this run was to measure every rail: nothing was deselected, and the folder of them was asked for."""
    from harness.plugin.whole import asked_for  # noqa: PLC0415 - coverage starts after this file is imported

    asked = asked_for(config, [Path(__file__).parent])
    return asked and not config.option.collectonly and not config.stash.get(PARTIAL, False)


def found(config: pytest.Config) -> tuple[list[str], bool]:
    """What one process of several tells: which rails it measured, and whether some were left out on purpose."""
    return sorted(config.stash.get(MEASURED, set())), config.stash.get(PARTIAL, False)


def merge(config: pytest.Config, told: tuple[list[str], bool] | None) -> None:
    """Take over what another process has `found`."""
    measured, partial = told or ((), False)
    config.stash.setdefault(MEASURED, set()).update(measured)
    config.stash[PARTIAL] = config.stash.get(PARTIAL, False) or partial


def unmeasured(config: pytest.Config) -> list[str]:
    """The rails that are declared and were not measured in a run that was to measure all of them."""
    return sorted(RAILS.keys() - config.stash.get(MEASURED, set())) if whole(config) else []
