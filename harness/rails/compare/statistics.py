"""Statistics of two series of tick times that were taken in turns: pure functions of samples, no clock, no process.

A *round* is one process of each side. The processes take turns in the order A B B A A B B A. The turns 2j and 2j + 1 of
both sides form a *quad* A B B A. All figures are computed from quads: the value of a quad is the mean of its two
logarithms of B/A, in which a steady drift of the machine cancels. Both sides of a quad run the same ticks of the same
load, so the phase of the ring cancels too.

The speed of a shared machine may change suddenly, by up to a half, for less than a second. Such a change does not
cancel, but the control workload at the start of each turn shows the change. Only *matched* quads count: the control
workload took the same time in all four turns. The ticks themselves have no influence on the selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.025
"""The smallest limit of `same`: differences below this share are not reported, even on a quiet machine."""

ABSOLUTE_MS = 0.02
"""Differences below this number of ms are not reported, because percentages of very short ticks have no meaning."""

NOISIEST = 0.1
"""The largest noise floor: above it the verdict is inconclusive."""

MATCHED = 1.1
"""A quad is matched if its four runs of the control workload are within this factor of each other."""

FEWEST = 16
"""The smallest number of matched quads for a verdict."""

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 20240229

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class TimeVerdict(StrEnum):
    """The verdict on the times of B, compared with the times of A."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Side:
    """The times of one process in ms, one value for each turn.

    Attributes:
        turns: the median of the turn's ticks.
        control: the time of the control workload at the start of the turn.
    """

    turns: tuple[float, ...]
    control: tuple[float, ...]


@dataclass(frozen=True)
class Round:
    """One process of each side; both have the same even number of turns, at least 4.

    Attributes:
        base: the process of A.
        head: the process of B.
        base_begins: True if the first turn of the round was A's.
    """

    base: Side
    head: Side
    base_begins: bool = True


Series = Callable[[Side], Sequence[float]]
"""A function that selects one series of a side: `turns` or `control`."""


@dataclass(frozen=True)
class Ratio:
    """The ratio B/A of one series.

    Attributes:
        value: the ratio, from the midmean (`middle`) of the counted quads.
        low: the lower end of the bootstrap interval.
        high: the upper end of the bootstrap interval.
        floor: the noise floor: distance from 1 of the ratio of one side against itself, the larger one of both sides.
        spread: the scatter of the quads, as a share: 1.4826 times the median absolute deviation.
    """

    value: float
    low: float
    high: float
    floor: float
    spread: float


@dataclass(frozen=True)
class Judged:
    """The verdict of some rounds and its figures.

    Attributes:
        verdict: the verdict on the times.
        why: the reason; empty if `ratio` and `limit` explain the verdict.
        ratio: the ratio of the ticks.
        control: the ratio of the control workload.
        limit: a share. An interval within `limit` of 1 is `same`; an interval completely outside is `faster` or
            `slower`.
        matched: the number of matched quads.
        quads: the number of all quads.
    """

    verdict: TimeVerdict
    why: str
    ratio: Ratio
    control: Ratio
    limit: float
    matched: int
    quads: int


def quads(one: Round, series: Series) -> Array:
    """Logarithm of B/A for each quad of a round, `[turns / 2]`."""
    logs: Array = (np.log(series(one.head)) - np.log(series(one.base))).reshape(-1, 2).mean(axis=1)
    return logs


def matched(one: Round) -> Mask:
    """Mask of the matched quads of a round, `[turns / 2]`."""
    return _alike(np.concatenate([_pairs(one.base.control), _pairs(one.head.control)], axis=1))


