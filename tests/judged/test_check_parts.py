"""`check --switches`, `--costs`, `--executor` and `--all`: each verdict and exit code, and the nearest other case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from harness.cli import main
from harness.commands import check as check_module
from harness.commands import on_engine
from harness.engine import execute
from harness.engine.errors import OutsideProfile
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.baselines.bless import BATTERY
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.battery.scenarios import SCENARIOS, executor
from harness.parity.proofs import switches
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine, judged
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs import rails as costs
from harness.registry import ExecutorKind
from tests.judged import test_check
from tests.judged.conftest import Made, report
from tests.judged.rows import Gives, Row, both, nothing, without_row

EXACT, MOVED = Gives(Verdict.EXACT, 0), Gives(Verdict.MOVED, 1)
TOLERANCE, MISSING = Gives(Verdict.TOLERANCE, 0), Gives(Verdict.MISSING, 1)
NOT_GATED, IDLE = Gives(Verdict.NOT_GATED, 1), Gives(Verdict.EXACT, 125)
SOME_OUTSIDE, ALL_OUTSIDE = Gives(Verdict.OUTSIDE_PROFILE, 0), Gives(Verdict.OUTSIDE_PROFILE, 125)
NO_REPORT, USAGE = Gives(None, 125), Gives(None, 2)


# Switches.


class Switched:
    """`check --switches` of one switch on the eager executor, on a battery of a few scenarios."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.patch, self.root = patch, root
        self.names, self.switch, self.options = ["cfg_full"], "fused_cfg", ["--executor", "eager"]

    def said(self) -> Gives:
        """The one verdict beside `exact`, and the exit code."""
        battery = replace(BATTERY, scenarios={name: SCENARIOS[name] for name in self.names})
        words = ["check", "--switches", "--switch", self.switch, "--decoder", "affine", *self.options]
        path = self.root / "r.json"
        result = CliRunner().invoke(main, [*words, "--json", str(path)], obj=battery)
        found = {Verdict(each["verdict"]) for each in report(path).get("switches", [])}
        (verdict,) = (found - {Verdict.EXACT}) or found or {None}
        return Gives(verdict, result.exit_code)


def plays(
    *names: str, switch: str = "fused_cfg", only: str = "", words: tuple[str, ...] = ()
) -> Callable[[Switched], None]:
    def act(made: Switched) -> None:
        made.names, made.switch = list(names), switch
        made.options += ["--only", only] if only else []
        made.options += words

    return act


def one_ulp(path: str, switch: str) -> Callable[[Switched], None]:
    """Move one float of one slot by an ULP in a step of `path`, a function of `execute`."""

    def act(made: Switched) -> None:
        step = getattr(execute, path)

        def nudged(plans: Any, states: Any, velocities: Mapping[int, Tensor]) -> Any:
            after = dict(step(plans, states, velocities))
            for index in list(after)[:1]:
                x = after[index].clone()
                x[0, 0, 0] = torch.nextafter(x[0, 0, 0], torch.tensor(9.0))
                after[index] = x
            return after

        made.patch.setattr(execute, path, nudged)
        made.names, made.switch = ["cfg_full"], switch

    return act


class Narrow(EagerExecutor):
    """An executor that takes so many rows, as a compiled decoder does."""

    most = 0

    def run(self, batch: Batch) -> Tensor:
        if batch.rows > self.most:
            raise OutsideProfile("rows")
        return super().run(batch)


def takes(most: int) -> Callable[[Switched], None]:
    """A compiled decoder that takes so many rows, with a plain and a guided scenario."""

    def act(made: Switched) -> None:
        (made.root / "a.onnx").touch()
        made.names, made.options = (
            ["ode_plain", "cfg_full"],
            ["--executor", "onnx", "--engine", str(made.root / "a.onnx")],
        )
        made.switch = "cached_conditioning"

        def narrow(scenario: Any, *_: Any) -> EagerExecutor:
            found = Narrow(executor(scenario).decoder)
            found.most = most
            return found

        made.patch.setattr(switches, "executor", narrow)
        made.patch.setattr(on_engine, "engine_to_check", lambda *_, **__: None)

    return act


