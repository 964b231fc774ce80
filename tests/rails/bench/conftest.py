from __future__ import annotations

import pytest

from harness.rails.bench import clocks, steady, throughput
from tests.fakes import StillClock


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """The clock of a bench: nothing takes time but what sleeps by it."""
    clock = StillClock()
    for module in (clocks, steady, throughput):
        monkeypatch.setattr(module, "time", clock)
    return clock
