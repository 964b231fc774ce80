"""What each part of `check` is handed, and what is printed, written and ended with, whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import check as command
from harness.commands.advice import advised
from harness.commands.check_report import CheckReport, summary_of
from harness.engine.errors import EngineError, ExportRefused, InvalidInput
from harness.parity.baselines import captures
from harness.parity.baselines.bless import BATTERY, Battery
from harness.parity.baselines.captures import CAPTURES, Report
from harness.parity.baselines.platform import NoReferencePlatform
from harness.parity.baselines.store import CaptureMissing, ManifestAltered
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.proofs.float64 import EngineReport, OnEngine
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs import rails as costs
from harness.rails.costs.counts import Row
from harness.rails.costs.rails import CostReport
from harness.registry import ExecutorKind
from tests.commands.test_tables import rows

SWITCHED = SwitchResult("fused_cfg", "beta", ExecutorKind.EAGER, "affine", "float32", "cpu", Verdict.EXACT, True)
COSTS = CostReport((Row("plain/1", "copies", 3, 3),), Path("here/costs.json"), "2.0.0", gated=True)
PLAYED = Report((captures.Result("beta", Verdict.EXACT, 0.0, 0.0, compared_with="here"),), "here", {"here": ()})


class Parts:
    """The parts of a check: what they were handed, and what they find."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.handed: list[tuple[str, tuple[Any, ...]]] = []
        self.totals: list[int] = []
        self.played: Report | Exception = PLAYED
        self.switched: list[SwitchResult] = [SWITCHED]
        self.costs = COSTS
        scenarios: Any = {name: SimpleNamespace(name=name) for name in ("alpha", "beta")}
        self.battery = Battery(scenarios, lambda _: None, BATTERY.fresh, BATTERY.plain)  # type: ignore[arg-type, return-value]

        def check(*handed: Any) -> Report:
            self.handed.append(("captures", handed))
            if isinstance(self.played, Exception):
                raise self.played
            return self.played

        def check_engine(engine: Any, *handed: Any) -> EngineReport:
            self.handed.append(("engine", handed))
            return EngineReport((OnEngine("beta", Verdict.TOLERANCE),), engine, "here")

        def check_switches(*handed: Any, whole: bool) -> list[SwitchResult]:
            self.handed.append(("switches", (*handed, whole)))
            return self.switched if handed[0] else []

        def check_costs(*handed: Any) -> CostReport:
            self.handed.append(("costs", handed))
            return self.costs

        @contextmanager
        def progress(_console: Any, total: int) -> Iterator[Callable[[str], None]]:
            self.totals.append(total)
            yield self._advance

        patch.setattr(command, "check", check)
        patch.setattr(command, "check_engine", check_engine)
        patch.setattr(command, "check_switches", check_switches)
        patch.setattr(command, "progress", progress)
        patch.setattr(costs, "check", check_costs)
        patch.setattr(registry, "check_here", lambda _device: None)
        patch.setattr(costs, "rails", lambda: dict.fromkeys(("one", "two")))

    def _advance(self, _name: str) -> None:
        """Stands for the progress bar."""

    def check(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["check", *words], obj=self.battery)


@pytest.fixture(name="parts")
def _parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


@pytest.mark.parametrize(("words", "names"), [
    ([], ()), (["beta"], ("beta",)), (["--only", "beta"], ("beta",)), (["alpha", "--only", "beta"], ("beta", "alpha")),
])  # fmt: skip
@pytest.mark.parametrize("folder", [None, "some folder"])
def test_each_part_is_handed_battery_folder_names_and_progress(
    words: list[str], names: tuple[str, ...], folder: str | None, parts: Parts
) -> None:
    where = ["--captures", folder] if folder else []
    assert parts.check("--all", "--switch", "fused_cfg", *words, *where).exit_code == 0
    (first, played), (second, switched), (third, counted) = parts.handed
    captures_at, scenarios = Path(folder) if folder else CAPTURES, parts.battery.scenarios
    assert (first, second, third) == ("captures", "switches", "costs")
    assert played == (scenarios, parts.battery.play, captures_at, names, parts._advance, "cpu")
    assert switched[1:] == (scenarios, parts._advance, not names)
    assert {pair.scenario for pair in switched[0]} == set(names or scenarios)
    assert counted == (captures_at, parts._advance)
    parts.handed.clear()
    assert parts.check("--executor", "onnx", *words, *where).exit_code == 0
    assert parts.handed[0] == ("engine", (scenarios, captures_at, names, parts._advance))


@pytest.mark.parametrize("words", [["beta", "beta"], ["--only", "beta", "beta"], ["--only", "beta", "--only", "beta"]])
def test_a_scenario_that_is_named_twice_is_one_step(words: list[str], parts: Parts) -> None:
    parts.check(*words)
    parts.check("--switches", "--switch", "fused_cfg", "--executor", "eager", "--decoder", "affine", *words)
    assert parts.totals == [1, 1]