def crashes(made: Switched) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("engine broke")

    made.patch.setattr(switches, "executor", broken)


def with_options(*words: str) -> Callable[[Switched], None]:
    def act(made: Switched) -> None:
        made.options = list(words)

    return act


SWITCHES = [
    Row("one ULP in one slot of the fast path", one_ulp("_step_together", "integrator"), MOVED,
        "on both sides of another switch", one_ulp("_step_together", "fused_cfg"), EXACT),
    Row("a whole battery in which the switch does nothing", plays("ode_plain"), NOT_GATED,
        "and one scenario in which it acts", plays("ode_plain", "cfg_full"), EXACT),
    Row("a chosen scenario in which the switch does nothing", plays("ode_plain", "cfg_full", only="ode_plain"), IDLE,
        "one in which it acts", plays("ode_plain", "cfg_full", only="cfg_full"), EXACT),
    Row("a scenario named without --only in which the switch does nothing",
        plays("ode_plain", "cfg_full", words=("ode_plain",)), IDLE,
        "one in which it acts", plays("ode_plain", "cfg_full", words=("cfg_full",)), EXACT),
    Row("scenarios named in both ways in which the switch does nothing",
        plays("ode_plain", "sde_plain", "cfg_full", only="sde_plain", words=("ode_plain",)), IDLE,
        "one of them in which it acts", plays("ode_plain", "cfg_full", only="ode_plain", words=("cfg_full",)), EXACT),
    Row("every scenario outside the file's profile", takes(0), ALL_OUTSIDE,
        "one of two within it", takes(4), SOME_OUTSIDE),
    Row("one scenario outside the file's profile", takes(4), SOME_OUTSIDE, "none", takes(8), EXACT),
    Row("an engine that crashes", crashes, NO_REPORT, "one that does not", nothing, EXACT),
    Row("an executor on which the switch is not compared", with_options("--executor", "deferred"), USAGE,
        "one on which it is", with_options("--executor", "static"), EXACT),
]  # fmt: skip


