"""Each optimization, on against off, whatever happens: the same bytes after every tick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from harness.engine import execute, plan
from harness.engine.conditioning import CacheCounts
from harness.parity.catalog import DeferredStream
from harness.parity.lockstep import SWITCHES, Lockstep, run
from tests.parity.strategies import Case, cases

# Where a switch can act at all: without a stream of its own an executor has nothing to join.
EXECUTORS = {switch: ("deferred",) if switch == "joined_stream" else ("eager", "static") for switch in SWITCHES}
PAIRS = [(switch, executor) for switch in SWITCHES for executor in EXECUTORS[switch]]
CALLS: Counter[str] = Counter()
"""How often the functions that tell a fast path from its twin were called in the example at hand."""

# What tells that a switch acted in an example, so that equality means something.
ACTED: dict[str, Callable[[Lockstep], bool]] = {
    "fused_cfg": lambda done: done.first.stats().decoder_runs < done.second.stats().decoder_runs,
    "cached_conditioning": lambda done: (
        done.first.stats().conditioning.hits > 0 and done.second.stats().conditioning == CacheCounts()
    ),
    "integrator": lambda done: CALLS["together"] > 0 and CALLS["alone"] > 0,
    "host_gates": lambda done: CALLS["host"] > 0 and CALLS["tensor"] > 0,
    "joined_stream": lambda done: CALLS["join"] > 0 and CALLS["wait"] > 0,
}


def count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, as_name: str) -> None:
    original = getattr(owner, name)

    def counted(*arguments: Any, **more: Any) -> Any:
        CALLS[as_name] += 1
        return original(*arguments, **more)

    monkeypatch.setattr(owner, name, counted)


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count(monkeypatch, execute, "_step_together", "together")
    count(monkeypatch, execute.advance, "step", "alone")
    count(monkeypatch, plan, "ask_host", "host")
    count(monkeypatch, plan, "ask_tensor", "tensor")
    count(monkeypatch, DeferredStream, "join", "join")
    count(monkeypatch, DeferredStream, "wait", "wait")


@pytest.mark.parametrize(("switch", "executor"), PAIRS)
def test_off_equals_on_whatever_happens(switch: str, executor: str) -> None:
    acted = [0, 0]

    @given(case=cases())
    def off_equals_on(case: Case) -> None:
        CALLS.clear()
        done = run(case.script, switch, executor=executor, others=case.others, max_rows=case.max_rows)
        acted[ACTED[switch](done)] += 1

    off_equals_on()
    assert acted[True] >= 25, f"{switch} acted in {acted[True]} of {sum(acted)} examples: their equality says little"
