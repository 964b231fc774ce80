"""Every option of `check` reaches what it is about, and the report says what each part of a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import check as command
from harness.commands.check_report import CheckReport
from harness.engine.aot import bindings
from harness.parity.baselines import captures, platform
from harness.parity.baselines.bless import BATTERY, Battery
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs import rails as costs
from harness.registry import ExecutorKind
from tests.onnx_files import written


class Asked:
    """Arguments of the three parts of a check, none of which does any work."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.engines: list[tuple[Any, ...]] = []
        self.plays: list[tuple[Any, ...]] = []
        self.switches: list[tuple[Any, ...]] = []
        self.totals: list[int] = []
        self.whole: list[bool] = []
        result = captures.Result("s", Verdict.EXACT, 0.0, 0.0, compared_with="here")

        def check_engine(*arguments: Any) -> EngineReport:
            self.engines.append(arguments)
            return EngineReport((OnEngine("s", Verdict.EXACT),), arguments[0], "here")

        def check(*arguments: Any) -> Report:
            self.plays.append(arguments)
            return Report((result,), "here", {"here": ()})

        def check_switches(chosen: Any, *_arguments: Any, whole: bool = True) -> list[SwitchResult]:
            self.switches.append(tuple(chosen))
            self.whole.append(whole)
            return [switched(Verdict.EXACT)] if chosen else []

        @contextmanager
        def progress(_console: Any, total: int) -> Iterator[Callable[[str], None]]:
            self.totals.append(total)
            yield lambda _name: None

        counted = costs.CostReport((), Path("costs.json"), "2.0.0", gated=True)
        patch.setattr(command, "check_engine", check_engine)
        patch.setattr(command, "check", check)
        patch.setattr(command, "check_switches", check_switches)
        patch.setattr(command, "progress", progress)
        patch.setattr(costs, "check", lambda *_: counted)
        patch.setattr(registry, "check_here", lambda _device: None)
        patch.setattr(costs, "rails", lambda: dict.fromkeys(("one", "two", "three")))


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def switched(verdict: Verdict, *, acted: bool = True) -> SwitchResult:
    return SwitchResult("fused_cfg", "s", ExecutorKind.EAGER, "affine", "float32", "cpu", verdict, acted)


def two() -> Battery:
    scenarios: Any = {name: SimpleNamespace(name=name) for name in ("alpha", "beta")}
    return Battery(scenarios, BATTERY.play, BATTERY.fresh, BATTERY.plain)


def check(*words: str) -> Result:
    result = CliRunner().invoke(main, ["check", *words], obj=two())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("decoder", [None, "tiny", "affine"])
@pytest.mark.parametrize("named", [False, True])
def test_every_option_of_a_compiled_decoder_reaches_its_check(
    dtype: str, decoder: str | None, named: bool, asked: Asked, tmp_path: Path
) -> None:
    file = written(tmp_path / "a.onnx") if named else None
    words = ["--executor", "onnx", "--dtype", dtype, "--captures", str(tmp_path), "beta"]
    words += ["--decoder", decoder] if decoder else []
    words += ["--engine", str(file)] if file else []
    check(*words)
    ((engine, scenarios, folder, only, _),) = asked.engines
    assert engine == Engine(ExecutorKind.ONNX, file, decoder, dtype, "cpu")
    assert (list(scenarios), folder, only) == (["alpha", "beta"], tmp_path, ("beta",))
    assert asked.plays == [] and asked.switches == [()]


