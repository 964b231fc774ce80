"""`compare`: each verdict on times and each exit code, and the nearest case that must not give it.

The limits are the numbers of docs/compare.md. Trees and processes are those of `tests/rails/compare`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.commands.exits import INCONCLUSIVE
from harness.parity.baselines.platform import ROOT
from harness.rails.compare import revisions, statistics
from harness.rails.compare.revisions import Asked, Comparison, Outputs
from harness.rails.compare.statistics import Ratio, Round, Side, TimeVerdict, judge
from harness.rails.compare.worktrees import CannotCompare, Revision
from tests.judged.rows import CODES, Gives, Row, both, nothing, without_row

FASTER, SAME = Gives(TimeVerdict.FASTER, 0), Gives(TimeVerdict.SAME, 0)
SLOWER, UNDECIDED = Gives(TimeVerdict.SLOWER, 1), Gives(TimeVerdict.INCONCLUSIVE, 3)
MOVED, FAILED, USAGE = Gives("moved", 1), Gives(None, 125), Gives(None, 2)

LIMIT, NOISIEST, MATCHED, ABSOLUTE_MS, FEWEST = 0.025, 0.1, 1.1, 0.02, 16
"""As documented; `test_the_limits_are_those_of_the_docs` holds docs and code to them."""

ABOVE, BELOW = (lambda x: math.nextafter(x, 9.0)), (lambda x: math.nextafter(x, -9.0))


class Compared:
    """A comparison whose figures a test sets: a ratio for each draw, the control's, and the outputs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.ticks = [Ratio(1.0, 1.0, 1.0, 0.0, 0.0)]
        self.control = Ratio(1.0, 1.0, 1.0, 0.0, 0.0)
        self.outputs = Outputs((), (), (), 2)
        self.words = ["base", "head"]
        self.fails: Exception | None = None
        patch.setattr(revisions, "compare", self._compare)

    def _compare(self, *_: Any) -> Comparison:
        if self.fails:
            raise self.fails
        verdicts = [statistics._verdict(ticks, self.control, LIMIT) for ticks in self.ticks]
        judged = [
            statistics.Judged(verdict, why, ticks, self.control, LIMIT, 16, 16)
            for ticks, (verdict, why) in zip(self.ticks, verdicts, strict=True)
        ]
        draws: Any = tuple(SimpleNamespace(judged=each, ms=_ms, rounds=(), document=dict) for each in judged)
        return Comparison(Revision("base"), Revision("head"), Asked(), self.outputs, draws)

    def said(self) -> Gives:
        result = CliRunner().invoke(main, ["compare", *self.words])
        lines = result.stdout.splitlines() or [""]
        if lines[0].startswith("outputs MOVED") or lines[0].startswith("outputs not compared, missing in B"):
            return Gives("moved", result.exit_code)
        word = lines[-1].split(":")[0]
        return Gives(TimeVerdict(word) if word in set(TimeVerdict) else None, result.exit_code)


def _ms(_side: int) -> dict[str, float]:
    return dict.fromkeys(("p25", "median", "p95", "p99", "ticks", "control"), 1.0)


def interval(low: float, high: float, floor: float = 0.0, again: bool = False) -> Callable[[Compared], None]:
    """The interval of B/A; `again`: in both of two draws."""

    def act(made: Compared) -> None:
        made.ticks = [Ratio((low + high) / 2, low, high, floor, 0.0)] * (2 if again else 1)

    return act


def draws(*intervals: tuple[float, float]) -> Callable[[Compared], None]:
    def act(made: Compared) -> None:
        made.ticks = [Ratio((low + high) / 2, low, high, 0.0, 0.0) for low, high in intervals]

    return act


def control(value: float, floor: float = 0.0) -> Callable[[Compared], None]:
    def act(made: Compared) -> None:
        made.control = Ratio(value, value, value, floor, 0.0)

    return act


def outputs(*of: Any) -> Callable[[Compared], None]:
    def act(made: Compared) -> None:
        made.outputs = Outputs(*of)

    return act


def fails(error: Exception) -> Callable[[Compared], None]:
    def act(made: Compared) -> None:
        made.fails = error

    return act


