"""Records of a run of tests: comparisons, blessed entries and tests left out, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest


@dataclass
class Ledger:
    """Ledger of a run of tests, in plain values that one process can send to another.

    Attributes:
        exact: comparisons with equal bytes or counts, each as `kind: name`.
        tolerance: captures that differ within their tolerance, on a machine other than the one that blessed them, and
            runs in lockstep of which a stage was compared within a bound.
        timed: time rails that are within their limit, each with its ratio.
        not_gated: comparisons that were not made or gave no verdict, each with the reason.
        rewritten: changes by blessing, new against old.
        blessed: paths of the entries that blessing wrote.
        asked: paths of the entries that tests asked for.
        left_out: reasons why the run may have left out tests; empty for a run of the whole suite.
        failed: ids of tests that used a fixture and failed.
    """

    exact: list[str] = field(default_factory=list)
    tolerance: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    blessed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def merge(self, other: dict[str, list[str]]) -> None:
        """Add the ledger of another process."""
        for name, values in other.items():
            getattr(self, name).extend(values)


@dataclass
class Notes:
    """Notes of one test, read at its end.

    Attributes:
        blessed: names that the test blessed.
        not_gated: reasons why comparisons were not made, or gave no verdict.
    """

    blessed: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)


LEDGER = pytest.StashKey[Ledger]()
NOTES = pytest.StashKey[Notes]()
UNASKED = pytest.StashKey[list[str]]()
COLLECTED = pytest.StashKey[int]()
FIRST_TRY = pytest.StashKey[str]()
"""Of a test that failed: the words of its first failure."""
