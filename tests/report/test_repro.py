"""The command of a difference asks for the same comparison again: executor, file, decoder, dtype, device, captures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.core import ParameterSource

from harness.commands.check import check_command
from harness.parity.baselines.bless import BATTERY
from harness.parity.baselines.captures import CAPTURES, Report
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine
from harness.parity.proofs.switches import EVERY, SwitchResult
from harness.registry import ExecutorKind
from harness.report.differences import differences

MISSING = Report((Result("ode_plain", Verdict.MISSING, detail="no file"),), "here", {})


def asked(command: str) -> dict[str, Any]:
    """The options that a command of `check` gives, as click reads them; those with their defaults left out."""
    program, words = command.split(" check ")
    assert program == "python -m harness"
    context = check_command.make_context("check", shlex.split(words))
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return {name: context.params[name] for name in given}


@pytest.mark.parametrize(
    ("device", "given"), [("cpu", {}), ("cuda", {"device": "cuda"}), ("cuda:1", {"device": "cuda:1"})]
)
def test_captures_of_a_device_are_compared_on_it_again(device: str, given: dict[str, str]) -> None:
    (found,) = differences(MISSING, [], BATTERY.on(device), CAPTURES)
    assert asked(found.repro) == {"only": ("ode_plain",), **given}


def test_captures_of_another_folder_are_compared_again() -> None:
    (found,) = differences(MISSING, [], BATTERY, Path("my captures"))
    assert asked(found.repro) == {"only": ("ode_plain",), "captures": Path("my captures")}


def test_a_stray_file_is_no_scenario_and_shows_in_a_check_of_all_of_them() -> None:
    stray = Report((Result("old.safetensors", Verdict.ORPHAN, detail="not in the manifest"),), "here", {})
    (found,) = differences(stray, [], BATTERY, Path("my captures"))
    assert asked(found.repro) == {"captures": Path("my captures")}


@pytest.mark.parametrize(("engine", "given"), [
    (Engine(ExecutorKind.ONNX), {}),
    (Engine(ExecutorKind.ONNX, decoder="tiny", dtype="float16"), {"decoder": ("tiny",), "dtype": "float16"}),
    (Engine(ExecutorKind.ONNX, Path(__file__), "tiny", device="cuda"),
     {"engine": Path(__file__), "decoder": ("tiny",), "device": "cuda"}),
])  # fmt: skip
def test_a_compiled_decoder_is_compared_again_as_it_was(engine: Engine, given: dict[str, Any]) -> None:
    played = EngineReport((OnEngine("ode_plain", Verdict.MOVED, detail="far"),), engine, "here")
    (found,) = differences(played, [], BATTERY, CAPTURES)
    assert asked(found.repro) == {"only": ("ode_plain",), "executor": (engine.kind,), **given}


def test_a_switch_that_acted_in_no_scenario_is_compared_in_all_of_them_again() -> None:
    idle = SwitchResult("fused_cfg", EVERY, ExecutorKind.STATIC, "tiny", "float32", "cpu", Verdict.NOT_GATED, False)
    (found,) = differences(None, [idle], BATTERY, CAPTURES)
    given = {"switch": ("fused_cfg",), "executor": ("static",), "decoder": ("tiny",)}
    assert asked(found.repro) == {"switches": True, **given}
