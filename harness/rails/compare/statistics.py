"""How two series of tick times that were taken in turns compare: pure functions of samples, no clock, no process.

A *round* is one process of each side. They take turns in the order A B B A A B B A, so that the turns number 2j and
2j + 1 of both form a *quad* A B B A: in the mean of its two logarithms of B/A whatever grows or falls steadily over the
quad cancels. Quads are what everything here is computed from. Their two turns have the same ticks of the same load on
both sides, so that a ring's phase cancels too.

A shared machine changes its speed at once and by half, for less than a second, and that does not cancel. But the
control workload at the start of each turn shows it: only *matched* quads count, in which the control took the same all
four times, whatever the ticks took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.025
"""Two sides within this share of each other are the same, where noise does not ask for more."""

ABSOLUTE_MS = 0.02
"""Nor is a difference of fewer ms than this one: a percentage of microseconds means nothing."""

NOISIEST = 0.1
"""Where one side differs from itself by more than this share, nothing can be said of two."""

MATCHED = 1.1
"""A quad is matched where its four runs of the control are within this factor of each other."""

FEWEST = 16
"""Fewer matched quads than these say nothing."""

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 20240229

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Verdict(StrEnum):
    """Of the times of B, compared with those of A."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Side:
    """One process: a median of ticks for each of its turns, and the control workload beside it, in ms.

    Attributes:
        turns: median of a turn's ticks.
        control: what the control workload took at the start of that turn.
    """

    turns: tuple[float, ...]
    control: tuple[float, ...]


@dataclass(frozen=True)
class Round:
    """A process of each side, with as many turns, an even number of at least 4.

    Attributes:
        base: of A.
        head: of B.
        base_begins: whether the first turn of all was A's.
    """

    base: Side
    head: Side
    base_begins: bool = True


Series = Callable[[Side], Sequence[float]]
"""What of a side."""


@dataclass(frozen=True)
class Ratio:
    """B over A.

    Attributes:
        value: the middle of the quads that count.
        low: where its bootstrap interval starts.
        high: where it ends.
        floor: what the same says of a side against itself, less 1: the larger of the two sides'.
        spread: how far these quads scatter, as a share; robust.
    """

    value: float
    low: float
    high: float
    floor: float
    spread: float


@dataclass(frozen=True)
class Judged:
    """What so many rounds say.

    Attributes:
        verdict: of the times.
        why: in words; empty where `ratio` and `limit` say it.
        ratio: of ticks.
        control: of the control workload.
        limit: within this share of 1 is `same`; beyond it with the whole interval is `faster` or `slower`.
        matched: how many quads count.
        quads: of how many.
    """

    verdict: Verdict
    why: str
    ratio: Ratio
    control: Ratio
    limit: float
    matched: int
    quads: int


def quads(one: Round, series: Series) -> Array:
    """Logarithm of B/A for each quad of a round."""
    logs: Array = (np.log(series(one.head)) - np.log(series(one.base))).reshape(-1, 2).mean(axis=1)
    return logs


def matched(one: Round) -> Mask:
    """Which quads of a round count."""
    return _alike(np.concatenate([_pairs(one.base.control), _pairs(one.head.control)], axis=1))


def own_quads(side: Side, series: Series, *, first: bool) -> Array:
    """The same of one side against itself, with a ratio that is 1 whatever it takes; those that count.

    Two turns of one side that follow each other are as far apart as a turn of A and one of B are in `quads`: of the
    side that begins these are 1 and 2, 3 and 4, and so on, of the other 0 and 1, 2 and 3. Every other pair is turned
    round, so that drift cancels here as it does there, and so does a phase that returns every second turn.

    Args:
        side: its turns.
        series: what of them.
        first: whether it is the side that begins.
    """
    found: Array = np.log(_fours(series(side), first=first)) @ np.array([-0.5, 0.5, 0.5, -0.5])
    return found[_alike(_fours(side.control, first=first))]


def _pairs(values: Sequence[float]) -> Array:
    return np.array(values).reshape(-1, 2)


