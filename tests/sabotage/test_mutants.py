"""Mutants are what they say, their fates are judged honestly, and this commit's share of them meets its fate."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.parity.baselines.platform import ROOT
from tests.sabotage.mutants import CRASHED, FAILED, PASSED, Fate, Outcome, _fate, cases, complaints, reasons, score
from tests.sabotage.mutation import mutants
from tests.sabotage.runner import revision

PARTS = 24
"""One of so many shards a run; `make mutants` runs them all."""

SOURCE = '''
"""Text."""
LIMIT = 3

def f(x: int = 1, flag: bool = True) -> int:
    """More text."""
    if x < 2 and flag:
        return g(x, LIMIT) + 1
    return -x if f"{x}" else x.clamp(min=0)[1:]
'''


def changes(source: str) -> list[str]:
    return [mutant.name for mutant in mutants(source)]


def test_every_operator_has_its_mutants_and_texts_and_annotations_have_none() -> None:
    assert changes(SOURCE) == [
        "module: 3 -> 4",
        "f: 1 -> 2",
        "f: True -> False",
        "f: x < 2 and flag -> x < 2 or flag",
        "f: x < 2 -> x <= 2",
        "f: 2 -> 3",
        "f: g(x, LIMIT) + 1 -> g(x, LIMIT) - 1",
        "f: g(x, LIMIT) -> g(LIMIT, x)",
        "f: 1 -> 2 (2)",
        "f: -x if f'{x}' else x.clamp(min=0)[1:] -> -x",
        "f: -x if f'{x}' else x.clamp(min=0)[1:] -> x.clamp(min=0)[1:]",
        "f: -x -> x",
        "f: x.clamp(min=0)[1:] -> x.clamp(min=0)",
        "f: x.clamp(min=0) -> x",
        "f: x.clamp(min=0) -> x.clamp()",
        "f: 0 -> 1",
        "f: 1 -> 2 (3)",
    ]


def test_a_mutant_differs_from_the_source_in_its_one_place() -> None:
    lines = "def f(x):\n    y = x + 1\n    return y * 2"
    (first, second, third, fourth) = (mutant.source for mutant in mutants(lines))
    assert first == lines.replace("x + 1", "x - 1")
    assert second == lines.replace("x + 1", "x + 2")
    assert third == lines.replace("y * 2", "y / 2")
    assert fourth == lines.replace("y * 2", "y * 3")


def test_arguments_whose_order_says_nothing_are_not_swapped() -> None:
    assert changes("max(x, y)\nx.transpose(i, j)\ng(x, *y)") == []


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (PASSED << 8, Fate.SURVIVED),
        (FAILED << 8, Fate.KILLED),
        (14, Fate.KILLED),  # by its alarm
        (CRASHED << 8, Fate.BROKEN),
        (0, Fate.BROKEN),
        (1 << 8, Fate.BROKEN),  # what Python exits with after an error of ours
        (11, Fate.BROKEN),
    ],
)
def test_only_a_failed_test_or_an_endless_one_kills(status: int, fate: Fate) -> None:
    assert _fate(status) is fate


def outcomes(killed: int, *survived: str, broken: int = 0) -> list[Outcome]:
    made = [Outcome(f"k{n}", Fate.KILLED) for n in range(killed)] + [Outcome(n, Fate.SURVIVED) for n in survived]
    return made + [Outcome(f"b{n}", Fate.BROKEN) for n in range(broken)]


def complained(found: list[Outcome], known: dict[str, str], *others: str) -> list[str]:
    return complaints(found, known, [outcome.name for outcome in found] + list(others))


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor() -> None:
    assert complained(outcomes(99, "s"), {"s": "because"}) == []
    assert complained(outcomes(99, "s"), {}) == ["survived without a reason: s"]
    assert complained(outcomes(99), {"k3": "because"}) == ["has a reason and was killed: k3"]
    assert complained(outcomes(99), {"gone": "because"}) == ["has a reason and is no mutant: gone"]
    assert complained(outcomes(99), {"elsewhere": "because"}, "elsewhere") == []


def test_the_score_leaves_broken_mutants_out_and_is_judged_of_all() -> None:
    few = outcomes(8, "s", "t", broken=10)
    assert score(few) == 0.8
    known = {"s": "because", "t": "because"}
    assert complained(few, known) == ["the score is 80.0%, below 90%"]
    assert complained(few, known, "another that did not run") == []


def test_every_reason_is_of_a_mutant_that_exists() -> None:
    assert set(reasons()) <= {case.name for case in cases()}
    assert all(len(reason) > 20 for reason in reasons().values())


@pytest.mark.sabotage
def test_the_mutants_that_this_commit_is_held_to_are_killed_or_known() -> None:
    part = f"{int(revision(ROOT), 16) % PARTS}/{PARTS}"
    command = [sys.executable, "-m", "tests.sabotage.mutants", "--shard", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "CI": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
