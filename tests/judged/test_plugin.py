"""The pytest plugin: what each fixture says of a test and of the run, and the nearest case that must not be so.

The damage that a capture may have, and what a run of a part of the suite says, are in `tests/plugin`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from harness.plugin.ledger import LEDGER, Ledger
from harness.rails.costs import block
from tests.git import commit
from tests.judged.rows import Gives, Row, both, without_row
from tests.plugin.test_plugin import LOADED, Outside, _imported, _outside

__all__ = ["_imported", "_outside"]

pytestmark = pytest.mark.no_cover

PASSED, FAILED, REFUSED = 0, 1, 4
"""Exit codes of pytest; 4 is a wrong command line."""

EXACT, TOLERANCE = Gives("exact", PASSED), Gives("tolerance", PASSED)
NOT_GATED, BLESSED, RED = Gives("not_gated", PASSED), Gives("blessed", FAILED), Gives("failed", FAILED)
TIMED = Gives("timed", PASSED)
UNASKED, NOTHING = Gives("unasked", FAILED), Gives(None, REFUSED)

TREE = "def test_tree(blessed): blessed('tree', tree)\n"
STEP = "def test_step(lockstep): lockstep(Ring(), Ring({gain}), [1.0, 2.0])\n"
RAIL = "def test_rail(cost_rail):\n    x = torch.ones(2)\n    with cost_rail('rail'): {body}\n"
TIME = """
import time
def test_time(time_rail):
    time_rail("tick", lambda: time.sleep({fast}), lambda: time.sleep(0.002), seconds={seconds})
"""
ULP = "torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))"


@dataclass
class Suite:
    """Tests of another project; what was blessed, if anything, was blessed by its first run."""

    outside: Outside
    patch: pytest.MonkeyPatch
    options: Sequence[str] = ()

    def bless(self, text: str) -> None:
        self.outside.bless(text)

    def said(self) -> Gives:
        """The ledger's entry beside `exact`, else whether tests failed, and the exit code."""
        kept: list[Ledger] = []

        class Keep:
            @staticmethod
            def pytest_unconfigure(config: pytest.Config) -> None:
                kept.append(config.stash[LEDGER])

        options = [*LOADED, "-p", "no:cacheprovider", *self.options]
        result = self.outside.pytester.runpytest_inprocess(*options, plugins=[Keep()])
        code = int(result.ret)
        if code == REFUSED:
            return NOTHING
        (ledger,) = kept
        for kind in ("blessed", "tolerance", "not_gated", "timed"):
            if getattr(ledger, kind):
                return Gives(kind, code)
        if ledger.failed:
            return Gives("failed", code)
        return Gives("unasked" if code else "exact", code)


def suite(
    text: str, then: str | None = None, *acts: Callable[[Suite], Any], options: Sequence[str] = ()
) -> Callable[[Suite], None]:
    """Bless `text`, then run `then` instead of it, after `acts`."""

    def act(made: Suite) -> None:
        made.bless(text)
        if then is not None:
            made.outside.tests(then)
        for each in acts:
            each(made)
        made.options = options

    return act


def unblessed(text: str, *options: str) -> Callable[[Suite], None]:
    def act(made: Suite) -> None:
        made.outside.tests(text)
        made.options = options

    return act


def elsewhere(made: Suite) -> None:
    made.outside.elsewhere()


def torch_is(version: str) -> Callable[[Suite], None]:
    return lambda made: made.patch.setattr(block, "version", lambda: version)


def ci(made: Suite) -> None:
    made.patch.setenv("CI", "true")


TREE_8 = TREE.replace("tree)", "tree, k=8)")
ULP_MORE = "Ring(torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)))"
MOVED = f"def test_tree(blessed): blessed('tree', lambda: {ULP_MORE}.tick()"
WITH_OTHER = TREE + "def test_other(): pass"
BLESS = ("--harness-bless", "why")
ONE, TWO = RAIL.format(body="x + 1"), RAIL.format(body="x + 1 + 1")

