"""A machine that blessed some scenarios: the reference platform's captures stand in for the others alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import bless
from harness.parity.baselines.captures import CAPTURES, Report, check
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.proofs import float64
from harness.registry import ExecutorKind
from tests.git import commit, git
from tests.parity.baselines.test_captures import Engine

REFERENCE = "reference"
HERE = platform.name()


class Machine:
    """A checkout with captures of `alpha` and `beta` by another platform, and of `alpha` by this one."""

    def __init__(self, root: Path) -> None:
        git(root, "init", "-q")
        self.engine, self.captures = Engine(), root / "captures"
        self.engine.plain_shift = 1e-6
        bless("the first", self.engine.battery(), self.captures)
        (self.captures / HERE).rename(self.captures / REFERENCE)
        manifest = store.read_manifest(self.reference)
        other = replace(manifest, fingerprint={**manifest.fingerprint, "cpu_name": "other"})
        store.write_manifest(self.reference, other)
        commit(root)
        bless("only one", self.engine.battery(), self.captures, ["alpha"])
        commit(root)

    @property
    def own(self) -> Path:
        return self.captures / HERE / "scenarios"

    @property
    def reference(self) -> Path:
        return self.captures / REFERENCE / "scenarios"

    def check(self, *only: str) -> Report:
        return check(self.engine.scenarios, self.engine.play, self.captures, only)

    def found(self, *only: str) -> dict[str, Result]:
        return {result.name: result for result in self.check(*only).results}

    def verdicts(self, *only: str) -> dict[str, Verdict]:
        return {name: result.verdict for name, result in self.found(*only).items()}


@pytest.fixture(name="machine")
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(platform, "reference_platform", lambda: REFERENCE)
    return Machine(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


# What a scenario is compared with.


def test_a_scenario_without_a_capture_of_this_machine_is_compared_with_the_reference_platforms(
    machine: Machine,
) -> None:
    machine.engine.latents["beta"] += 1e-6
    found = machine.found()
    assert machine.verdicts() == {"alpha": Verdict.EXACT, "beta": Verdict.TOLERANCE}
    assert (found["alpha"].compared_with, found["beta"].compared_with) == (HERE, REFERENCE)


def test_of_each_machine_its_own_condition_applies(machine: Machine) -> None:
    machine.engine.latents["alpha"] += 1e-6
    machine.engine.latents["beta"] += 1e-5
    found = machine.found()
    assert machine.verdicts() == {"alpha": Verdict.MOVED, "beta": Verdict.MOVED}
    assert found["alpha"].bound == 0.0
    assert 0 < (found["beta"].bound or 0) < 1e-5


def test_a_scenario_is_missing_only_where_neither_folder_has_it(machine: Machine) -> None:
    machine.engine.scenarios["gamma"] = SimpleNamespace(name="gamma")
    found = machine.found()["gamma"]
    assert (found.verdict, found.compared_with) == (Verdict.MISSING, None)
    for folder in (machine.own, machine.reference):
        assert str(folder / "gamma.safetensors") in found.detail


def test_where_every_scenario_is_blessed_the_reference_platform_is_not_asked(machine: Machine) -> None:
    bless("the rest", machine.engine.battery(), machine.captures, ["beta"])
    (machine.reference / "stray.safetensors").touch()
    assert set(machine.verdicts()) == {"alpha", "beta"}
    (machine.reference / store.MANIFEST).write_text("{")
    report = machine.check()
    assert [result.compared_with for result in report.results] == [HERE, HERE]
    assert report.passes
    assert report.summary() == f"2 scenarios: 2 exact ({HERE}, the platform that blessed them)"


@pytest.mark.parametrize("settings", ["", '[tool.harness]\nreference-platform = "elsewhere"\n'])
def test_without_a_reference_platform_the_rest_is_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    (machine.captures.parent / "pyproject.toml").write_text(settings)
    monkeypatch.undo()
    named = platform.reference_platform
    monkeypatch.setattr(platform, "reference_platform", lambda: named(machine.captures.parent))
    assert machine.verdicts() == {"alpha": Verdict.EXACT, "beta": Verdict.MISSING}


def test_an_empty_folder_of_this_machine_is_none(machine: Machine) -> None:
    shutil.rmtree(machine.own)
    machine.own.mkdir()
    assert {result.compared_with for result in machine.check().results} == {REFERENCE}


# Damage.


@pytest.mark.parametrize(("damage", "verdict"), [(truncate, Verdict.CORRUPT), (Path.unlink, Verdict.MISSING)])
def test_a_damaged_capture_of_this_machine_is_not_replaced_by_the_reference_platforms(
    machine: Machine, damage: Callable[[Path], None], verdict: Verdict
) -> None:
    damage(machine.own / "alpha.safetensors")
    found = machine.found()["alpha"]
    assert (found.verdict, found.compared_with) == (verdict, None)
    assert str(machine.own / "alpha.safetensors") in found.detail


@pytest.mark.parametrize(("damage", "verdict"), [(truncate, Verdict.CORRUPT), (Path.unlink, Verdict.MISSING)])
def test_behind_a_damaged_manifest_of_this_machine_nothing_stands_in(
    machine: Machine, damage: Callable[[Path], None], verdict: Verdict
) -> None:
    damage(machine.own / store.MANIFEST)
    report = machine.check()
    assert machine.verdicts() == {"alpha": verdict, "beta": verdict}
    assert not report.passes
    assert report.summary().endswith(f"({HERE}, nothing was compared)")


@pytest.mark.parametrize(("damage", "verdict"), [(truncate, Verdict.CORRUPT), (Path.unlink, Verdict.MISSING)])
def test_a_damaged_manifest_of_the_reference_platform_is_that_of_the_rest_alone(
    machine: Machine, damage: Callable[[Path], None], verdict: Verdict
) -> None:
    damage(machine.reference / store.MANIFEST)
    assert machine.verdicts() == {"alpha": Verdict.EXACT, "beta": verdict}
    assert str(machine.reference / store.MANIFEST) in machine.found()["beta"].detail


def test_a_capture_that_this_machines_manifest_does_not_know_is_not_passed_over(machine: Machine) -> None:
    shutil.copy(machine.reference / "beta.safetensors", machine.own)
    assert machine.verdicts("beta") == {"beta": Verdict.ORPHAN}
    everything = {"alpha": Verdict.EXACT, "beta": Verdict.ORPHAN, "beta.safetensors": Verdict.ORPHAN}
    assert machine.verdicts() == everything


def test_strays_are_found_in_every_folder_that_was_compared_with(machine: Machine) -> None:
    manifest = store.read_manifest(machine.reference)
    forgotten = {name: entry for name, entry in manifest.scenarios.items() if name != "alpha"}
    store.write_manifest(machine.reference, replace(manifest, scenarios=forgotten))
    (machine.own / "a").touch()
    orphans = {name for name, verdict in machine.verdicts().items() if verdict is Verdict.ORPHAN}
    assert orphans == {"a", "alpha.safetensors"}
    assert set(machine.verdicts("beta")) == {"beta"}


def test_a_capture_of_no_scenario_is_an_orphan_of_the_folder_that_has_it(machine: Machine) -> None:
    del machine.engine.scenarios["alpha"]
    details = [result.detail for result in machine.check().results if result.verdict is Verdict.ORPHAN]
    assert [detail.split(":")[0] for detail in details] == [
        str(folder / "alpha.safetensors") for folder in (machine.own, machine.reference)
    ]


# What is said of it.


def test_the_summary_counts_what_was_compared_with_whom(machine: Machine) -> None:
    assert machine.check().summary() == (
        f"2 scenarios: 2 exact ({HERE}, 1 byte for byte with its own captures, "
        f"1 within the bound of the captures of {REFERENCE})"
    )


def test_the_document_says_of_each_platform_in_what_this_machine_differs(machine: Machine) -> None:
    document = json.loads(json.dumps(machine.check().document()))
    assert [each["compared_with"] for each in document["scenarios"]] == [HERE, REFERENCE]
    assert document["platform"]["compared_with"] == {HERE: [], REFERENCE: ["cpu_name"]}
    assert document["platform"]["blessed_here"] is False
    assert machine.check("alpha").document()["platform"]["blessed_here"] is True


@pytest.mark.parametrize(("only", "shown"), [([], True), (["--only", "beta"], False)])
def test_the_table_says_what_each_was_compared_with_where_that_is_not_the_same_for_all(
    machine: Machine, only: list[str], shown: bool
) -> None:
    arguments = ["check", "--captures", str(machine.captures), *only]
    result = CliRunner().invoke(main, arguments, obj=machine.engine.battery())
    assert result.exit_code == 0, result.output
    assert ("compared with" in result.stdout) is shown


# What depends on it.


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_some_cannot_be_blessed_where_the_others_would_be_forgotten(
    machine: Machine, damage: Callable[[Path], None]
) -> None:
    damage(machine.own / store.MANIFEST)
    commit(machine.captures.parent)
    with pytest.raises(BlessRefused, match="bless all of them"):
        bless("why", machine.engine.battery(), machine.captures, ["beta"])
    bless("why", machine.engine.battery(), machine.captures)
    assert machine.verdicts() == {"alpha": Verdict.EXACT, "beta": Verdict.EXACT}


def test_an_engine_is_checked_where_this_machine_has_some_captures_of_its_own(tmp_path: Path) -> None:
    shutil.copytree(CAPTURES, tmp_path / "captures")
    own = tmp_path / "captures" / HERE / "scenarios"
    reference = tmp_path / "captures" / platform.reference_platform() / "scenarios"
    if own != reference:
        manifest = store.read_manifest(reference)
        some = {"ode_plain": manifest.scenarios["ode_plain"]}
        own.mkdir(parents=True)
        shutil.copy(reference / "ode_plain.safetensors", own)
        with platform.one_thread():
            here = platform.fingerprint()
        store.write_manifest(own, replace(manifest, fingerprint=here, scenarios=some))
    few = {name: SCENARIOS[name] for name in ("ode_plain", "sde_plain")}
    report = float64.check(float64.Engine(ExecutorKind.ONNX), few, tmp_path / "captures")
    assert [result.verdict for result in report.results] == [Verdict.EXACT, Verdict.EXACT]
