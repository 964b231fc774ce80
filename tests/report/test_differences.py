"""The differences of a report: which of them are described first and have evidence."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from harness.parity.baselines.bless import BATTERY
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.proofs.lockstep import REPRO
from harness.parity.proofs.switches import SwitchResult
from harness.registry import ExecutorKind
from harness.report.differences import DESCRIBED, PLAYED_AGAIN, Difference, differences

SWITCHES = ("fused_cfg", "integrator", "host_gates")
KINDS = ("eager", "static")
SCENARIOS = ("ode_plain", "cfg_full", "sde_plain", "sde_curve")
MANY = [
    SwitchResult(switch, scenario, ExecutorKind(kind), "affine", "float32", "cpu", Verdict.MOVED, True, "it differs")
    for kind, switch, scenario in product(KINDS, SWITCHES, SCENARIOS)
]
"""24 comparisons that differ, those of one executor first."""
NOTHING = replace(MANY[0], verdict=Verdict.NOT_GATED, executor=ExecutorKind.DEFERRED)


@pytest.fixture(name="found", scope="module")
def _found() -> list[Difference]:
    captures = Report((Result("gone", Verdict.MISSING, detail="no file"),), "here", {"here": ()})
    return differences(captures, [NOTHING, *MANY], BATTERY, Path("nowhere"))


def parts(found: list[Difference]) -> list[tuple[str, str, str]]:
    """Executor, switch and scenario of each difference."""
    cut = [(each.subject.partition(" on "), each.scenario) for each in found]
    return [(rest.partition(",")[0], switch, scenario) for (switch, _, rest), scenario in cut]


def test_evidence_is_spread_over_executors_switches_and_scenarios(found: list[Difference]) -> None:
    chosen = parts([each for each in found if each.evidence is not None])
    assert len(chosen) == PLAYED_AGAIN < len(MANY)
    counts = [[[each[part] for each in chosen].count(name) for name in names]
              for part, names in enumerate((KINDS, SWITCHES, SCENARIOS))]  # fmt: skip
    assert counts[0] == [10, 10]
    assert all(min(each) > 0 and max(each) - min(each) <= 2 for each in counts)


def test_what_has_evidence_comes_first_and_nothing_is_lost(found: list[Difference]) -> None:
    assert all(each.evidence is not None for each in found[:PLAYED_AGAIN])
    assert len(found) == len(MANY) + 2
    asked = {(each.executor, each.switch, each.scenario) for each in [NOTHING, *MANY]}
    assert {*parts(found)} == asked | {("", "captures", "gone")}


def test_what_cannot_be_played_again_takes_no_place_of_what_can(found: list[Difference]) -> None:
    silent = {each.subject: each.why for each in found if each.verdict != Verdict.MOVED}
    assert set(silent) == {"captures", "fused_cfg on deferred, affine"}
    assert all(why.startswith("there is nothing to play again") for why in silent.values())


def test_the_command_that_shows_it_again_stands_once() -> None:
    repro = "python -m harness check --switches --only ode_plain --switch fused_cfg --executor eager --decoder affine"
    told = replace(MANY[0], verdict=Verdict.NOT_GATED, detail=f"they differ{REPRO}{repro}")
    (found,) = differences(None, [told], BATTERY, Path("nowhere"))
    assert (found.detail, found.repro) == ("they differ", repro)


def test_the_described_ones_of_very_many_differences_are_of_every_executor_and_switch() -> None:
    missing = [replace(each, scenario=f"s{n}", verdict=Verdict.NOT_GATED) for each in MANY for n in range(100)]
    found = differences(None, missing, BATTERY, Path("nowhere"))
    described = parts(found[:DESCRIBED])
    assert len(found) == len(missing)
    assert {each[:2] for each in described} == set(product(KINDS, SWITCHES))
    assert len({each[2] for each in described}) >= 75
