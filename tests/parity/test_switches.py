"""Each optimization, on against off, whatever happens: the same bytes after every tick."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given

from harness.parity.lockstep import SWITCHES, acted, run
from tests.parity.strategies import CASES, Case

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

# Where a switch can act at all: without a stream of its own an executor has nothing to join.
EXECUTORS = {switch: ("deferred",) if switch == "joined_stream" else ("eager", "static") for switch in SWITCHES}
PAIRS = [(switch, executor) for switch in SWITCHES for executor in EXECUTORS[switch]]


@pytest.mark.parametrize(("switch", "executor"), PAIRS)
def test_off_equals_on_whatever_happens(switch: str, executor: str) -> None:
    counted: Counter[str] = Counter()

    @given(case=CASES)
    def off_equals_on(case: Case) -> None:
        done = run(case.script, switch, executor=executor, others=case.others, max_rows=case.max_rows)
        counted["acted"] += acted(switch, done.first.stats(), done.second.stats())
        counted["overlapped"] += done.overlapping > 0

    off_equals_on()
    assert min(counted["acted"], counted["overlapped"]) >= 20, f"of 100 examples {dict(counted)}: that says little"
