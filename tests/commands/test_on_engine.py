"""`--executor onnx|tensorrt --engine PATH`: what the commands do with it, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands.on_engine import CannotRun, device, probed
from harness.engine.aot import bindings
from harness.engine.aot.export import digest
from harness.parity.baselines.bless import BATTERY
from tests.onnx_files import DIMS, written

PROBE = ["--decoder", "affine", "--frames", "5", "--max-rows", "2"]
BENCH = ["--decoder", "tiny", "--duration", "0.44", "--ticks", "4", "--warmup", "2", "--steps", "2", "--depth", "2"]
COMMANDS = {"check": ["--only", "ace_tiny_plain"], "probe": PROBE, "bench": BENCH}


def invoke(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [command, *COMMANDS[command], *arguments], obj=BATTERY)


def tiny() -> str:
    return str(registry.onnx_file("tiny"))


def frozen(tmp_path: Path) -> str:
    dims = {name: (2, *rest) for name, (_, *rest) in DIMS.items()}
    return str(written(tmp_path / "frozen.onnx", **dims))


# What they do.


def test_check_plays_the_battery_on_an_engine(tmp_path: Path) -> None:
    arguments = ["--executor", "onnx", "--engine", tiny(), "ode_plain", "--json", str(tmp_path / "r.json")]
    result = invoke("check", *arguments)
    assert result.exit_code == 0, result.output
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith(f"2 scenarios on onnx {tiny()}: 1 tolerance, 1 outside_profile")
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(r["name"], r["verdict"]) for r in report["scenarios"]] == [
        ("ode_plain", "outside_profile"),
        ("ace_tiny_plain", "tolerance"),
    ]
    assert report["engine"]["file"] == tiny() and report["summary"]["passes"]


def test_check_exports_the_decoder_where_no_file_is_named_and_plays_everything_on_the_one_that_is() -> None:
    result = CliRunner().invoke(main, ["check", "--executor", "onnx", "--decoder", "tiny", "cfg_full"], obj=BATTERY)
    assert result.exit_code == 0, result.output
    assert "1 scenario on onnx: 1 tolerance" in result.stdout
    result = CliRunner().invoke(main, ["check", "--executor", "onnx", "cfg_full"], obj=BATTERY)
    assert "1 scenario on onnx: 1 exact" in result.stdout


def test_check_that_compares_nothing_could_not_run() -> None:
    arguments = ["check", "--executor", "onnx", "--engine", tiny(), "cfg_full"]
    result = CliRunner().invoke(main, arguments, obj=BATTERY)
    assert result.exit_code == 125, result.output
    assert "1 outside_profile" in result.stdout


def test_check_compares_switches_on_an_engine_and_nothing_outside_it(tmp_path: Path) -> None:
    arguments = ["--switches", "--executor", "onnx", "--engine", tiny(), "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(main, ["check", "--only", "cfg_full", *arguments], obj=BATTERY)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["summary"]["verdicts"] == {"exact": 4, "outside_profile": 4}
    assert {r["decoder"] for r in report["switches"] if r["verdict"] == "exact"} == {"tiny"}


def test_switches_that_are_all_outside_an_engine_could_not_be_compared() -> None:
    arguments = ["check", "--switches", "--executor", "onnx", "--engine", tiny(), "--decoder", "affine", "cfg_full"]
    assert CliRunner().invoke(main, arguments, obj=BATTERY).exit_code == 125


def test_probe_measures_an_engine(tmp_path: Path) -> None:
    file = str(registry.onnx_file("affine"))
    arguments = ["--executor", "onnx", "--engine", file, "--captures", str(tmp_path), "--json", str(tmp_path / "r")]
    result = invoke("probe", *arguments)
    assert result.exit_code == 125, result.output
    findings = json.loads((tmp_path / "r").read_text())["findings"]
    assert [finding["subject"] for finding in findings] == [
        f"affine/onnx/float32/T5/max2/{digest(Path(file))[:12]}",
        f"affine/onnx/float32/T5/pinned2/{digest(Path(file))[:12]}",
    ]
    assert all(finding["holds"]["rows_alone"] == [1, 2] for finding in findings)
    assert all(finding["holds"]["padding"] == finding["fails"]["padding"] == [] for finding in findings)


@pytest.mark.parametrize("named", [True, False])
def test_bench_times_the_engine_s_own_runs_beside_the_decoder(tmp_path: Path, named: bool) -> None:
    engine = ["--engine", tiny()] if named else []
    result = invoke("bench", "--executor", "onnx", *engine, "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["load"]["engine"] == (tiny() if named else None)
    assert document["bare"]["forms"].keys() == document["beyond_ms"].keys() == {"eager", "engine"}


# What they refuse.


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("arguments", "words"), [
    (["--executor", "eager", "--engine", "FILE"], "--engine goes with one --executor"),
    (["--engine", "FILE"], "--engine goes with one --executor"),
    (["--executor", "tensorrt"], "--executor tensorrt needs --engine PATH"),
    (["--executor", "onnx", "--engine", "none.onnx"], "none.onnx"),
    (["--executor", "onnx", "--engine", "."], "is a directory"),
    (["--executor", "onnx", "--device", "cuda"], "device"),
])  # fmt: skip
def test_a_file_and_a_kind_that_do_not_go_together_are_a_usage_error(
    command: str, arguments: list[str], words: str, tmp_path: Path
) -> None:
    file = str(written(tmp_path / "a.onnx"))
    result = invoke(command, *[file if each == "FILE" else each for each in arguments])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_does_not_exist_is_a_usage_error(command: str) -> None:
    result = invoke(command, "--executor", "onnx", "--device", "nonsense")
    assert result.exit_code == 2, result.output
    assert "device: got 'nonsense'" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_report_that_cannot_be_written_could_not_run(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    where = ["--captures", str(tmp_path)] if command == "probe" else []
    result = invoke(command, "--executor", "onnx", "--json", str(tmp_path / "file" / "r.json"), *where)
    assert result.exit_code == 125, result.output
    assert "cannot write" in result.stderr and not isinstance(result.exception, OSError)


@pytest.mark.parametrize(("command", "arguments"), [
    ("check", ["--executor", "onnx", "--executor", "eager"]),
    ("check", ["--executor", "onnx", "--switch", "fused_cfg"]),
    ("check", ["--executor", "onnx", "--decoder", "tiny", "--decoder", "affine"]),
    ("check", ["--executor", "onnx", "--decoder", "none"]),
    ("check", ["--executor", "onnx", "--costs"]),
    ("check", ["--switches", "--executor", "onnx", "--engine", "FILE", "--decoder", "tiny", "--decoder", "affine"]),
    ("probe", ["--executor", "onnx", "--engine", "FILE", "--decoder", "tiny"]),
])  # fmt: skip
def test_an_engine_is_one_and_of_one_decoder(command: str, arguments: list[str], tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.onnx"))
    result = invoke(command, *[file if each == "FILE" else each for each in arguments])
    assert result.exit_code == 2, result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_frozen_batch_could_not_run_and_the_message_says_so(command: str, tmp_path: Path) -> None:
    result = invoke(command, "--executor", "onnx", "--engine", frozen(tmp_path))
    assert result.exit_code == 125
    assert f"cannot {command}: " in result.stderr and "the batch is frozen to 2" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("installed", "words"), [
    (False, "tensorrt is not installed: pip install 'stream-harness[trt]'"),
    (True, "torch sees no CUDA GPU here"),
])  # fmt: skip
def test_a_plan_without_what_runs_it_could_not_run(
    command: str, installed: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bindings, "_module_name", lambda _flavour: "json" if installed else None)
    monkeypatch.setattr(json, "__version__", "1", raising=False)
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"plan")
    result = invoke(command, "--executor", "tensorrt", "--engine", str(plan))
    assert result.exit_code == 125, result.output
    assert words in " ".join(result.stderr.split())


def test_what_cannot_run_is_raised_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "_module_name", lambda _flavour: None)
    asked = {"executor": ["tensorrt"], "engine": tmp_path / "a.plan", "device": "cpu", "decoders": ["tiny"]}
    with pytest.raises(CannotRun, match="^tensorrt is not installed"):
        probed(asked)


@pytest.mark.parametrize("command", ["probe", "bench"])
def test_a_decoder_that_the_file_was_not_made_of_could_not_run(command: str) -> None:
    other = ["--decoder", "affine"] if command == "bench" else []
    result = invoke(command, "--executor", "onnx", "--engine", tiny(), *other)
    assert result.exit_code == 125, result.output
    assert "channels D: got 4, the compiled decoder takes 8" in result.stderr


def test_a_device_that_tensorrt_is_not_on_becomes_the_gpu() -> None:
    assert device(["tensorrt"], "cpu") == "cuda"
    assert device(["tensorrt"], "cuda:1") == "cuda:1"
    assert device(["onnx"], "cpu") == device(["onnx", "tensorrt"], "cpu") == device([], "cpu") == "cpu"


def test_bench_takes_its_dtype_from_the_engine(tmp_path: Path) -> None:
    file = registry.onnx_file("tiny", dtype="float16")
    short = ["--ticks", "2", "--warmup", "8", "--duration", "0.4", "--depth", "1", "--json", str(tmp_path / "r")]
    result = invoke("bench", "--executor", "onnx", "--engine", str(file), *short)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r").read_text())["load"]["dtype"] == "float16"
    assert f"tiny, float16, onnx {file.name}" in " ".join(result.output.split())
