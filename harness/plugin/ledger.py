"""Records of a run of tests: what was compared, blessed and left out, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest


@dataclass
class Ledger:
    """What a run of tests compared and what it could not, in plain values that one process can send to another.

    Attributes:
        exact: what was compared and is the same to the bit, its kind before a colon.
        tolerance: what differs within its bound, on another machine than the one that blessed it.
        not_gated: what was not compared, and why.
        rewritten: what blessing changed, new against old.
        blessed: entries that were rewritten, as paths.
        asked: entries that tests asked for, as paths.
        left_out: why the run may have left out tests; empty where it was the whole suite.
        failed: the ids of tests that used a fixture and failed.
    """

    exact: list[str] = field(default_factory=list)
    tolerance: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    blessed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def merge(self, other: dict[str, list[str]]) -> None:
        """Add what another process's ledger holds."""
        for name, values in other.items():
            getattr(self, name).extend(values)


@dataclass
class Notes:
    """What one test is told at its end: what it blessed, and what it could not gate."""

    blessed: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)


LEDGER = pytest.StashKey[Ledger]()
NOTES = pytest.StashKey[Notes]()
UNASKED = pytest.StashKey[list[str]]()
COLLECTED = pytest.StashKey[int]()
