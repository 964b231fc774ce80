from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.engine.errors import InvalidInput
from harness.parity.foreign.coverage import NotCovered
from harness.parity.foreign.records import Script, Submit
from harness.parity.foreign.trial import ScriptFailed
from harness.parity.proofs.bounds import Bound
from harness.plugin.trials import Scripts
from tests.parity.foreign.pool import Pool
from tests.plugin.test_alone import WITHOUT, child
from tests.plugin.test_fixtures import Run

pytestmark = pytest.mark.no_cover

PLAIN = {"seed": 1, "gain": 1.0, "mean": False}
ONE = Script((Submit(0, PLAIN), Submit(1, PLAIN)))
ROUGH = {"decode": Bound(k=30.0, rows=3, how="free", samples=3)}


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_verdict_on_scripts_is_kept_in_the_ledger_with_its_counts(run: Run) -> None:
    proved = Scripts(run.request)(Pool, fast={}, count=8)
    assert run.ledger.exact == [f"script proof: tests/test_a.py::test_a, {proved}"]
    assert (proved.scripts, len(proved.lockstep)) == (8, 8)


def test_a_verdict_within_a_bound_is_not_counted_as_exact(run: Run) -> None:
    Scripts(run.request).replay(Pool, ONE, plain={"wrong": "rough"}, fast={}, bounds=ROUGH)
    assert run.ledger.exact == [] and "within k = 30" in run.ledger.tolerance[0]


def test_a_verdict_whose_requests_were_not_compared_alone_says_so(run: Run) -> None:
    Scripts(run.request).replay(Pool, ONE, fast={}, not_alone="they share a seed")
    assert "not compared with requests alone: they share a seed" in run.ledger.exact[0]


@pytest.mark.parametrize("side", ["plain", "fast"])
def test_arguments_of_each_ring_reach_its_adapter(run: Run, side: str) -> None:
    rings: dict[str, Any] = {"plain": {}, "fast": {}, side: {"wrong": "mean leaks"}}
    with pytest.raises(ScriptFailed):
        Scripts(run.request)(Pool, **rings, count=8, runs=0)
    assert run.ledger.exact == []


def test_count_seed_and_size_reach_the_draw(run: Run) -> None:
    with pytest.raises(NotCovered, match=r"in 2 scripts:[^$]*size=10"):
        Scripts(run.request)(Pool, count=2, size=5)
    with pytest.raises(ScriptFailed, match="the script of seed 41 "):
        Scripts(run.request)(Pool, plain={"wrong": "mean leaks"}, seed=40, runs=3)


def test_without_a_fast_ring_requests_are_compared_with_themselves_alone(run: Run) -> None:
    assert Scripts(run.request).replay(Pool, ONE).lockstep == []


def test_an_adapter_that_takes_no_scripts_is_refused(run: Run) -> None:
    with pytest.raises(InvalidInput, match="object without step, state, features"):
        Scripts(run.request)(object)


def test_scripts_need_no_extra_and_no_hypothesis() -> None:
    ran = child(f"{WITHOUT}from harness.parity.foreign import coverage, draws, shrinking, trial\nprint(trial.RUNS)")
    assert (ran.returncode, ran.stdout) == (0, "200\n"), ran.stderr