@pytest.mark.parametrize(("device", "used"), [(None, "cuda"), ("cpu", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_a_plan_is_checked_on_the_gpu_that_was_named_or_on_the_first(
    device: str | None, used: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bindings, "binding", lambda *_: None)
    plan = tmp_path / "a.plan"
    plan.touch()
    words = ["--executor", "tensorrt", "--engine", str(plan), "--decoder", "tiny"]
    words += ["--device", device] if device else []
    check(*words)
    assert asked.engines[0][0] == Engine(ExecutorKind.TENSORRT, plan, "tiny", "float32", used)
    check("--switches", *words)
    assert {(pair.executor, pair.device, pair.engine, pair.decoder) for pair in asked.switches[-1]} == {
        (ExecutorKind.TENSORRT, used, plan, "tiny")
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_every_option_of_the_switches_reaches_each_of_their_comparisons(dtype: str, device: str, asked: Asked) -> None:
    words = ["--switches", "--dtype", dtype, "--device", device, "--switch", "fused_cfg"]
    check(*words, "--executor", "static", "--executor", "eager", "--decoder", "mid", "--only", "beta")
    (chosen,) = asked.switches
    assert {(pair.dtype, pair.device, pair.engine, pair.decoder) for pair in chosen} == {(dtype, device, None, "mid")}
    assert {pair.executor for pair in chosen} == {ExecutorKind.STATIC, ExecutorKind.EAGER}
    assert {(pair.switch, pair.scenario) for pair in chosen} == {("fused_cfg", "beta")}


@pytest.mark.parametrize("words", [
    ("--dtype", "float16"), ("--decoder", "tiny"), ("--executor", "eager"), ("--switch", "fused_cfg"),
    ("--costs", "--device", "cuda"),
])  # fmt: skip
@pytest.mark.parametrize("part", [(), ("--costs",)])
def test_an_option_that_the_asked_parts_would_not_read_is_a_usage_error(
    words: tuple[str, ...], part: tuple[str, ...], asked: Asked
) -> None:
    assert check(*part, *words).exit_code == 2
    assert asked.plays == asked.engines == asked.switches == []


@pytest.mark.parametrize(("names", "whole"), [((), True), (("alpha",), False), (("--only", "alpha"), False),
                                              (("alpha", "beta"), False)])  # fmt: skip
def test_a_switch_that_never_acted_is_noticed_where_no_scenario_was_named(
    names: tuple[str, ...], whole: bool, asked: Asked
) -> None:
    check("--switches", *names)
    assert asked.whole == [whole]


@pytest.mark.parametrize("names", [(), ("beta",)])
@pytest.mark.parametrize(("part", "parts"), [
    ((), {"captures"}), (("--switches",), {"switches"}), (("--costs",), {"costs"}),
    (("--switches", "--costs"), {"switches", "costs"}), (("--all",), {"captures", "switches", "costs"}),
    (("--all", "--costs"), {"captures", "switches", "costs"}),
])  # fmt: skip
def test_what_was_asked_for_is_done_and_as_many_steps_are_announced(
    part: tuple[str, ...], parts: set[str], names: tuple[str, ...], asked: Asked
) -> None:
    said = check(*part, *names).stdout
    assert len(asked.plays) == ("captures" in parts)
    assert bool(asked.switches[0]) == ("switches" in parts)
    assert ("cost rails" in said) == ("costs" in parts)
    played = len(names or ("alpha", "beta")) if "captures" in parts else 0
    assert asked.totals == [played + len(asked.switches[0]) + 3 * ("costs" in parts)]


def test_the_last_lines_are_of_costs_switches_and_captures_in_this_order() -> None:
    of_captures = Report((captures.Result("s", Verdict.EXACT, compared_with="here"),), "here", {"here": ()})
    of_costs = costs.CostReport((), Path("costs.json"), "2.0.0", gated=True)
    first, second, third = CheckReport(of_captures, (switched(Verdict.EXACT),), of_costs).summary()
    assert first == of_costs.summary() and third == of_captures.summary()
    assert second == "1 comparisons of a switch on and off: 1 exact (in 0 the switch did not act)"
    assert CheckReport(of_captures).summary() == [third]
    assert CheckReport(None, (switched(Verdict.EXACT),)).summary() == [second]


@pytest.mark.parametrize("on_engine", [False, True])
def test_the_document_counts_the_verdicts_of_switches_and_of_scenarios_together_and_keeps_what_each_says(
    on_engine: bool,
) -> None:
    made: Any = [captures.Result("a", Verdict.EXACT), captures.Result("b", Verdict.TOLERANCE)]
    played = Report(tuple(made), "board", {"board": ()}, {"cpu": "one"})
    ran = EngineReport(tuple(made), Engine(ExecutorKind.ONNX), "board", {"cpu": "one"})
    found: Any = ran if on_engine else played
    switches = (switched(Verdict.EXACT), switched(Verdict.MOVED), switched(Verdict.EXACT, acted=False))
    document = CheckReport(found, switches).document()
    assert document["summary"]["verdicts"] == {"exact": 3, "moved": 1, "tolerance": 1}
    assert document["summary"]["passes"] is False
    assert document["summary"]["text"] == "; ".join(CheckReport(found, switches).summary())
    assert {name: document[name] for name in found.document()} == found.document()
    assert [each["verdict"] for each in document["switches"]] == ["exact", "moved", "exact"]
    assert document["costs"] == []


def test_a_document_without_captures_is_of_this_platform() -> None:
    document = CheckReport(None, (switched(Verdict.EXACT),)).document()
    assert document["scenarios"] == []
    assert document["platform"] == {"name": platform.name(), "fingerprint": platform.fingerprint()}