def _fours(values: Sequence[float], *, first: bool) -> Array:
    kept = np.array(values[1:] if first else values)
    return kept[: len(kept) // 4 * 4].reshape(-1, 4)


def _alike(control: Array) -> Mask:
    found: Mask = control.max(axis=1) < MATCHED * control.min(axis=1)
    return found


def middle(values: Array) -> Array:
    """Mean of the middle half of the values along the last axis, NaNs left out.

    A burst that falls on less than a quarter of them does not count, as in a median; but of values that scatter evenly
    it is nearly as sure as their mean, and so needs a third fewer of them than a median does.
    """
    ordered = np.sort(values, axis=-1)
    count = np.count_nonzero(~np.isnan(values), axis=-1, keepdims=True)
    cut = count // 4
    inner = (np.arange(values.shape[-1]) >= cut) & (np.arange(values.shape[-1]) < count - cut)
    found: Array = np.mean(ordered, axis=-1, where=inner)
    return found


def interval(rounds: Sequence[Array], seed: int = SEED) -> tuple[float, float]:
    """Bootstrap interval of the middle of all quads, `CONFIDENCE` wide, in logarithms.

    Rounds are drawn with replacement, and then quads within each that was drawn. Rounds, because a process keeps its
    addresses and hashes for life and may be faster or slower for that alone; quads and not ticks, because ticks of one
    turn share its moment: drawing them one by one would count one slow moment as many.
    """
    draw = np.random.default_rng(seed)
    filled = [one for one in rounds if len(one)]
    lengths = np.array([len(one) for one in filled])
    places = np.arange(lengths.max())
    table = np.stack([np.pad(one, (0, len(places) - len(one)), constant_values=np.nan) for one in filled])
    chosen = draw.integers(len(filled), size=(RESAMPLES, len(filled), 1))
    within = (draw.random((RESAMPLES, len(filled), len(places))) * lengths[chosen]).astype(int)
    values = np.where(places < lengths[chosen], table[chosen, within], np.nan)
    drawn = middle(values.reshape(RESAMPLES, -1))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def ratio(rounds: Sequence[Round], series: Series, counted: Sequence[Mask]) -> Ratio:
    """B/A of one series of each side, by the quads that count."""
    each = [quads(one, series)[which] for one, which in zip(rounds, counted, strict=True)]
    own_base = [own_quads(one.base, series, first=one.base_begins) for one in rounds]
    own_head = [own_quads(one.head, series, first=not one.base_begins) for one in rounds]
    pooled = np.concatenate(each)
    center = float(middle(pooled))
    low, high = interval(each)
    return Ratio(
        value=float(np.exp(center)),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        floor=max(_away_from_1(own_base), _away_from_1(own_head)),
        spread=1.4826 * float(np.median(np.abs(pooled - center))),
    )


def judge(rounds: Sequence[Round]) -> Judged:
    """The verdict of these rounds alone; that a difference must recur in others is for the caller.

    Raises:
        ValueError: no round, or one that is not as `Round` says.
    """
    _check(rounds)
    counted = [matched(one) for one in rounds]
    count, every = sum(int(which.sum()) for which in counted), sum(len(which) for which in counted)
    if count < FEWEST:
        # The figures are then those of all quads, and the verdict is that they say nothing.
        counted = [np.ones_like(which) for which in counted]
    ticks = ratio(rounds, lambda side: side.turns, counted)
    control = ratio(rounds, lambda side: side.control, counted)
    typical = float(np.median([turn for one in rounds for turn in one.base.turns]))
    limit = max(ticks.floor, MARGIN, ABSOLUTE_MS / typical)
    verdict, why = _verdict(ticks, control, limit) if count >= FEWEST else _unmatched(count, every)
    return Judged(verdict, why, ticks, control, limit, count, every)


def _unmatched(count: int, every: int) -> tuple[Verdict, str]:
    within = f"within {MATCHED - 1:.0%}"
    return Verdict.INCONCLUSIVE, f"the control workload took the same, {within}, in {count} of {every} quads alone"


def _verdict(ticks: Ratio, control: Ratio, limit: float) -> tuple[Verdict, str]:
    allowed = max(control.floor, MARGIN)
    if abs(control.value - 1) > allowed:
        return Verdict.INCONCLUSIVE, (
            f"the control workload, which shares no code with either side, took {control.value - 1:+.1%}, beyond "
            f"{allowed:.1%}: the machine was not the same for both"
        )
    if ticks.floor > NOISIEST:
        return Verdict.INCONCLUSIVE, f"a side differs from itself by {ticks.floor:.1%}, beyond {NOISIEST:.0%}"
    if ticks.low > 1 + limit:
        return Verdict.SLOWER, ""
    if ticks.high < 1 - limit:
        return Verdict.FASTER, ""
    if 1 - limit <= ticks.low and ticks.high <= 1 + limit:
        return Verdict.SAME, ""
    return Verdict.INCONCLUSIVE, f"the interval lies neither within {limit:.1%} of 1 nor beyond it"


def _away_from_1(logs: Sequence[Array]) -> float:
    found = np.concatenate(logs)
    return abs(float(np.exp(middle(found))) - 1) if len(found) else 0.0


def _check(rounds: Sequence[Round]) -> None:
    if not rounds:
        raise ValueError("no round to judge")
    for one in rounds:
        lengths = {len(series) for side in (one.base, one.head) for series in (side.turns, side.control)}
        if len(lengths) != 1 or min(lengths) < 4 or min(lengths) % 2:
            raise ValueError(f"a round has {sorted(lengths)} turns: expected the same even number, at least 4")