def words(*named: str) -> Callable[[Compared], None]:
    def act(made: Compared) -> None:
        made.words = list(named)

    return act


TWICE = 1.0 + LIMIT
TABLE = [
    Row("an interval just above the limit", interval(ABOVE(TWICE), 1.1), SLOWER,
        "one that begins at the limit", interval(TWICE, 1.1), UNDECIDED),
    Row("an interval just below it", interval(0.9, BELOW(1 - LIMIT)), FASTER,
        "one that ends at the limit", interval(0.9, 1 - LIMIT), UNDECIDED),
    Row("an interval from limit to limit", interval(1 - LIMIT, TWICE), SAME,
        "one that ends just beyond", interval(1 - LIMIT, ABOVE(TWICE)), UNDECIDED),
    Row("slower in two draws", draws((1.1, 1.2), (1.1, 1.2)), SLOWER,
        "in the first alone", draws((1.1, 1.2), (1.0, 1.0)), UNDECIDED),
    Row("faster in two draws", draws((0.8, 0.9), (0.8, 0.9)), FASTER,
        "slower in the second", draws((0.8, 0.9), (1.1, 1.2)), UNDECIDED),
    Row("a control workload that differs by more than the limit", control(1.026), UNDECIDED,
        "by a little less", control(1.0249), SAME),
    Row("a control workload that differs, but less than a side from itself", control(1.05, floor=0.06), SAME,
        "by more than that", control(1.07, floor=0.06), UNDECIDED),
    Row("a side that differs from itself by more than 10 %", interval(1.0, 1.0, floor=ABOVE(NOISIEST)), UNDECIDED,
        "by 10 %", interval(1.0, 1.0, floor=NOISIEST), SAME),
    Row("one scenario moved", outputs(("one",), (), (), 1), MOVED, "none", outputs((), (), (), 1), SAME),
    Row("a scenario that B lacks", outputs((), ("one",), (), 1), MOVED,
        "that A lacks", outputs((), (), ("one",), 1), SAME),
    Row("no scenario in common", outputs((), ("a",), ("b",), 0), MOVED,
        "one in common", outputs((), (), ("b",), 1), SAME),
    Row("moved, and faster", lambda m: (outputs(("one",), (), (), 1)(m), interval(0.8, 0.9)(m)), MOVED,
        "faster", interval(0.8, 0.9), FASTER),
    Row("a revision that cannot be had", fails(CannotCompare("no such")), FAILED, "two that can", nothing, SAME),
    Row("a crash", fails(RuntimeError("broke")), FAILED, "none", nothing, SAME),
    Row("a third revision", words("a", "b", "c"), USAGE, "two", words("a", "b"), SAME),
]  # fmt: skip