def own_quads(side: Side, series: Series, *, first: bool) -> Array:
    """Noise floor: logarithms of the ratio of one side against itself, over matched quads; the true value is 0.

    Two neighbouring turns of one side are as far apart in time as a turn of A and a turn of B in `quads`. For the side
    that begins, the neighbouring turns are 1 and 2, 3 and 4, and so on; for the other side 0 and 1, 2 and 3. The sign
    of every second pair is reversed, so that drift cancels as in `quads`, and so does a phase with a period of two
    turns.

    Args:
        side: the process.
        series: the series to use.
        first: True if this side begins the round.
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
    """Midmean: the mean of the middle half of the values along the last axis, without NaNs.

    As with a median, outliers have no influence while they are less than a quarter of the values. For evenly scattered
    values the midmean is nearly as precise as the mean, and needs a third fewer values than a median.
    """
    ordered = np.sort(values, axis=-1)
    count = np.count_nonzero(~np.isnan(values), axis=-1, keepdims=True)
    cut = count // 4
    inner = (np.arange(values.shape[-1]) >= cut) & (np.arange(values.shape[-1]) < count - cut)
    found: Array = np.mean(ordered, axis=-1, where=inner)
    return found


def interval(rounds: Sequence[Array], seed: int = SEED) -> tuple[float, float]:
    """Bootstrap confidence interval (`CONFIDENCE`) of the midmean of all quads, in logarithms.

    The bootstrap has two levels: rounds are drawn with replacement, then quads within each drawn round. Rounds are
    drawn, because the memory layout of a process is fixed for its life and may make the process faster or slower. Quads
    are drawn and not ticks, because the ticks of one turn are correlated: one slow moment would count several times.

    Args:
        rounds: the logarithms of the counted quads of each round.
        seed: the seed of the bootstrap.
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
    """The ratio B/A of one series, over the counted quads.

    Args:
        rounds: the rounds.
        series: the series to use.
        counted: the mask of the counted quads of each round.
    """
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


def judge(rounds: Sequence[Round], fewest: int = FEWEST, absolute: float = ABSOLUTE_MS) -> Judged:
    """The verdict of these rounds. The caller must check that a difference recurs in a second draw.

    Args:
        rounds: the rounds.
        fewest: the smallest number of matched quads for a verdict.
        absolute: differences below this number are not reported, in the unit of the turns.

    Raises:
        ValueError: there is no round, or the turns of a round are not as `Round` requires.
    """
    _check(rounds)
    counted = [matched(one) for one in rounds]
    count, every = sum(int(which.sum()) for which in counted), sum(len(which) for which in counted)
    if count < fewest:
        # Too few matched quads: the figures are those of all quads, and the verdict is inconclusive.
        counted = [np.ones_like(which) for which in counted]
    ticks = ratio(rounds, lambda side: side.turns, counted)
    control = ratio(rounds, lambda side: side.control, counted)
    typical = float(np.median([turn for one in rounds for turn in one.base.turns]))
    limit = max(ticks.floor, MARGIN, absolute / typical)
    verdict, why = _verdict(ticks, control, limit) if count >= fewest else _unmatched(count, every)
    return Judged(verdict, why, ticks, control, limit, count, every)


def _unmatched(count: int, every: int) -> tuple[TimeVerdict, str]:
    same = f"the control workload took the same time, within {MATCHED - 1:.0%}"
    return TimeVerdict.INCONCLUSIVE, f"{same}, in only {count} of {every} quads"


def _verdict(ticks: Ratio, control: Ratio, limit: float) -> tuple[TimeVerdict, str]:
    allowed = max(control.floor, MARGIN)
    if abs(control.value - 1) > allowed:
        return TimeVerdict.INCONCLUSIVE, (
            f"the machine's speed was different for the two sides: the time of the control workload, which shares no "
            f"code with them, differs by {control.value - 1:+.1%}, more than {allowed:.1%}"
        )
    if ticks.floor > NOISIEST:
        noise = f"a side differs from itself by {ticks.floor:.1%}, over {NOISIEST:.0%}"
        return TimeVerdict.INCONCLUSIVE, f"too noisy: {noise}"
    if ticks.low > 1 + limit:
        return TimeVerdict.SLOWER, ""
    if ticks.high < 1 - limit:
        return TimeVerdict.FASTER, ""
    if 1 - limit <= ticks.low and ticks.high <= 1 + limit:
        return TimeVerdict.SAME, ""
    return TimeVerdict.INCONCLUSIVE, f"the interval is neither within {limit:.1%} of 1 nor completely outside"


def _away_from_1(logs: Sequence[Array]) -> float:
    found = np.concatenate(logs)
    return abs(float(np.exp(middle(found))) - 1) if len(found) else 0.0


def _check(rounds: Sequence[Round]) -> None:
    if not rounds:
        raise ValueError("expected at least one round")
    for one in rounds:
        lengths = {len(series) for side in (one.base, one.head) for series in (side.turns, side.control)}
        if len(lengths) != 1 or min(lengths) < 4 or min(lengths) % 2:
            raise ValueError(f"a round has {sorted(lengths)} turns: expected the same even number, at least 4")
