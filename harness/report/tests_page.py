"""The page of a run of tests that used the fixtures of the pytest plugin."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.report.template import template

LISTED = 150
"""The most failed tests whose words the page has; the table shows all."""
WORDS = 6000
"""The most characters of a test's words: their end is shown, where the differences are."""
TEMPLATE = "tests.html.j2"


@dataclass(frozen=True)
class Row:
    """A test of a run.

    Attributes:
        nodeid: its name for pytest.
        outcome: `passed`, `failed` or `skipped`.
        fixtures: names of the plugin's fixtures that it used; empty for another test.
        place: the place of the first difference by name, such as `{"tick": 5, "slot": 0, "stage": "condition"}`.
        words: what the failure or the skip said.
        again: the words say themselves how the failure is seen again.
    """

    nodeid: str
    outcome: str
    fixtures: tuple[str, ...] = ()
    place: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    again: bool = False

    @property
    def where(self) -> str:
        """The place in words; empty where nothing is known."""
        return ", ".join(f"{name} {value}" for name, value in self.place.items() if value is not None)


def page(
    tests: Sequence[Row],
    ledger: Mapping[str, Sequence[str]],
    unasked: Sequence[str] = (),
    *,
    passes: bool,
    made: str = "",
) -> str:
    """Make the page. Everything that comes from a test is escaped; the page has no script and fetches nothing.

    Args:
        tests: the tests of the run.
        ledger: what the fixtures compared; see `harness.plugin.ledger.Ledger`.
        unasked: blessed entries that no test asked for.
        passes: whether the run passes.
        made: when and by which command the run was made.
    """
    ours = [test for test in tests if test.fixtures]
    failed = [test for test in ours if test.outcome == "failed"]
    kinds = Counter(each.split(": ")[0] for each in ledger["exact"])
    return template(TEMPLATE).render(
        passes=passes,
        made=made,
        counts=Counter(test.outcome for test in ours),
        others=Counter(test.outcome for test in tests if not test.fixtures),
        failures=[test.nodeid for test in tests if not test.fixtures and test.outcome == "failed"],
        most=LISTED,
        kinds=sorted(kinds.items()),
        open=_not_compared(ours, ledger, unasked),
        tests=[(test, f"t{number}" if test in failed[:LISTED] else "") for number, test in enumerate(ours)],
        told=[(f"t{number}", test, _cut(test.words), _again(test))
              for number, test in enumerate(ours) if test in failed[:LISTED]],
        untold=len(failed) - len(failed[:LISTED]),
        ledger=ledger,
    )  # fmt: skip


def _not_compared(tests: Sequence[Row], ledger: Mapping[str, Sequence[str]], unasked: Sequence[str]) -> list[str]:
    skipped = [f"{test.nodeid}: skipped: {test.words}" for test in tests if test.outcome == "skipped"]
    blessed = [f"{path}: blessed, and no test asked for it" for path in unasked]
    left_out = [f"perhaps other tests: {reason}" for reason in dict.fromkeys(ledger["left_out"])]
    return [*dict.fromkeys(ledger["not_gated"]), *skipped, *blessed, *left_out]


def _again(test: Row) -> str:
    """The command that shows a failure again; empty where the words say it."""
    return "" if test.again else f"pytest {shlex.quote(test.nodeid)}"


def _cut(words: str) -> str:
    return words if len(words) <= WORDS else f"… {words[-WORDS:]}"
