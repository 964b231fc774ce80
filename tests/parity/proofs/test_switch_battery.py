"""The battery, every switch on against off, and what a check says of a switch that is broken or idle."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from harness.cli import main
from harness.engine import execute
from harness.engine.switches import SWITCHES
from harness.parity.baselines.bless import BATTERY
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import SCENARIOS, decoder
from harness.parity.proofs.switches import EVERY, Pair, SwitchResult, check_switches, idle, pairs
from harness.registry import COMPARED, ExecutorKind, compared
from tests.parity.strategies import ALWAYS

FEW = {name: SCENARIOS[name] for name in ("ace_tiny_plain", "ace_tiny_cfg", "mixed_ring")}


def check(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["check", "--switches", *arguments], obj=BATTERY)


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_scenario_is_the_same_with_a_switch_on_and_off(switch: str) -> None:
    results = check_switches(pairs(switches=[switch], decoders=["affine"]))
    assert [r for r in results if r.verdict is not Verdict.EXACT] == []
    assert {r.scenario for r in results} == set(SCENARIOS)


def test_the_real_architecture_is_the_same_with_a_switch_on_and_off() -> None:
    results = check_switches(pairs(FEW, decoders=["tiny"]), FEW)
    assert [r for r in results if r.verdict is not Verdict.EXACT] == []
    assert {r.switch for r in results if r.acted} == set(SWITCHES)


def test_every_switch_is_compared_where_it_can_act() -> None:
    found = {(pair.switch, pair.executor) for pair in pairs()}
    always = {(switch, kind) for switch in ALWAYS for kind in (*COMPARED, ExecutorKind.CUDA_GRAPH)}
    assert found == {*always, *((switch, ExecutorKind.DEFERRED) for switch in SWITCHES if switch not in ALWAYS)}
    assert len(pairs()) == len(found) * 2 * len(SCENARIOS)


def test_a_switch_that_no_scenario_moves_is_no_pass() -> None:
    plain = {"ode_plain": SCENARIOS["ode_plain"]}
    chosen = pairs(plain, switches=["fused_cfg"], executors=["eager"], decoders=["affine"])
    (compared, gap) = check_switches(chosen, plain)
    assert (compared.verdict, compared.acted) == (Verdict.EXACT, False)
    assert (gap.verdict, gap.scenario, gap.verdict.passes) == (Verdict.NOT_GATED, EVERY, False)
    assert check_switches(chosen, plain, whole=False) == [compared]


def test_where_a_switch_acted_says_nothing_of_another_executor_decoder_dtype_or_device() -> None:
    acted = SwitchResult("fused_cfg", "s", ExecutorKind.EAGER, "affine", "float32", "cpu", Verdict.EXACT, True)
    another = {"executor": ExecutorKind.STATIC, "decoder": "tiny", "dtype": "float16", "device": "cuda"}
    silent = [replace(acted, acted=False, **{name: value}) for name, value in another.items()]
    assert [replace(gap, scenario="s", verdict=Verdict.EXACT, detail="") for gap in idle([acted, *silent])] == silent


@pytest.fixture(name="broken")
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    together = execute._step_together

    def late(plans: Any, states: Any, velocities: Any) -> Any:
        return together(plans, states, {index: v * 1.001 for index, v in velocities.items()})

    monkeypatch.setattr(execute, "_step_together", late)


@pytest.mark.usefixtures("broken")
def test_a_broken_switch_exits_with_1_and_the_json_says_where(tmp_path: Path) -> None:
    result = check("--switch", "integrator", "--decoder", "affine", "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    moved = {(r["scenario"], r["executor"]): r["detail"] for r in report["switches"] if r["verdict"] == "moved"}
    assert ("ode_plain", "static") in moved
    assert "differ at tick 0, slot 0, stage step" in moved["ode_plain", "eager"]
    assert ("sde_plain", "eager") not in moved
    assert not report["summary"]["passes"]
    assert report["switches"][0].keys() >= {"switch", "scenario", "executor", "decoder", "verdict"}


def test_on_a_gpu_every_executor_but_the_eager_one_has_a_stream_to_join() -> None:
    found = {(pair.switch, pair.executor) for pair in pairs(device="cuda")}
    assert found == {
        *((s, k) for s in ALWAYS for k in compared("cuda")),
        *(("joined_stream", k) for k in ("static", "cuda_graph", "compiled_graph")),
    }


def test_another_decoder_and_dtype_are_compared_where_they_are_asked_for(tmp_path: Path) -> None:
    options = ["--decoder", "tiny", "--dtype", "bfloat16", "--only", "cfg_full", "--switch", "fused_cfg"]
    result = check(*options, "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "r.json").read_text())["switches"]
    assert {(row["decoder"], row["dtype"], row["device"]) for row in rows} == {("tiny", "bfloat16", "cpu")}
    asked = replace(SCENARIOS["cfg_full"], decoder="tiny", dtype="bfloat16")
    assert decoder(asked).dtype is torch.bfloat16
    assert (asked.sizes.channels, asked.sizes.encoder_dim) == (8, 32)


@pytest.mark.parametrize("options", [["--decoder", "none"], ["--dtype", "none"]])
def test_what_is_no_decoder_or_dtype_is_a_wrong_command_line(options: list[str]) -> None:
    assert check(*options).exit_code == 2


@pytest.mark.parametrize("options", [["--dtype", "bfloat16"], ["--decoder", "2b"]])
def test_captures_are_compared_with_the_decoder_they_were_made_with(options: list[str]) -> None:
    assert CliRunner().invoke(main, ["check", *options], obj=BATTERY).exit_code == 2


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("model", "dtype"), [("affine", "float32"), ("tiny", "bfloat16")])
def test_the_repro_of_a_broken_switch_shows_it_again(model: str, dtype: str) -> None:
    few = {"ode_plain": SCENARIOS["ode_plain"]}
    chosen = pairs(few, switches=["integrator"], executors=["eager"], decoders=[model], dtype=dtype)
    detail = check_switches(chosen)[0].detail
    command = shlex.split(detail.splitlines()[-1])
    assert command[:4] == ["python", "-m", "harness", "check"]
    again = CliRunner().invoke(main, command[3:], obj=BATTERY)
    assert again.exit_code == 1
    assert "1 comparisons of a switch on and off: 1 moved" in again.stdout


@pytest.mark.parametrize(("dtype", "device"), [("bfloat16", "cpu"), ("float32", "cuda")])
def test_a_repro_says_dtype_and_device_where_one_of_them_is_unusual(dtype: str, device: str) -> None:
    usual = Pair("integrator", "ode_plain", ExecutorKind.EAGER, "tiny")
    unusual = replace(usual, dtype=dtype, device=device)
    assert unusual.repro() == f"{usual.repro()} --dtype {dtype} --device {device}"


def test_switches_that_agree_exit_with_0_and_compare_no_captures(tmp_path: Path) -> None:
    result = check("--only", "cfg_full", "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["scenarios"], len(report["switches"])) == ([], 26)
    assert "26 comparisons of a switch on and off: 26 exact" in result.stdout


def test_all_checks_captures_and_switches(tmp_path: Path) -> None:
    arguments = ["check", "--all", "--only", "cfg_full", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(main, arguments, obj=BATTERY)
    report = json.loads((tmp_path / "r.json").read_text())
    assert ([r["name"] for r in report["scenarios"]], len(report["switches"])) == (["cfg_full"], 26)
    assert result.exit_code == 0


def test_a_choice_of_switches_without_switches_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["check", "--switch", "fused_cfg"], obj=BATTERY).exit_code == 2


@pytest.mark.parametrize("wrong", [["--switch", "joined_stream", "--executor", "eager"], ["--switch", "turbo"]])
def test_a_switch_that_cannot_be_compared_so_is_a_usage_error(wrong: list[str]) -> None:
    assert check(*wrong).exit_code == 2


def test_a_switch_that_acted_in_no_scenario_is_one_gap_for_each_combination_however_many_scenarios_there_are() -> None:
    silent = SwitchResult("fused_cfg", "a", ExecutorKind.EAGER, "affine", "float32", "cpu", Verdict.EXACT, False)
    results = [
        replace(silent, scenario=name, switch=switch) for name in "abc" for switch in ("fused_cfg", "integrator")
    ]
    assert [(gap.switch, gap.scenario) for gap in idle(results)] == [("fused_cfg", EVERY), ("integrator", EVERY)]
    assert [gap.switch for gap in idle([*results, replace(results[0], acted=True)])] == ["integrator"]
