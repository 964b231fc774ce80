"""The ratio of two times, beside a clock that stands still but for what the functions take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.rails.bench import ratio
from harness.rails.bench.ratio import RatioVerdict, Timed, timed


class Noisy:
    """Functions that take a time with noise, by a clock of their own."""

    def __init__(self, seed: int = 0, noise: float = 0.0, drift: float = 0.0) -> None:
        self.now, self._draw = 0.0, np.random.default_rng(seed)
        self._noise, self._drift, self.calls = noise, drift, 0

    def lasting(self, ms: float, late: float | None = None, after: int = 0) -> Callable[[], None]:
        """A function of `ms`, or of `late` once so many calls were made."""

        def call() -> None:
            self.calls += 1
            usual = ms if late is None or self.calls <= after else late
            slower = 1 + self._drift * self.calls
            self.now += usual * slower * float(np.exp(self._noise * self._draw.standard_normal())) / 1e3

        return call

    def clock(self) -> float:
        return self.now

    def timed(self, fast: float, plain: float, at_most: float = 1.05, **options: Any) -> Timed:
        sides = self.lasting(fast), self.lasting(plain)
        return timed(*sides, at_most, clock=self.clock, **options)


def test_a_function_that_sleeps_for_5_ms_more_is_beyond_the_limit() -> None:
    found = Noisy(noise=0.05).timed(7, 2)
    assert found.verdict is RatioVerdict.BEYOND
    assert 3.3 < found.low < found.ratio < found.high < 3.7
    assert found.quads == 16
    assert str(found).startswith(f"fast takes {found.ratio:.3f} of plain's time (95% interval ")


def test_equal_functions_are_within_the_limit_in_20_runs() -> None:
    found = [Noisy(seed, noise=0.05).timed(2, 2).verdict for seed in range(20)]
    assert found == [RatioVerdict.WITHIN] * 20


@pytest.mark.parametrize(
    ("fast", "at_most", "verdict"),
    [
        (2.0, 1.0, RatioVerdict.WITHIN),
        (2.001, 1.0, RatioVerdict.BEYOND),
        (1.0, 0.5, RatioVerdict.WITHIN),
        (1.1, 0.5, RatioVerdict.BEYOND),
        (2.1, 1.05, RatioVerdict.WITHIN),
        (2.11, 1.05, RatioVerdict.BEYOND),
    ],
)
def test_the_limit_itself_is_within_and_a_little_more_is_beyond(
    fast: float, at_most: float, verdict: RatioVerdict
) -> None:
    # The clock's numbers are no multiples of a turn.
    found = Noisy().timed(fast, 2.0, at_most * (1 + 1e-9))
    assert (found.verdict, found.ratio) == (verdict, pytest.approx(fast / 2))


def test_where_the_noise_is_too_wide_it_is_undecided_after_the_time_that_it_has() -> None:
    made = Noisy(noise=1.0)
    found = made.timed(2.1, 2, seconds=1)
    assert (found.verdict, found.why) == (RatioVerdict.UNDECIDED, "the limit lies inside the interval")
    assert found.low <= 1.05 < found.high
    assert 1 <= made.now < 1.2


def test_more_quads_decide_where_a_few_do_not() -> None:
    found = [Noisy(seed, noise=0.3).timed(2.3, 2) for seed in range(5)]
    assert {each.verdict for each in found} == {RatioVerdict.BEYOND}
    assert {each.quads for each in found} <= {16 << n for n in range(6)}
    assert max(each.quads for each in found) > 16


def test_too_few_quads_are_no_verdict_however_clear_they_are() -> None:
    found = Noisy().timed(900, 2, seconds=20)
    assert (found.verdict, found.quads) == (RatioVerdict.UNDECIDED, 12)
    assert found.why == "only 12 of 16 quads were measured in time"


def test_a_steady_drift_moves_no_ratio() -> None:
    assert Noisy(drift=0.01).timed(2, 2).ratio == pytest.approx(1, abs=1e-3)


def test_a_ratio_that_does_not_recur_is_undecided() -> None:
    made = Noisy()
    warm_up, draw = 2 * ratio.WARM_UP + 2, 4 * ratio.FEWEST
    fast = made.lasting(4, late=2, after=warm_up + draw)
    found = timed(fast, made.lasting(2), 1.05, clock=made.clock)
    assert (found.verdict, found.why) == (RatioVerdict.UNDECIDED, "2.000 did not recur in a second draw")
    assert found.ratio == pytest.approx(1)


def test_of_two_draws_beyond_the_limit_the_last_one_is_told() -> None:
    made = Noisy()
    fast = made.lasting(4, late=3, after=2 * ratio.WARM_UP + 2 + 4 * ratio.FEWEST)
    found = timed(fast, made.lasting(2), 1.05, clock=made.clock)
    assert (found.verdict, found.ratio) == (RatioVerdict.BEYOND, pytest.approx(1.5))


def test_the_first_turns_do_not_count() -> None:
    made = Noisy()
    fast = made.lasting(500, late=2, after=2 * ratio.WARM_UP)
    assert timed(fast, made.lasting(2), 1.05, clock=made.clock).ratio == pytest.approx(1)


def test_short_functions_are_called_until_a_turn_is_long_enough() -> None:
    made = Noisy()
    found = made.timed(0.002, 0.001, 3)
    assert (found.ratio, found.plain_ms) == (pytest.approx(2), pytest.approx(0.001))
    assert made.calls > 1000 * 4 * ratio.FEWEST


@pytest.mark.parametrize(
    "wrong", [{"at_most": 0}, {"at_most": float("nan")}, {"seconds": -1}, {"seconds": float("inf")}]
)
def test_limits_are_numbers_above_0(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=f"{min(wrong)}: got"):
        timed(lambda: 0, lambda: 1, **{"at_most": 1.05, **wrong})


def test_a_function_is_not_compared_with_itself_and_one_that_takes_no_time_with_nothing() -> None:
    made = Noisy()
    call = made.lasting(1)
    with pytest.raises(InvalidInput, match="nothing differs from itself"):
        timed(call, call, 1.05)
    with pytest.raises(NothingCompared, match="a turn takes no time"):
        made.timed(0, 2)


def test_the_order_of_turns_is_plain_fast_fast_plain() -> None:
    made, order = Noisy(), []

    def called(name: str) -> Callable[[], None]:
        call = made.lasting(2)
        return lambda: (order.append(name), call())[1]

    timed(called("B"), called("A"), 1.05, clock=made.clock)
    assert "".join(order[-64:]) == "ABBA" * 16


def work() -> float:
    return sum(number * 0.5 for number in range(40_000))


@pytest.mark.alone
def test_in_real_time_a_sleep_of_5_ms_is_beyond_the_limit() -> None:
    found = timed(lambda: (work(), time.sleep(0.005)), work, 1.05)
    assert found.verdict is RatioVerdict.BEYOND, str(found)


@pytest.mark.alone
def test_in_real_time_equal_functions_are_never_beyond_the_limit() -> None:
    found = [timed(lambda: work(), work, 1.05, seconds=5) for _ in range(20)]
    assert [str(each) for each in found if each.verdict is RatioVerdict.BEYOND] == []
