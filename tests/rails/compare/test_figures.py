"""Every figure of a comparison, computed once more by the words of its documentation, and every field of its report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.parity.baselines import platform
from harness.rails.compare import revisions, statistics
from harness.rails.compare.revisions import BENCH, SLOWDOWNS, Asked, Comparison, Draw, Outputs, Process
from harness.rails.compare.statistics import Judged, Ratio, Round, Side, TimeVerdict, judge
from harness.rails.compare.tables import calibrated, compared
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree
from tests.commands.test_tables import cells

TREES: Any = (Tree(Revision("one"), Path("one")), Tree(Revision("two"), Path("two")))


# The statistics.


def made(seed: int, lengths: Sequence[int], jumps: float = 0.05, ms: float = 1.0) -> list[Round]:
    """Rounds of turns that scatter, with a control that takes longer now and then."""
    draw = np.random.default_rng(seed)

    def side(turns: int, level: float) -> Side:
        control = np.where(draw.random(turns) < jumps, 1.3, 1.0) * draw.uniform(0.98, 1.02, turns)
        return Side(tuple(level * np.exp(draw.normal(0, 0.1, turns))), tuple(control))

    return [
        Round(side(turns, ms), side(turns, 1.2 * ms), base_begins=bool((number + seed) % 2))
        for number, turns in enumerate(lengths)
    ]


def alike(controls: Sequence[float]) -> bool:
    return max(controls) < 1.1 * min(controls)


def midmean(values: Sequence[float]) -> float:
    cut = len(values) // 4
    return mean(sorted(values)[cut : len(values) - cut])


def quads_of(one: Round, name: str, *, every: bool) -> list[float]:
    """The mean of two logarithms of B/A, for each quad that counts."""
    base, head, found = getattr(one.base, name), getattr(one.head, name), []
    for i in range(0, len(base), 2):
        if every or alike([*one.base.control[i : i + 2], *one.head.control[i : i + 2]]):
            found.append((math.log(head[i] / base[i]) + math.log(head[i + 1] / base[i + 1])) / 2)
    return found


def floor_of(sides: Sequence[tuple[Side, bool]], name: str) -> float:
    """The distance from 1 of one side against itself."""
    found = []
    for side, begins in sides:
        turns, controls = getattr(side, name)[begins:], side.control[begins:]
        for i in range(0, len(turns) - 3, 4):
            if alike(controls[i : i + 4]):
                found.append((math.log(turns[i + 1] / turns[i]) - math.log(turns[i + 3] / turns[i + 2])) / 2)
    return abs(math.exp(midmean(found)) - 1) if found else 0.0


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(2, 12).map(lambda half: 2 * half), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([0.01, 0.2, 40.0]),
)
def test_every_figure_but_the_interval_is_what_its_words_say(
    seed: int, lengths: list[int], jumps: float, ms: float
) -> None:
    rounds = made(seed, lengths, jumps, ms)
    found = judge(rounds)
    matched = sum(len(quads_of(one, "turns", every=False)) for one in rounds)
    assert (found.matched, found.quads) == (matched, sum(lengths) // 2)
    for ratio, name in ((found.ratio, "turns"), (found.control, "control")):
        logs = [log for one in rounds for log in quads_of(one, name, every=matched < 16)]
        center = midmean(logs)
        base = floor_of([(one.base, one.base_begins) for one in rounds], name)
        head = floor_of([(one.head, not one.base_begins) for one in rounds], name)
        scatter = 1.4826 * median(abs(log - center) for log in logs)
        assert (ratio.value, ratio.floor, ratio.spread) == pytest.approx(
            (math.exp(center), max(base, head), scatter), rel=1e-9, abs=1e-12
        )
    typical = median(turn for one in rounds for turn in one.base.turns)
    assert found.limit == pytest.approx(max(found.ratio.floor, 0.025, 0.02 / typical), rel=1e-12)


def test_the_interval_is_that_of_a_bootstrap_of_rounds_and_of_quads_within_them() -> None:
    """1000 times: as many rounds as there are, with replacement, then as many quads of each as it has."""
    draw = np.random.default_rng(7)
    rounds = [draw.normal(level, 0.1, count) for level, count in ((0.0, 5), (0.1, 9), (0.4, 0), (0.2, 3))]
    filled = [one for one in rounds if len(one)]
    draw = np.random.default_rng(statistics.SEED)
    chosen = draw.integers(3, size=(1000, 3, 1))
    places = draw.random((1000, 3, 9))
    middles = []
    for which, place in zip(chosen, places, strict=True):
        values = []
        for number, within in zip(which[:, 0], place, strict=True):
            one = filled[number]
            values += [one[int(where * len(one))] for where in within[: len(one)]]
        middles.append(midmean(values))
    middles.sort()
    low = middles[24] + 0.975 * (middles[25] - middles[24])
    high = middles[974] + 0.025 * (middles[975] - middles[974])
    assert statistics.interval(rounds) == pytest.approx((low, high), rel=1e-12)
    assert statistics.interval(rounds, seed=1) != pytest.approx((low, high), rel=1e-12)


def test_the_interval_of_each_series_is_of_its_own_counted_quads() -> None:
    rounds = made(3, (24, 16, 20), jumps=0.1)
    found = judge(rounds)
    assert 16 <= found.matched < found.quads
    for ratio, name in ((found.ratio, "turns"), (found.control, "control")):
        low, high = statistics.interval([np.array(quads_of(one, name, every=False)) for one in rounds])
        assert (ratio.low, ratio.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)


@pytest.mark.parametrize(("ticks", "control", "verdict", "why"), [
    (Ratio(1.5, 1.4, 1.6, 0.2, 0.0), Ratio(1.0513, 1.0, 1.1, 0.03, 0.0), "inconclusive",
     "the machine's speed was different for the two sides: the time of the control workload, which shares no code with "
     "them, differs by +5.1%, more than 3.0%"),
    (Ratio(1.5, 1.4, 1.6, 0.2, 0.0), Ratio(0.9487, 0.9, 1.0, 0.0, 0.0), "inconclusive",
     "the machine's speed was different for the two sides: the time of the control workload, which shares no code with "
     "them, differs by -5.1%, more than 2.5%"),
    (Ratio(1.5, 1.4, 1.6, 0.1234, 0.0), Ratio(1.0, 1.0, 1.0, 0.5, 0.0), "inconclusive",
     "too noisy: a side differs from itself by 12.3%, over 10%"),
    (Ratio(1.1, 1.0, 1.2, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "inconclusive",
     "the interval is neither within 3.4% of 1 nor completely outside"),
    (Ratio(0.9, 0.8, 1.0, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "inconclusive",
     "the interval is neither within 3.4% of 1 nor completely outside"),
    (Ratio(1.0, 0.9, 1.1, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "inconclusive",
     "the interval is neither within 3.4% of 1 nor completely outside"),
    (Ratio(1.5, 1.4, 1.6, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "slower", ""),
    (Ratio(0.5, 0.4, 0.6, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "faster", ""),
    (Ratio(1.0, 0.97, 1.03, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), "same", ""),
])  # fmt: skip
def test_a_verdict_says_why(ticks: Ratio, control: Ratio, verdict: str, why: str) -> None:
    assert statistics._verdict(ticks, control, 0.034) == (TimeVerdict(verdict), why)


@pytest.mark.parametrize(("turns", "controls", "words"), [
    ((4, 4), (4, 6), r"a round has \[4, 6\] turns: expected the same even number, at least 4"),
    ((4, 6), (4, 4), r"a round has \[4, 6\] turns"),
    ((5, 5), (5, 5), r"a round has \[5\] turns"),
    ((2, 2), (2, 2), r"a round has \[2\] turns"),
    ((0, 0), (0, 0), r"a round has \[0\] turns"),
])  # fmt: skip
@pytest.mark.parametrize("last", [True, False])
def test_every_round_must_have_the_same_even_number_of_turns_and_controls(
    turns: tuple[int, int], controls: tuple[int, int], words: str, last: bool
) -> None:
    (good,) = made(0, (8,))
    bad = Round(*(Side((1.0,) * of, (1.0,) * beside) for of, beside in zip(turns, controls, strict=True)))
    with pytest.raises(ValueError, match=words):
        judge([good, bad] if last else [bad, good])


# What a report holds.


def process(factor: float, control: Sequence[float] = (1.0, 2.0, 9.0), latents: str = "aa") -> Process:
    """A process with ticks from 0 to 100 ms, in no order, times the factor."""
    ticks = tuple(factor * (ms * 37 % 101) for ms in range(101))
    return Process(Side((1.0,), tuple(factor * each for each in control)), ticks, latents)


def summary(factor: float) -> dict[str, float]:
    shares = {"p25": 25.0, "median": 50.0, "p95": 95.0, "p99": 99.0, "control": 2.0}
    return {**{name: ms * factor for name, ms in shares.items()}, "ticks": 101}


def judged(verdict: TimeVerdict, why: str, start: float) -> Judged:
    """A verdict whose figures are all different."""
    ratio, control = (Ratio(*(first + step / 100 for step in range(5))) for first in (start, start + 1))
    return Judged(verdict, why, ratio, control, start + 0.5, 17, 19)


def drawn(verdict: TimeVerdict = TimeVerdict.SLOWER, why: str = "", start: float = 1.0) -> Draw:
    rounds = tuple((process(base), process(head)) for base, head in ((1, 3), (6, 4), (2, 20)))
    return Draw(rounds, judged(verdict, why, start))


COMPARED = Comparison(
    Revision("main", "0123456789abcdef"),
    Revision("the working tree", "fedcba9876543210", ("a file.py",)),
    Asked(("--ticks", "16", "--device", "cuda"), slowdown=0.03),
    Outputs(("moved",), ("base",), ("head",), 5),
    (drawn(), drawn(start=2.0)),
)


def test_a_process_is_summed_up_by_percentiles_of_its_ticks_and_the_median_of_its_control() -> None:
    assert process(3.0).summary() == pytest.approx(summary(3.0))
    assert list(process(3.0).summary()) == ["p25", "median", "p95", "p99", "ticks", "control"]


def test_a_side_s_ms_are_medians_over_its_own_processes() -> None:
    assert drawn().ms(0) == pytest.approx({**summary(2), "ticks": 101})
    assert drawn().ms(1) == pytest.approx({**summary(4), "ticks": 101})


def test_a_report_holds_every_figure_and_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "name", lambda device: f"name of {device}")
    monkeypatch.setattr(platform, "of_device", lambda device: {"of": device})

    def draw_of(start: float) -> dict[str, Any]:
        names = ("value", "low", "high", "floor", "spread")
        return {
            "verdict": "slower",
            "why": "",
            "ratio": pytest.approx({name: start + step / 100 for step, name in enumerate(names)}),
            "control": pytest.approx({name: start + 1 + step / 100 for step, name in enumerate(names)}),
            "limit": start + 0.5,
            "matched": 17,
            "quads": 19,
            "rounds": [
                {"base": pytest.approx(summary(base)), "head": pytest.approx(summary(head))}
                for base, head in ((1, 3), (6, 4), (2, 20))
            ],
            "base": pytest.approx(summary(2)),
            "head": pytest.approx(summary(4)),
        }

    assert json.loads(json.dumps(COMPARED.document())) == {
        "outputs": {"moved": ["moved"], "only_base": ["base"], "only_head": ["head"], "same": 5, "passes": False},
        "verdict": "slower",
        "why": "",
        "base": {"asked": "main", "commit": "0123456789abcdef", "uncommitted": []},
        "head": {"asked": "the working tree", "commit": "fedcba9876543210", "uncommitted": ["a file.py"]},
        "bench": ["--ticks", "16", "--device", "cuda"],
        "slowdown": 0.03,
        "draws": [draw_of(1.0), draw_of(2.0)],
        "limits": {"margin": 0.025, "absolute_ms": 0.02, "confidence": 0.95},
        "platform": {"name": "name of cuda", "fingerprint": {"of": "cuda"}},
    }


def comparison(*draws: Draw, outputs: Outputs = COMPARED.outputs) -> Comparison:
    return Comparison(COMPARED.base, COMPARED.head, COMPARED.asked, outputs, draws)


SAME, SLOWER, UNDECIDED = TimeVerdict.SAME, TimeVerdict.SLOWER, TimeVerdict.INCONCLUSIVE


@pytest.mark.parametrize(("draws", "line"), [
    ([drawn(SAME)], "same: B takes 1.000 of A's time, 1.010 to 1.020; 'same' means within 150.0%"),
    ([drawn(), drawn(start=1.2)],
     "slower: B takes 1.200 of A's time, 1.210 to 1.220, in both of two draws; 'same' means within 170.0%"),
    ([drawn(UNDECIDED, "of this")], "inconclusive: of this"),
    ([drawn(), drawn(SAME)], "inconclusive: slower did not recur in a second draw, which says same"),
    ([drawn(TimeVerdict.FASTER), drawn(SLOWER)],
     "inconclusive: faster did not recur in a second draw, which says slower"),
    ([drawn(), drawn(UNDECIDED, "of this")],
     "inconclusive: slower did not recur in a second draw, which says inconclusive"),
])  # fmt: skip
def test_a_comparison_is_one_line(draws: list[Draw], line: str) -> None:
    assert comparison(*draws).summary() == line


# What a person reads.


def test_a_person_reads_the_outputs_the_sides_their_times_the_ratios_and_the_verdict() -> None:
    moved, lacks, new, same, a, b, sides, ratios, line = compared(COMPARED)
    assert [moved, lacks, new, same] == COMPARED.outputs.lines()
    assert (a, b) == ("A: main (0123456789)", "B: the working tree (fedcba9876 with 1 uncommitted file)")
    assert line == COMPARED.summary()
    side_a = ["A", "50.000", "100.000", "190.000", "198.000", "4.000"]
    side_b = ["B", "100.000", "200.000", "380.000", "396.000", "8.000"]
    assert cells(sides) == [
        ["ms per tick", "p25", "median", "p95", "p99", "control"],
        *(side_a, side_b, side_a, side_b),
    ]
    assert cells(ratios) == [
        ["", "rounds", "quads matched", "B/A", "95% interval", "noise floor"],
        ["tick", "3", "17 of 19", "1.000", "1.010 to 1.020", "103.0%"],
        ["control", "", "", "2.000", "2.010 to 2.020", "203.0%"],
        ["tick", "3", "17 of 19", "2.000", "2.010 to 2.020", "203.0%"],
        ["control", "", "", "3.000", "3.010 to 3.020", "303.0%"],
    ]


def test_a_person_reads_of_a_calibration_a_row_for_each_slowdown_with_the_figures_of_its_first_draw() -> None:
    outputs = Outputs((), (), (), 3)
    tried = {
        0.01: comparison(drawn(UNDECIDED, "noise"), outputs=outputs),
        0.02: comparison(drawn(), drawn(SAME, start=9.0), outputs=outputs),
        0.12: comparison(drawn(start=1.5), drawn(start=9.0), outputs=outputs),
    }
    same, table, line = calibrated(tried)
    assert same == "outputs of 3 scenarios are byte for byte the same"
    assert line == "smallest slowdown that was detected on this machine today: 12%"
    assert cells(table) == [
        ["slowdown", "B/A", "95% interval", "noise floor", "draws", "verdict"],
        ["1%", "1.000", "1.010 to 1.020", "103.0%", "1", "inconclusive"],
        ["2%", "1.000", "1.010 to 1.020", "103.0%", "2", "inconclusive"],
        ["12%", "1.500", "1.510 to 1.520", "153.0%", "2", "slower"],
    ]


# How it comes about, without processes.


class Silent:
    """A process that says what it is given."""

    def __init__(self, says: str) -> None:
        self.output = lambda: says


DIGESTS = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([{"content": "x"}, {"content": "y"}]))


@settings(max_examples=40)
@given(DIGESTS, DIGESTS)
def test_every_scenario_is_the_same_or_moved_or_missing_in_a_side(base: dict[str, Any], head: dict[str, Any]) -> None:
    @contextmanager
    def started(what: str, command: Sequence[str], tree: Tree, environment: Any) -> Iterator[Silent]:
        assert (what, [*command], environment) == ("_digests", ["-m", "harness", "_digests"], {})
        yield Silent(json.dumps(base if tree is TREES[0] else head))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisions, "started", started)
        found = revisions.outputs(*TREES)
    assert found.moved == tuple(name for name in base if name in head and base[name] != head[name])
    assert found.only_base == tuple(name for name in base if name not in head)
    assert found.only_head == tuple(name for name in head if name not in base)
    assert found.same == sum(head.get(name) == digest for name, digest in base.items())


def of_rounds(rounds: Sequence[Round]) -> Iterator[tuple[Process, Process]]:
    for one in rounds:
        yield Process(one.base, one.base.turns, "aa"), Process(one.head, one.head.turns, "bb")


def test_latents_of_bench_that_moved_stand_behind_the_scenarios_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = of_rounds([Round(*[Side((40.0,) * 32, (1.0,) * 32)] * 2)] * 2)
    monkeypatch.setattr(revisions, "_round", lambda *_: next(rounds))
    found = revisions._timed(*TREES, Outputs(("one", "two"), ("a",), ("b",), 3), Asked(), lambda _: None)
    assert found.outputs == Outputs(("one", "two", BENCH), ("a",), ("b",), 3)
    assert (found.base, found.head) == (Revision("one"), Revision("two"))


class Stepped:
    """A comparison whose trees, outputs and rounds are made up; what it was told and what it did, in order."""

    def __init__(self, patch: pytest.MonkeyPatch, caught: float) -> None:
        self.seen: list[Any] = []

        @contextmanager
        def trees(base: str | None, head: str | None, where: Path) -> Iterator[tuple[Tree, Tree]]:
            self.seen.append((base, head, where))
            yield TREES

        def one_round(a: Tree, b: Tree, asked: Asked, begins: int) -> tuple[Process, Process]:
            assert (a, b) == TREES
            self.seen.append((asked.slowdown, begins))
            slower = 1.5 if asked.slowdown >= caught else 1.0
            sides = (Side((ms,) * 32, (1.0,) * 32) for ms in (40.0, 40.0 * slower))
            base, head = (Process(side, side.turns, "aa") for side in sides)
            return base, head

        def outputs(*both: Tree) -> Outputs:
            self.seen.append(both)
            return Outputs((), (), (), 3)

        patch.setattr(revisions, "trees", trees)
        patch.setattr(revisions, "outputs", outputs)
        patch.setattr(revisions, "_round", one_round)


def test_outputs_come_before_rounds_and_each_step_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Stepped(monkeypatch, caught=0.0)
    found = revisions.compare("main", None, Asked(rounds=3), Path("here"), steps.seen.append)
    draw_of = ["round 1", (0.0, 0), "round 2", (0.0, 1), "round 3", (0.0, 0)]
    assert steps.seen == [("main", None, Path("here")), "outputs", TREES, *draw_of, *draw_of]
    assert (found.verdict, found.asked) == (SLOWER, Asked(rounds=3))


@pytest.mark.parametrize("caught", [*SLOWDOWNS, 0.5])
def test_a_calibration_makes_b_alone_slower_and_finds_what_is_caught(
    monkeypatch: pytest.MonkeyPatch, caught: float
) -> None:
    steps = Stepped(monkeypatch, caught)
    asked = Asked(("--ticks", "64"), rounds=3, most=5, control=Path("control"))
    found = revisions.calibrate("main", asked, Path("here"), steps.seen.append)
    assert steps.seen[:3] == [("main", "main", Path("here")), "outputs", TREES]
    assert steps.seen.count(TREES) == 1
    assert list(found) == sorted(found)
    assert all(one.asked == replace(asked, slowdown=share) for share, one in found.items())
    assert {len(draw.rounds) for one in found.values() for draw in one.draws} == {3}
    assert {share for share, one in found.items() if one.verdict is SLOWER} == {s for s in found if s >= caught}
    assert revisions.smallest_caught(found) == (caught if caught in SLOWDOWNS else None)
    assert len(found) <= 3, "it is a bisection"
    assert SLOWDOWNS == (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)


ASKED = Asked(("--ticks", "8"))
REPORTS: Any = (
    {"samples": {"tick_ms": [13.0, 1.0, 5.0, 2.0, 5.0, 7.0, 9.0, 3.0]}, "outputs": "aa"},
    {"control_ms": [1.0, 2.0, 3.0, 4.0, 5.0], "waited_ms": [10.0, 1.0, 2.0, 3.0, 4.0]},
)


def read(tmp_path: Path, bench: Any, beside: Any) -> Process:
    for name, document in (("a.bench", bench), ("a", beside)):
        if document is not None:
            (tmp_path / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return revisions._process(TREES[0], ASKED, tmp_path / "a")


def test_a_process_is_read_from_its_two_reports(tmp_path: Path) -> None:
    found = read(tmp_path, *REPORTS)
    assert found == Process(
        Side((2.0, 3.0, 5.0, 4.5), (1.0, 2.0, 3.0, 4.0)), (3.0, 1.0, 4.0, 2.0, 3.0, 7.0, 6.0, 3.0), "aa"
    )


@pytest.mark.parametrize(("bench", "beside", "error"), [
    (None, REPORTS[1], "FileMissing"),
    (REPORTS[0], None, "FileMissing"),
    ("{", REPORTS[1], "FileRefused"),
    (REPORTS[0], "{", "FileRefused"),
    (REPORTS[0], {**REPORTS[1], "control_ms": ["1"] * 5}, "FileRefused"),
    ({**REPORTS[0], "samples": {}}, REPORTS[1], "KeyError"),
    ({"samples": REPORTS[0]["samples"]}, REPORTS[1], "KeyError"),
    (REPORTS[0], {"waited_ms": [0.0] * 5}, "KeyError"),
    (REPORTS[0], [], "TypeError"),
    (REPORTS[0], {**REPORTS[1], "waited_ms": [0.0] * 3}, "ValueError"),
    (REPORTS[0], {**REPORTS[1], "waited_ms": [0.0, 0.0, 5.0, 0.0]}, "ValueError"),
])  # fmt: skip
def test_a_report_that_cannot_be_read_names_the_revision_and_the_reason(
    tmp_path: Path, bench: Any, beside: Any, error: str
) -> None:
    with pytest.raises(CannotCompare, match=f"the reports of bench of one cannot be read: {error}"):
        read(tmp_path, bench, beside)


def test_a_comparison_on_a_gpu_cannot_be_calibrated_and_takes_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "trees", None)
    with pytest.raises(CannotCompare, match="the host cannot slow down ticks of cuda:1: calibrate with --device cpu"):
        revisions.calibrate(None, Asked(("--device", "cuda:1")), Path())


@pytest.mark.parametrize(("options", "words"), [
    (("--ticks", "7"), "--ticks: expected at least 8, for 4 turns"),
    (("--ticks", "x"), "--ticks and --warmup: expected whole numbers, got "),
    (("--warmup", "1.5"), "--ticks and --warmup: expected whole numbers, got "),
])  # fmt: skip
def test_a_window_that_cannot_be_parted_is_refused(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(CannotCompare, match=f"^{words}"):
        Asked(options)
    assert (Asked(("--ticks", "8")).window.turns, Asked().window.turns, Asked().window.warmup) == (4, 300, 30)


def test_a_round_gives_the_slowdown_to_b_alone_and_reads_each_side_s_own_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lanes: list[Any] = []

    @contextmanager
    def lane(tree: Tree, options: Any, control: Path, report: Path, slowdown: float) -> Iterator[SimpleNamespace]:
        lanes.append((tree, options, control, slowdown))
        yield SimpleNamespace(tree=tree, report=report)

    def take_turns(first: Any, second: Any, turns: int) -> None:
        lanes.append((first.tree, second.tree, turns))
        for one, latents in ((first, "of the first"), (second, "of the second")):
            one.report.with_suffix(".bench").write_text(json.dumps({**REPORTS[0], "outputs": latents}))
            one.report.write_text(json.dumps(REPORTS[1]))

    monkeypatch.setattr(revisions, "lane", lane)
    monkeypatch.setattr(revisions, "take_turns", take_turns)
    asked = Asked(("--ticks", "8"), slowdown=0.25, control=Path("control"))
    a, b = TREES
    for begins, wanted in ((0, ["of the first", "of the second"]), (1, ["of the second", "of the first"])):
        found = revisions._round(a, b, asked, begins)
        assert [one.outputs for one in found] == wanted
    first, second = (a, asked.command, Path("control"), 0.0), (b, asked.command, Path("control"), 0.25)
    assert lanes == [first, second, (a, b, 4), first, second, (b, a, 4)]