TABLE = [
    Row("a tree that moved by one ULP", suite(TREE, MOVED + ")"), RED, "the same tree", suite(TREE), EXACT),
    Row("moved by one ULP on another machine, with k", suite(TREE_8, MOVED + ", k=8)", elsewhere), TOLERANCE,
        "on the machine that blessed it", suite(TREE_8, MOVED + ", k=8)"), RED),
    Row("moved by one ULP on another machine, without k", suite(TREE, MOVED + ")", elsewhere), RED,
        "the same tree there", suite(TREE, None, elsewhere), EXACT),
    Row("a tree that was never blessed", unblessed(TREE), RED,
        "in a run that blesses", unblessed(TREE, *BLESS), BLESSED),
    Row("a run that blesses what moved", suite(TREE, MOVED + ")", options=BLESS), BLESSED,
        "what did not move", suite(TREE, options=BLESS), EXACT),
    Row("a run that blesses under continuous integration", suite(TREE, None, ci, options=BLESS), NOTHING,
        "one that compares there", suite(TREE, None, ci), EXACT),
    Row("a blessed tree that no test asks for", suite(TREE, "def test_other(): pass"), UNASKED,
        "in a run that leaves its test out", suite(TREE, WITH_OTHER, options=("-k", "other")), EXACT),
    Row("two engines that part by one ULP", unblessed(STEP.format(gain=f"0.5 * {ULP}")), RED,
        "two that do not", unblessed(STEP.format(gain=f"0.5 * {ULP} / {ULP}")), EXACT),
    Row("one operator more", suite(ONE, TWO), RED, "the same one", suite(ONE), EXACT),
    Row("one operator less", suite(TWO, ONE), RED, "the same one twice", suite(TWO), EXACT),
    Row("costs of another torch", suite(ONE, None, torch_is("1.0")), NOT_GATED, "of this one", suite(ONE), EXACT),
    Row("costs of another torch beside a tree that moved", suite(TREE + ONE, MOVED + ")\n" + ONE, torch_is("1.0")),
        Gives("not_gated", FAILED), "beside the same tree", suite(TREE + ONE, None, torch_is("1.0")), NOT_GATED),
    Row("a tick that takes a tenth of the time", unblessed(TIME.format(fast=0.0002, seconds=20)), TIMED,
        "one that sleeps for 5 ms more", unblessed(TIME.format(fast=0.007, seconds=20)), RED),
    Row("a tick without the time for a verdict", unblessed(TIME.format(fast=0.0002, seconds=0.001)), NOT_GATED,
        "in a strict run", unblessed(TIME.format(fast=0.0002, seconds=0.001), "--harness-strict"),
        Gives("not_gated", FAILED)),
]  # fmt: skip


@both(TABLE)
def test_plugin(act: Callable[[Suite], Any], gives: Gives, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Suite(outside, monkeypatch)
    act(made)
    commit_if_changed(outside)
    assert made.said() == gives


def commit_if_changed(outside: Outside) -> None:
    (outside.root / "stamp").write_text("")
    commit(outside.root)


NO_VERDICTS = {"rewritten", "asked", "left_out"}
"""Fields of the ledger that say nothing of a comparison."""


def test_every_entry_of_the_ledger_has_a_row() -> None:
    verdicts = {each.name for each in fields(Ledger)} - NO_VERDICTS
    assert without_row(TABLE, verdicts | {"unasked"}, {PASSED, FAILED, REFUSED}) == set()


def test_not_gated_is_a_skip_that_is_listed_and_never_a_pass(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    outside.bless(ONE)
    monkeypatch.setattr(block, "version", lambda: "1.0")
    result = outside.run()
    result.assert_outcomes(skipped=1)
    assert "not gated: cost rail rail: " in result.stdout.str()
    assert torch.get_num_threads() == 1
