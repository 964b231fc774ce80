"""Number of cases that the property tests of laws drew, by test file; the run's summary prints the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

DRAWN: Counter[str] = Counter()


def drew(file: str, cases: int = 1) -> None:
    """Count the cases of a test in `file`, its `__file__`."""
    DRAWN[Path(file).name] += cases


def merge(told: Mapping[str, int] | None) -> None:
    """Add what another process drew."""
    DRAWN.update(told or {})


def lines() -> list[str]:
    """One line a file."""
    return [f"laws: {cases} cases drawn in {file}" for file, cases in sorted(DRAWN.items())]