def test_tables_come_first_then_a_line_for_each_part_and_the_report_is_the_same(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    parts.costs = replace(COSTS, rows=(Row("plain/1", "copies", 3, 4),))
    result = parts.check("--all", "--json", str(file))
    assert result.exit_code == 1
    assert [row[0] for row in rows(result.stdout)] == ["rail", "plain/1", "switch", "fused_cfg", "scenario", "beta"]
    assert result.stdout.splitlines()[-3:] == [parts.costs.summary(), summary_of([SWITCHED]), PLAYED.summary()]
    found = CheckReport(PLAYED, (SWITCHED,), parts.costs).document()
    assert json.loads(file.read_text()) == json.loads(json.dumps(found))


@pytest.mark.parametrize("error", [
    CaptureMissing("no such folder"), ManifestAltered("altered"), NoReferencePlatform("none"), EngineError("no driver"),
    ExportRefused("frozen"),
])  # fmt: skip
def test_what_can_be_expected_to_fail_is_one_line(error: Exception, parts: Parts, tmp_path: Path) -> None:
    parts.played = error
    result = parts.check("--json", str(tmp_path / "r.json"))
    assert (result.exit_code, result.stdout, result.stderr) == (125, "", f"cannot check: {advised(error)}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("engine broke"), InvalidInput("x", 1, "2"), KeyError("gone")])
def test_a_crash_has_its_traceback_and_is_no_difference(error: Exception, parts: Parts) -> None:
    parts.played = error
    result = parts.check()
    assert (result.exit_code, result.stdout) == (125, "")
    assert "Traceback" in result.stderr and "cannot check" not in result.stderr


UNREAD = (
    "--switch, --executor, --decoder and --dtype need --switches or --all; "
    "--executor onnx or tensorrt also goes alone, with --decoder and --dtype"
)


@pytest.mark.parametrize(("words", "said"), [
    (["--switch", "fused_cfg"], UNREAD),
    (["--costs", "--executor", "onnx"], UNREAD),
    (["--costs", "--device", "cuda"], "--costs are counted on the CPU: --device goes with captures"),
    (["--device", "nonsense"], "device: got 'nonsense', expected a device of torch"),
    (["nine"], "only: got nine, expected some of alpha, beta"),
    (["--only", "nine", "alpha", "ten"], "only: got nine, ten, expected some of alpha, beta"),
    (["--switches", "--decoder", "tiny", "--decoder", "nowhere"], "decoder: got 'nowhere'"),
    (["--switches", "--switch", "fused_cfg", "--switch", "integrator", "--executor", "deferred"],
     "fused_cfg, integrator does not act on deferred"),
    (["--switches", "--switch", "joined_stream", "--executor", "eager", "--executor", "static"],
     "joined_stream does not act on eager, static"),
])  # fmt: skip
def test_a_wrong_command_line_is_answered_in_words(words: list[str], said: str, parts: Parts) -> None:
    result = parts.check(*words)
    assert (result.exit_code, parts.handed) == (2, [])
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert said in shown


@pytest.mark.parametrize("words", [[], ["--all"], ["--switches"]])
def test_a_device_that_the_machine_does_not_have_is_one_line_and_nothing_is_compared(
    words: list[str], parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(device: str) -> None:
        raise InvalidInput("device", device, "an available device")

    monkeypatch.setattr(registry, "check_here", gone)
    result = parts.check(*words, "--device", "cuda:1")
    assert (result.exit_code, parts.handed) == (125, [])
    assert result.stderr == "cannot check: device: got cuda:1, expected an available device\n"


def test_the_captures_of_a_device_are_asked_for_with_scenarios_on_it(parts: Parts) -> None:
    parts.battery = replace(parts.battery, scenarios={name: SCENARIOS["ode_plain"] for name in ("alpha", "beta")})
    assert parts.check("--device", "cuda", "beta").exit_code == 0
    (scenarios, play, _, names, _, device) = dict(parts.handed)["captures"]
    assert {name: scenario.device for name, scenario in scenarios.items()} == {"alpha": "cuda", "beta": "cuda"}
    assert (play, names, device) == (parts.battery.play, ("beta",), "cuda")


def test_captures_of_another_gpu_are_no_verdict_and_the_other_parts_decide(parts: Parts) -> None:
    skipped = captures.Result("beta", Verdict.NOT_GATED)
    parts.played = Report((skipped,), "gpu", {}, {}, ("kernels",))
    assert parts.check().exit_code == 125
    assert parts.check("--all").exit_code == 0
    parts.switched = [replace(SWITCHED, verdict=Verdict.MOVED)]
    result = parts.check("--all")
    assert result.exit_code == 1
    assert "1 not_gated (gpu, not compared: differs in kernels from where they were blessed)" in result.stdout


@pytest.mark.parametrize(("switched", "rows_of_it", "code"), [
    ([replace(SWITCHED, acted=False)], True, 0),
    ([replace(SWITCHED, acted=False)], False, 125),
    ([replace(SWITCHED, verdict=Verdict.MOVED)], False, 1),
    ([SWITCHED], False, 0),
])  # fmt: skip
def test_the_exit_code_is_of_all_that_was_compared(
    switched: list[SwitchResult], rows_of_it: bool, code: int, parts: Parts
) -> None:
    parts.switched, parts.costs = switched, replace(COSTS, gated=rows_of_it)
    assert parts.check("--switches", "--costs").exit_code == code
