"""The ratio of the times of two functions, taken in turns within one run and held to a limit.

The turns of `plain` (A) and `fast` (B) alternate as A B B A, so that a steady drift of the machine cancels in each
*quad*. The ratio B/A is the middle of the quads, and its interval is a bootstrap over quads, both as in
`harness.rails.compare.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter

import numpy as np

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.rails.compare.paced import settle
from harness.rails.compare.statistics import CONFIDENCE, FEWEST, interval, middle

MOST_S = 20.0
"""Seconds after which a draw ends without a verdict."""

WARM_UP = 2
"""Turns of each function that do not count."""

TURN_S = 1e-3
"""Shortest turn in seconds: a function that takes less is called several times a turn."""

MOST_CALLS = 2**14
"""Most calls of a turn."""

Side = Callable[[], object]
Clock = Callable[[], float]


class RatioVerdict(StrEnum):
    """The verdict on a ratio: its whole interval is within the limit, or beyond the limit, or neither is shown."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNDECIDED = "undecided"


class TooSlow(AssertionError):
    """A function takes more of another function's time than its limit allows."""


@dataclass(frozen=True)
class Timed:
    """The ratio of two times.

    Attributes:
        verdict: the verdict of all draws.
        why: the reason of `UNDECIDED`; else empty.
        ratio: time of `fast` as a share of the time of `plain`, in the last draw; NaN if no quad was measured.
        low: lower end of its 95 % interval.
        high: upper end.
        at_most: the limit of the ratio.
        quads: number of quads of the last draw.
        plain_ms: median time of a call of `plain`, in ms.
    """

    verdict: RatioVerdict
    why: str
    ratio: float
    low: float
    high: float
    at_most: float
    quads: int
    plain_ms: float

    def __str__(self) -> str:
        """The ratio with its interval and limit."""
        figures = f"{CONFIDENCE:.0%} interval {self.low:.3f} to {self.high:.3f}, {self.quads} quads"
        return (
            f"fast takes {self.ratio:.3f} of plain's time ({figures}), at most {self.at_most:g} is allowed; "
            f"a call of plain takes {self.plain_ms:.4g} ms"
        )


def timed(fast: Side, plain: Side, at_most: float, *, seconds: float = MOST_S, clock: Clock = perf_counter) -> Timed:
    """Measure until the whole interval lies on one side of the limit.

    A ratio beyond the limit must be beyond it in a second draw too.

    Args:
        fast: the function that is held to the limit; called many times, without arguments.
        plain: the function that it is compared with.
        at_most: limit of the ratio, above 0.
        seconds: when a draw ends without a verdict, above 0. A draw ends after a whole quad.
        clock: the time in seconds.

    Raises:
        InvalidInput: `at_most` or `seconds` is not above 0 and finite, or both functions are the same object.
        NothingCompared: a turn takes no time.
    """
    for name, value in (("at_most", at_most), ("seconds", seconds)):
        if not (math.isfinite(value) and value > 0):
            raise InvalidInput(name, value, "a number above 0")
    if fast is plain:
        raise InvalidInput("fast", "the same object as plain", "another function: nothing differs from itself")
    turns = _Turns(fast, plain, clock)
    first = _draw(turns, at_most, seconds)
    if first.verdict is not RatioVerdict.BEYOND:
        return first
    second = _draw(turns, at_most, seconds)
    if second.verdict is RatioVerdict.BEYOND:
        return second
    figures = {**vars(second), "verdict": RatioVerdict.UNDECIDED}
    return Timed(**{**figures, "why": f"{first.ratio:.3f} did not recur in a second draw"})


class _Turns:
    """Takes turns of two functions, each of as many calls as fill the shortest turn."""

    def __init__(self, fast: Side, plain: Side, clock: Clock) -> None:
        self._fast, self._plain, self.clock = fast, plain, clock
        self.plain_s: list[float] = []
        self._calls = 1
        for _ in range(WARM_UP):
            self._turn(plain), self._turn(fast)
        while self._calls < MOST_CALLS and min(self._turn(plain), self._turn(fast)) < TURN_S:
            self._calls *= 2

    def quad(self) -> float:
        """Logarithm of the ratio B/A of one quad."""
        a, b, b_again, a_again = (self._turn(side) for side in (self._plain, self._fast, self._fast, self._plain))
        if min(a, b, b_again, a_again) <= 0:
            raise NothingCompared("a turn takes no time, so there is no ratio")
        self.plain_s += [a / self._calls, a_again / self._calls]
        return (math.log(b / a) + math.log(b_again / a_again)) / 2

    def _turn(self, side: Side) -> float:
        started = self.clock()
        for _ in range(self._calls):
            side()
        settle()
        return self.clock() - started


def _draw(turns: _Turns, at_most: float, seconds: float) -> Timed:
    """Add quads until there is a verdict. The interval is looked at after `FEWEST` quads, then at each doubling."""
    until, look, logs = turns.clock() + seconds, FEWEST, []
    while True:
        logs.append(turns.quad())
        late = turns.clock() >= until
        if len(logs) == look or late:
            look *= 2
            found = _judged(logs, at_most, float(np.median(turns.plain_s)) * 1e3)
            if found.verdict is not RatioVerdict.UNDECIDED or late:
                return found


def _judged(logs: list[float], at_most: float, plain_ms: float) -> Timed:
    values = np.array(logs)
    ratio, (low, high) = float(np.exp(middle(values))), (float(np.exp(end)) for end in interval([values]))
    verdict, why = RatioVerdict.UNDECIDED, ""
    if len(logs) < FEWEST:
        why = f"only {len(logs)} of {FEWEST} quads were measured in time"
    elif low > at_most:
        verdict = RatioVerdict.BEYOND
    elif high <= at_most:
        verdict = RatioVerdict.WITHIN
    else:
        why = "the limit lies inside the interval"
    return Timed(verdict, why, ratio, low, high, at_most, len(logs), plain_ms)
