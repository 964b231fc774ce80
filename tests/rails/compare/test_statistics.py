"""What samples say: the same, a difference, nothing. Everything here is synthetic and seeded."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.rails.compare import statistics
from harness.rails.compare.statistics import Round, Side, TimeVerdict, judge, own_quads, quads

SEEDS = st.integers(0, 2**32 - 1)
SOME = settings(max_examples=25)


def in_order(turns: int, *, base_begins: bool = True) -> tuple[list[int], list[int]]:
    """Where in time the turns of A and of B are."""
    first = [place for place in range(2 * turns) if place % 4 in (0, 3)]
    second = [place for place in range(2 * turns) if place % 4 in (1, 2)]
    return (first, second) if base_begins else (second, first)


def rounds(
    seed: int,
    slower: float = 0.0,
    *,
    ms: float = 40.0,
    noise: float = 0.02,
    drift: float = 0.0,
    control: float = 0.0,
    control_noise: float = 0.01,
    shape: tuple[int, int] = (4, 24),
) -> list[Round]:
    """Rounds in which B takes `slower` more, and the machine gets slower by `drift` with every turn that passes."""
    draw = np.random.default_rng(seed)
    (count, turns), found = shape, []
    for number in range(count):
        base_begins = number % 2 == 0
        sides = []
        for places, share, of_control in zip(
            in_order(turns, base_begins=base_begins), (0.0, slower), (0.0, control), strict=True
        ):
            level = ms * (1 + drift) ** np.array(places)
            ticks = level * (1 + share) * np.exp(draw.normal(0, noise, turns))
            beside = level / 8 * (1 + of_control) * np.exp(draw.normal(0, control_noise, turns))
            sides.append(Side(tuple(ticks), tuple(beside)))
        found.append(Round(sides[0], sides[1], base_begins))
    return found


def turns_of(side: Side) -> tuple[float, ...]:
    return side.turns


def swapped(of: list[Round]) -> list[Round]:
    return [Round(one.head, one.base, not one.base_begins) for one in of]


@SOME
@given(SEEDS)
def test_the_same_times_are_the_same(seed: int) -> None:
    assert judge(rounds(seed)).verdict is TimeVerdict.SAME


@SOME
@given(SEEDS, st.floats(0.05, 0.5))
def test_5_percent_and_more_are_slower_and_seen_from_the_other_side_faster(seed: int, share: float) -> None:
    found = judge(rounds(seed, share))
    assert found.verdict is TimeVerdict.SLOWER
    assert 0.98 * found.ratio.low < 1 + share < 1.02 * found.ratio.high
    assert judge(swapped(rounds(seed, max(share, 0.06)))).verdict is TimeVerdict.FASTER


@SOME
@given(SEEDS, st.floats(-0.012, 0.012))
def test_steady_drift_cancels_whatever_it_is(seed: int, drift: float) -> None:
    calm, drifting = (judge(rounds(seed, drift=each, control_noise=0.0)) for each in (0.0, drift))
    assert drifting.verdict is TimeVerdict.SAME
    assert drifting.ratio.value == pytest.approx(calm.ratio.value, rel=1e-9)
    assert drifting.ratio.floor == pytest.approx(calm.ratio.floor, rel=1e-9, abs=1e-12)


def test_without_the_second_turn_of_a_quad_drift_would_not_cancel() -> None:
    (one,) = rounds(0, drift=0.02, noise=0.0, shape=(1, 24))
    assert np.median(np.log(one.head.turns[::2]) - np.log(one.base.turns[::2])) == pytest.approx(np.log(1.02))


@SOME
@given(SEEDS, st.floats(-0.5, 0.5))
def test_a_phase_that_returns_every_second_turn_is_no_difference_of_a_side_to_itself(seed: int, step: float) -> None:
    def stepping(side: Side) -> Side:
        return replace(side, turns=tuple(turn * (1 + step * (i % 2)) for i, turn in enumerate(side.turns)))

    calm = rounds(seed)
    phased = [replace(one, base=stepping(one.base), head=stepping(one.head)) for one in calm]
    assert judge(phased).ratio.floor == pytest.approx(judge(calm).ratio.floor, abs=1e-9)
    assert judge(phased).ratio.value == pytest.approx(judge(calm).ratio.value, rel=1e-9)


@SOME
@given(SEEDS, st.floats(0.05, 1.0))
def test_a_control_that_took_longer_for_one_side_leaves_nothing_to_say(seed: int, share: float) -> None:
    found = judge(rounds(seed, share, control=share))
    assert found.verdict is TimeVerdict.INCONCLUSIVE
    assert "the machine's speed was different for the two sides" in found.why or "in only" in found.why


def test_a_control_that_scatters_leaves_nothing_to_say() -> None:
    found = judge(rounds(1, 0.1, control_noise=1.0, shape=(4, 24)))
    assert found.verdict is TimeVerdict.INCONCLUSIVE
    assert found.why == f"the control workload took the same time, within 10%, in only {found.matched} of 48 quads"


@SOME
@given(SEEDS, st.sampled_from([0.0, 0.06]), st.floats(1.3, 3.0))
def test_a_machine_that_changes_its_speed_at_once_moves_no_verdict(seed: int, share: float, jump: float) -> None:
    """Whole turns run at half the speed now and then; the control at their start shows it."""
    draw = np.random.default_rng(seed)

    def jumping(side: Side) -> Side:
        levels = np.where(draw.random(len(side.turns)) < 0.15, jump, 1.0)
        return Side(tuple(side.turns * levels), tuple(side.control * levels))

    found = judge([replace(r, base=jumping(r.base), head=jumping(r.head)) for r in rounds(seed, share, shape=(4, 96))])
    assert found.verdict is (TimeVerdict.SLOWER if share else TimeVerdict.SAME)
    assert statistics.FEWEST < found.matched < 0.8 * found.quads
    assert found.ratio.value == pytest.approx(1 + share, abs=0.02)


def test_a_quad_is_matched_where_its_four_controls_are_alike_and_by_nothing_else() -> None:
    def side(*control: float) -> Side:
        return Side((1.0, 9.0) * (len(control) // 2), control)

    one = Round(side(1, 1, 1, 1, 1, 1.2, 1, 1), side(1, 1.09, 1, 1.11, 1, 1, 1.2, 1.2))
    assert statistics.matched(one).tolist() == [True, False, False, False]


def test_a_side_that_differs_from_itself_too_much_leaves_nothing_to_say() -> None:
    def jumping(side: Side) -> Side:
        jumps = (1.0, 1.3, 1.3, 1.0)
        return replace(side, turns=tuple(turn * jumps[i % 4] for i, turn in enumerate(side.turns)))

    found = judge([replace(one, head=jumping(one.head)) for one in rounds(1, 0.5)])
    assert (found.verdict, found.why[:9]) == (TimeVerdict.INCONCLUSIVE, "too noisy")


@SOME
@given(SEEDS)
def test_a_difference_of_microseconds_is_none_however_many_percent_it_is(seed: int) -> None:
    assert judge(rounds(seed, 0.1, ms=0.1)).verdict is TimeVerdict.SAME
    assert judge(rounds(seed, 0.1, ms=1.0)).verdict is TimeVerdict.SLOWER


@SOME
@given(SEEDS)
def test_what_a_side_differs_from_itself_by_is_no_difference_of_two(seed: int) -> None:
    found = judge(rounds(seed, noise=0.2, shape=(3, 24)))
    assert found.limit == max(found.ratio.floor, statistics.MARGIN)


@SOME
@given(SEEDS)
def test_a_machine_that_changes_with_every_second_turn_makes_no_side_differ_from_itself(seed: int) -> None:
    """In time the turns are A, BB, AA, BB, ...: neighbours of one side have the same machine here, whoever began."""
    levels = np.random.default_rng(seed).uniform(1, 2, 25)

    def changing(side: Side, places: list[int]) -> Side:
        return replace(side, turns=tuple(levels[(place + 1) // 2] for place in places))

    found = []
    for one in rounds(seed):
        base, head = in_order(24, base_begins=one.base_begins)
        found.append(replace(one, base=changing(one.base, base), head=changing(one.head, head)))
    assert statistics.ratio(found, turns_of, [statistics.matched(one) for one in found]).floor == pytest.approx(
        0, abs=1e-12
    )


@SOME
@given(SEEDS)
def test_a_difference_on_the_margin_is_not_called_the_same(seed: int) -> None:
    assert judge(rounds(seed, statistics.MARGIN, noise=0.05)).verdict is not TimeVerdict.FASTER
    assert judge(rounds(seed, 2 * statistics.MARGIN, noise=0.05)).verdict is not TimeVerdict.SAME


def test_a_burst_now_and_then_moves_no_verdict() -> None:
    def burst(side: Side) -> Side:
        return replace(side, turns=tuple(turn * (3 if i % 24 == 0 else 1) for i, turn in enumerate(side.turns)))

    assert judge([replace(one, head=burst(one.head)) for one in rounds(5)]).verdict is TimeVerdict.SAME


def test_the_interval_is_wider_where_processes_differ_than_where_only_turns_do() -> None:
    draw = np.random.default_rng(0)
    alike = [draw.normal(0, 0.05, 12) for _ in range(5)]
    apart = [
        one - statistics.middle(one) + shift for one, shift in zip(alike, (-0.05, -0.02, 0, 0.02, 0.05), strict=True)
    ]
    widths = [high - low for low, high in map(statistics.interval, (alike, apart))]
    assert widths[1] > 1.3 * widths[0]
    assert statistics.interval(alike) == statistics.interval(alike)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_middle_lies_between_the_quartiles_and_less_than_a_quarter_cannot_move_it_out(values: list[float]) -> None:
    ordered, cut = sorted(values), len(values) // 4
    inner = ordered[cut : len(values) - cut]
    assert min(inner) - 1e-12 <= statistics.middle(np.array(values)) <= max(inner) + 1e-12
    ordered[len(values) - cut :] = [1e9] * cut
    assert statistics.middle(np.array(ordered)) == pytest.approx(statistics.middle(np.array(values)))


@SOME
@given(SEEDS)
def test_the_interval_holds_its_value(seed: int) -> None:
    some = rounds(seed, noise=0.1)
    found = statistics.ratio(some, turns_of, [statistics.matched(one) for one in some])
    assert found.low <= found.value <= found.high


@given(st.lists(st.floats(0.1, 100), min_size=4, max_size=40).filter(lambda turns: len(turns) % 2 == 0))
def test_sides_that_are_alike_have_a_ratio_of_1_and_swapped_ones_its_inverse(turns: list[float]) -> None:
    one, other = (Side(tuple(taken), (1.0,) * len(turns)) for taken in (turns, turns[::-1]))
    assert quads(Round(one, one), turns_of) == pytest.approx(0)
    assert quads(Round(one, other), turns_of) == pytest.approx(-quads(Round(other, one), turns_of))


def test_neighbours_of_one_side_are_those_that_follow_each_other_in_time() -> None:
    """With a step between two turns, only pairs across it see it."""
    base, head = in_order(8)
    for first, places in ((True, base), (False, head)):
        for step in range(1, 16):
            times = np.where(np.array(places) >= step, np.e, 1.0)
            together = [places[i] + 1 == places[i + 1] == step for i in range(7)]
            side = Side(tuple(times), (1.0,) * len(times))
            assert np.any(own_quads(side, turns_of, first=first)) == (any(together) and not (first and step == 12))


@pytest.mark.parametrize("of", [
    [],
    rounds(0, shape=(1, 2)),
    rounds(0, shape=(1, 5)),
    [Round(rounds(0, shape=(1, 4))[0].base, rounds(0, shape=(1, 6))[0].head)],
])  # fmt: skip
def test_what_is_no_round_is_refused(of: Any) -> None:
    with pytest.raises(ValueError, match="round"):
        judge(of)


@pytest.mark.parametrize("ms", [0.05, 40.0])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_every_figure_is_a_plain_number(ms: float, noise: float) -> None:
    found = judge(rounds(1, ms=ms, noise=noise, control_noise=noise / 10))
    figures = [*astuple(found.ratio), *astuple(found.control), found.limit]
    assert {type(figure) for figure in figures} == {float}
    assert [type(found.matched), type(found.quads)] == [int, int]