@both(SWITCHES)
def test_check_switches(
    act: Callable[[Switched], Any], gives: Gives, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Switched(monkeypatch, tmp_path)
    act(made)
    assert made.said() == gives


# A compiled decoder.


def results(**verdicts: Verdict) -> Callable[[pytest.MonkeyPatch], None]:
    """A check on a compiled decoder that ends with these verdicts."""

    def act(patch: pytest.MonkeyPatch) -> None:
        own = {Verdict.MISSING}
        made = [Result(n, v) if v in own else OnEngine(n, v) for n, v in verdicts.items()]
        found = EngineReport(tuple(made), Engine(ExecutorKind.ONNX), "here")
        patch.setattr(check_module, "check_engine", lambda *_: found)

    return act


V = Verdict
ON_ENGINES = [
    Row("all outside the profile", results(a=V.OUTSIDE_PROFILE, b=V.OUTSIDE_PROFILE), ALL_OUTSIDE,
        "one within it", results(a=V.OUTSIDE_PROFILE, b=V.EXACT), SOME_OUTSIDE),
    Row("one moved, the other outside the profile", results(a=V.MOVED, b=V.OUTSIDE_PROFILE),
        Gives(V.MOVED, 1), "one within the bound", results(a=V.TOLERANCE, b=V.EXACT), TOLERANCE),
    Row("captures that are missing", results(a=V.MISSING, b=V.EXACT), MISSING,
        "both exact", results(a=V.EXACT, b=V.EXACT), EXACT),
]  # fmt: skip


@both(ON_ENGINES)
def test_check_on_a_compiled_decoder(
    act: Callable[[pytest.MonkeyPatch], Any], gives: Gives, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    act(monkeypatch)
    words = ["check", "--executor", "onnx", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(main, words, obj=BATTERY)
    found = {each["verdict"] for each in report(tmp_path / "r.json")["scenarios"]}
    assert result.exit_code == gives.code, result.output
    assert gives.verdict in found


@pytest.mark.parametrize(("distance", "verdict"), [(2.0, V.TOLERANCE), (2.0 + 2.0**-22, V.MOVED), (2.25, V.MOVED)])
def test_on_a_compiled_decoder_twice_the_eager_distance_is_the_bound(distance: float, verdict: Verdict) -> None:
    """The docstring of `check` says twice; both distances are exact here."""
    zero = torch.zeros(4)
    found = judged("s", {"r": zero + distance}, {"r": zero + 1.0}, {"r": zero})
    assert (found.verdict, found.bound) == (verdict, 2.0)


# Costs.


class Counted:
    """`check --costs` of two rails whose counts a test changes; `was` was blessed for this torch."""

    def __init__(self, made: Made, patch: pytest.MonkeyPatch) -> None:
        self.made, self.patch = made, patch
        was = {name: {"ticks": 8, "operators": 3, "host_reads": 0, "operator aten::add": 3} for name in ("one", "two")}
        self.now = {name: dict(counts) for name, counts in was.items()}
        patch.setattr(costs, "counted", lambda *_: {name: dict(counts) for name, counts in self.now.items()})
        patch.setattr(costs, "counted_afresh", lambda: was)
        costs.bless("first", made.captures)
        self.options: list[str] = []

    def said(self) -> Gives:
        path = self.made.root / "r.json"
        result = self.made.invoke("check", "--costs", "--json", str(path), *self.options)
        found = {Verdict(each["verdict"]) for each in report(path).get("costs", [])}
        (verdict,) = (found - {Verdict.EXACT}) or found or {None}
        return Gives(verdict, result.exit_code)


def count(**change: int) -> Callable[[Counted], None]:
    """Add to the counts of rail `two`."""

    def act(made: Counted) -> None:
        for name, more in change.items():
            made.now["two"][name] = made.now["two"].get(name, 0) + more

    return act


def torch_is(version: str) -> Callable[[Counted], None]:
    def act(made: Counted) -> None:
        made.patch.setattr(torch, "__version__", version)

    return act


def more_with(version: str) -> Callable[[Counted], None]:
    def act(made: Counted) -> None:
        torch_is(version)(made)
        count(operators=1)(made)

    return act


def costs_file(change: Callable[[Path], Any]) -> Callable[[Counted], None]:
    def act(made: Counted) -> None:
        change(costs.path(made.made.captures))

    return act


def reordered(made: Counted) -> None:
    made.now = {name: dict(reversed(counts.items())) for name, counts in reversed(made.now.items())}


HERE = str(torch.__version__).split("+")[0]
COSTS = [
    Row("one operator more", count(operators=1), MOVED, "the same counts in another order", reordered, EXACT),
    Row("one operator less", count(operators=-1), MOVED, "none less", count(operators=0), EXACT),
    Row("a count of 0 that is not blessed", count(copies=0), MOVED, "one that is", count(host_reads=0), EXACT),
    Row("a rail that was not counted", lambda m: m.now.pop("one"), MOVED, "all counted", nothing, EXACT),
    Row("another version of torch", torch_is("1.0.0"), Gives(V.NOT_GATED, 125),
        "another build of this one", torch_is(f"{HERE}+other"), EXACT),
    Row("another version of torch, and other counts", more_with("1.0.0"), Gives(V.NOT_GATED, 125),
        "other counts of another build", more_with(f"{HERE}+other"), MOVED),
    Row("a file that was edited", costs_file(lambda p: p.write_text(p.read_text().replace("first", "better"))),
        NO_REPORT, "no file", costs_file(Path.unlink), Gives(V.NOT_GATED, 125)),
    Row("an unknown scenario", lambda m: m.options.append("nine"), USAGE, "none", nothing, EXACT),
]  # fmt: skip


@both(COSTS)
def test_check_costs(act: Callable[[Counted], Any], gives: Gives, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(made, monkeypatch)
    act(counted)
    assert counted.said() == gives


# All of them at once.

STATES = {
    "captures": ("exact", "moved", "missing"),
    "switches": ("exact", "moved", "idle", "not gated", "outside"),
    "costs": ("exact", "moved", "not gated"),
}
PASSING = {"exact", "idle", "outside"}
"""What does not fail a check of all where something else was compared: `idle` and `outside` compared nothing."""


def switched(state: str) -> list[SwitchResult]:
    verdict = {"idle": V.EXACT, "not gated": V.NOT_GATED, "outside": V.OUTSIDE_PROFILE}.get(state) or Verdict(state)
    acted = state in ("exact", "moved")
    return [SwitchResult("fused_cfg", "s", ExecutorKind.EAGER, "affine", "float32", "cpu", verdict, acted)]


@pytest.mark.parametrize(("captures", "on_off", "counts"), list(product(*STATES.values())))
def test_check_all_swallows_no_verdict(
    captures: str, on_off: str, counts: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(made, monkeypatch)
    if counts != "exact":
        (torch_is("1.0.0") if counts == "not gated" else count(operators=1))(counted)
    if captures != "exact":
        (test_check.last_bit if captures == "moved" else lambda m, _: m.file().unlink())(made, [])
    if counts == "not gated":
        # The captures' own fingerprint has the version of torch too, which must not differ here.
        made.elsewhere(torch="1.0.0")
    monkeypatch.setattr(check_module, "check_switches", lambda *_, **__: switched(on_off))
    result = made.invoke("check", "--all")
    wrong = {captures, on_off} - PASSING | ({counts} & {"moved"})
    assert result.exit_code == (1 if wrong else 0), result.output
    lines = result.stdout.splitlines()
    assert [line for line in lines if "cost rails" in line and ("not gated" in line) == (counts == "not gated")]
    assert [line for line in lines if line.startswith("2 scenarios: ") and captures in line]


@pytest.mark.parametrize("part", ["captures", "switches", "costs"])
def test_a_part_of_all_that_crashes_is_no_pass(part: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("engine broke")

    Counted(made, monkeypatch)
    monkeypatch.setattr(check_module, "check_switches", lambda *_, **__: switched("exact"))
    assert made.invoke("check", "--all").exit_code == 0
    owner, name = {"captures": (check_module, "check"), "switches": (check_module, "check_switches"),
                   "costs": (costs, "check")}[part]  # fmt: skip
    monkeypatch.setattr(owner, name, broken)
    assert made.invoke("check", "--all").exit_code == 125


def test_what_was_not_compared_is_counted_in_the_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = Switched(monkeypatch, tmp_path)
    plays("ode_plain", "sde_plain", "cfg_full")(made)
    battery = replace(BATTERY, scenarios={name: SCENARIOS[name] for name in made.names})
    words = ["check", "--switches", "--switch", "fused_cfg", "--decoder", "affine", "--executor", "eager"]
    result = CliRunner().invoke(main, words, obj=battery)
    assert result.stdout.splitlines()[-1].endswith("3 exact (in 2 the switch did not act)")


def test_every_verdict_and_exit_code_of_check_has_a_row() -> None:
    assert without_row([*test_check.TABLE, *SWITCHES, *ON_ENGINES, *COSTS], Verdict) == set()
    assert without_row(SWITCHES, [V.EXACT, V.MOVED, V.NOT_GATED, V.OUTSIDE_PROFILE]) == set()
    assert without_row(COSTS, [V.EXACT, V.MOVED, V.NOT_GATED]) == set()