@both(TABLE)
def test_compare(act: Callable[[Compared], Any], gives: Gives, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Compared(monkeypatch)
    act(compared)
    assert compared.said() == gives


def test_every_verdict_and_exit_code_has_a_row() -> None:
    assert without_row(TABLE, TimeVerdict, CODES | {INCONCLUSIVE}) == set()


def test_no_scenario_at_all_in_common_is_no_pass_even_where_neither_lacks_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Compared(monkeypatch)
    outputs((), (), ("new",), 0)(compared)
    assert compared.said().code == 1


def rounds(matched: int, unmatched: int = 0, spread: float = 1.0, ms: float = 40.0, slower: float = 1.0) -> list[Round]:
    """Two rounds of steady turns, with so many matched quads; `spread` is that of the others' controls."""
    turns = 2 * (matched + unmatched)
    controls = [1.0, 1.0] * matched + [1.0, spread] * unmatched
    base = Side((ms,) * turns, tuple(controls))
    return [Round(base, Side((ms * slower,) * turns, tuple(controls)))]


@pytest.mark.parametrize(("matched", "verdict"), [(FEWEST, TimeVerdict.SLOWER), (FEWEST - 1, TimeVerdict.INCONCLUSIVE)])
def test_16_matched_quads_are_enough_for_a_verdict_and_15_are_not(matched: int, verdict: TimeVerdict) -> None:
    found = judge(rounds(matched, 4, spread=2.0, slower=1.1))
    assert (found.verdict, found.matched, found.quads) == (verdict, matched, matched + 4)


@pytest.mark.parametrize(("spread", "matched"), [(BELOW(MATCHED), 20), (MATCHED, 16)])
def test_a_quad_counts_where_its_controls_are_within_10_percent(spread: float, matched: int) -> None:
    assert judge(rounds(16, 4, spread=spread)).matched == matched


@pytest.mark.parametrize(("ms", "verdict"), [(0.2, TimeVerdict.SAME), (1.0, TimeVerdict.SLOWER)])
def test_less_than_the_absolute_limit_is_the_same_whatever_its_share_is(ms: float, verdict: TimeVerdict) -> None:
    """9 % of 0.2 ms are 0.018 ms; of 1 ms they are more than 0.02."""
    assert judge(rounds(16, ms=ms, slower=1.09)).verdict is verdict


def test_the_limits_are_those_of_the_docs() -> None:
    docs = re.sub(r"\s+", " ", (ROOT / "docs" / "compare.md").read_text())
    for words_of_it in (
        "the largest of 2.5 %, 0.02 ms, and the difference of one side from itself",
        "the same time in all four turns, within 10 %",
        "a side that differs from itself by over 10 %",
        "fewer than 16 matched quads",
    ):
        assert words_of_it in docs
    limits = (statistics.MARGIN, statistics.ABSOLUTE_MS, statistics.MATCHED, statistics.NOISIEST, statistics.FEWEST)
    assert limits == (LIMIT, ABSOLUTE_MS, MATCHED, NOISIEST, FEWEST)


def test_rounds_before_the_first_verdict_and_at_most_are_those_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = re.sub(r"\s+", " ", (ROOT / "docs" / "compare.md").read_text())
    assert "after `--rounds` rounds (2); rounds are added up to `--most` (12)" in docs
    compared, seen = Compared(monkeypatch), []
    made = compared._compare
    monkeypatch.setattr(revisions, "compare", lambda *all_: (seen.append(all_[2]), made())[1])
    assert compared.said() == SAME
    assert [(asked.rounds, asked.most) for asked in seen] == [(2, 12)]


def test_two_draws_run_as_many_rounds_as_were_asked_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real calls: every round is one call, and a difference has a second draw of new rounds."""
    made: list[int] = []

    def one_round(*_: Any) -> Any:
        made.append(1)
        (found,) = rounds(16, slower=1.1)
        return tuple(revisions.Process(side, side.turns, "same") for side in (found.base, found.head))

    monkeypatch.setattr(revisions, "_round", one_round)
    tree: Any = SimpleNamespace(revision=Revision("one"))
    found = revisions._timed(tree, tree, Outputs((), (), (), 1), Asked(), lambda _: None)
    assert (found.verdict, len(found.draws), len(made)) == (TimeVerdict.SLOWER, 2, 4)


@pytest.mark.parametrize(("a", "b", "slower", "moved"), [
    ("xx", "xx", 1.0, False),
    ("xx", "yy", 1.0, True),
    ("xx", "xy", 1.0, True),
    ("xy", "xx", 1.0, True),
    ("xy", "xy", 1.0, True),
    ("xy", "yx", 1.0, True),
    ("xxxx", "xxxx", 1.1, False),
    ("xxyy", "xxyy", 1.1, True),
    ("xxxx", "xxxy", 1.1, True),
])  # fmt: skip
def test_the_latents_of_bench_are_the_same_where_every_process_of_both_sides_made_the_same(
    a: str, b: str, slower: float, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter is what one process made: two in each draw, and a second draw where the times differ."""
    made = zip(a, b, strict=True)

    def one_round(*_: Any) -> Any:
        (found,) = rounds(16, slower=slower)
        sides = zip((found.base, found.head), next(made), strict=True)
        return tuple(revisions.Process(side, side.turns, latents) for side, latents in sides)

    monkeypatch.setattr(revisions, "_round", one_round)
    tree: Any = SimpleNamespace(revision=Revision("one"))
    found = revisions._timed(tree, tree, Outputs((), (), (), 1), Asked(), lambda _: None)
    assert found.outputs.moved == ((revisions.BENCH,) if moved else ())
    assert found.outputs.passes is not moved
    assert next(made, None) is None, "every process was asked"
