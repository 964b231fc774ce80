"""A replay: what it compares, beyond digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.parity.traces import TraceParted, replayed
from tests.parity.traces.plain import Counter, counted
from tests.parity.traces.test_reading import changed


def test_a_value_that_is_recorded_and_not_made_is_a_difference(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), -2, lambda d: {**d, "made": [*d["made"], ["more", "1"]]})
    with pytest.raises(TraceParted, match=r"event 6 \(step\), tick 6: more: recorded, not made"):
        replayed(path, Counter)


def test_a_value_of_another_name_is_a_difference(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), -2, lambda d: {**d, "made": d["made"][::-1]})
    with pytest.raises(TraceParted, match=r"output/made: made in place of state\[0\]"):
        replayed(path, Counter)


def test_a_ring_that_counts_other_ticks_is_a_difference(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), -2, lambda d: {**d, "ticks": 8})
    with pytest.raises(TraceParted, match="completed ticks: 6, recorded 8"):
        replayed(path, Counter)
