"""`export` and `build`, as one types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import build as build_module
from harness.commands import export as command
from harness.engine.aot import bindings, closeness
from harness.engine.aot.build import Asked, Built, Sizes
from harness.engine.aot.closeness import Closeness, Distance
from harness.engine.aot.export import Exported, digest
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import PackageMissing
from tests.commands.test_tables import rows

SIZES = ["--max-batch", "4", "--frames", "2", "16", "100", "--tokens", "1", "64", "128"]


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_decoder_is_exported_compared_and_reported(tmp_path: Path) -> None:
    said = typed("export", "--decoder", "tiny", "--json", tmp_path / "r.json", tmp_path / "tiny.onnx")
    assert said.exit_code == 0, said.output
    assert "worst error" in said.output.splitlines()[-1]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["sha256"] == digest(tmp_path / "tiny.onnx")
    assert [d["shape"] for d in report["distances"]] == [list(shape) for shape in closeness.SHAPES]
    assert 0 < report["file"] <= report["factor"] * report["torch"]
    assert (report["decoder"], report["dtype"], report["mask"], report["factor"]) == ("tiny", "float32", True, 2.0)


def test_a_file_that_is_too_far_from_float64_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    far = Closeness((Distance((1, 2, 1), 16, 1.0, 0.5, 1e-7, 0.7),))
    monkeypatch.setattr(closeness, "measure", lambda *_args, **_kwargs: far)
    # As `export` does with a finished file, which it does not keep then.
    monkeypatch.setattr(command, "export", lambda _decoder, path, *, mask, accept: accept(path))
    said = typed("export", tmp_path / "tiny.onnx")
    assert said.exit_code == 1
    assert said.stderr.startswith("refused: the file's distance from float64 is 0.5")
    assert said.stdout == ""


def test_each_distance_from_float64_stands_under_the_name_of_what_is_so_far_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def exported(_decoder: Any, path: Path, *, mask: bool, accept: Callable[[Path], None]) -> Exported:
        path.touch()
        accept(path)
        return Exported(path, torch.float32, 3, 0, None, mask)

    near = Closeness((Distance((1, 2, 3), 16, scale=0.5, file=2e-7, torch=3e-7, worst=4e-7),))
    monkeypatch.setattr(closeness, "measure", lambda *_args, **_kwargs: near)
    monkeypatch.setattr(command, "export", exported)
    assert rows(typed("export", tmp_path / "tiny.onnx").output) == [
        ["rows, frames, tokens", "velocity", "file", "torch", "worst"],
        ["(1, 2, 3)", "0.5", "2e-07", "3e-07", "4e-07"],
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--decoder", "affine"], "decoder: got affine"),
        (["--decoder", "nowhere"], "decoder: got 'nowhere'"),
        (["--dtype", "float64"], "Invalid value for '--dtype'"),
    ],
)
def test_what_cannot_be_exported_is_a_usage_error(tmp_path: Path, words: list[str], said: str) -> None:
    found = typed("export", *words, tmp_path / "a.onnx")
    assert found.exit_code == 2
    assert said in found.output


def test_an_exporter_that_is_not_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(*_args: Any, **_kwargs: Any) -> None:
        raise PackageMissing("onnx", "onnx")

    monkeypatch.setattr(command, "export", missing)
    found = typed("export", tmp_path / "a.onnx")
    assert found.exit_code == 125
    assert "cannot export: onnx is not installed: pip install 'stream-harness[onnx]'" in found.output


def test_an_engine_is_built_used_again_and_built_anew_where_a_field_differs(tmp_path: Path) -> None:
    file = registry.onnx_file("tiny", dtype="bfloat16")
    plan = tmp_path / "tiny.plan"
    first = typed("build", *SIZES, "--compute-capability", "8.9", file, plan, "--json", tmp_path / "r.json")
    assert first.exit_code == 0, first.output
    assert "gemm" in first.output
    assert f"{plan}: built" in first.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["reused"], report["differs"], report["dtypes"]["velocity"]) == (False, [], "bfloat16")
    assert json.loads((tmp_path / "tiny.plan.json").read_text())["layers"] == report["layers"]
    assert f"{plan}: used again" in typed("build", *SIZES, "--compute-capability", "8.9", file, plan).output
    other = typed("build", *SIZES, "--compute-capability", "8.6", file, plan).output
    assert "could not be used again: compute_capability" in other
    assert f"{plan}: built" in other


@pytest.mark.parametrize(("differs", "reused"), [((), True), ((), False), (("gpu", "driver"), False)])
def test_a_build_says_its_layers_by_kind_why_it_was_anew_and_writes_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differs: tuple[str, ...], reused: bool
) -> None:
    layers = (Layer("a", "gemm"), Layer("b"), Layer("c", "kgen"), Layer("d", "kgen", "tactic", 1, ("n",)))
    known = Sidecar("1", "0", "tensorrt-rtx", "1.7", "8.9", None, None, {}, {}, 2, "detailed", layers)
    plan, report = tmp_path / "a.plan", tmp_path / "r.json"
    plan.write_bytes(b"plan")
    monkeypatch.setattr(build_module, "build", lambda *_args: Built(plan, known, reused, differs))
    said = typed("build", tmp_path / "a.onnx", "--json", report)
    assert said.exit_code == 0, said.output
    assert rows(said.output) == [["layers of kind", "number"], ["kgen", "2"], ["gemm", "1"], ["not said", "1"]]
    why = ["the plan that was there could not be used again: gpu, driver"] if differs else []
    state = "used again" if reused else "built"
    assert said.stdout.splitlines()[-1 - len(why) :] == [
        *why,
        f"{plan}: {state}, 4 bytes, 4 layers, tensorrt-rtx 1.7 for compute capability 8.9",
    ]
    written = {"plan": str(plan), "reused": reused, "differs": list(differs), **asdict(known)}
    assert json.loads(report.read_text()) == json.loads(json.dumps(written))


def test_an_engine_is_asked_for_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ask(_onnx: Path, _plan: Path, asked: Asked) -> None:
        seen.append(asked)
        raise PackageMissing("tensorrt", "trt")

    seen: list[Asked] = []
    monkeypatch.setattr(build_module, "build", ask)
    typed("build", *SIZES, "--flavour", "tensorrt-rtx", "--compute-capability", "8.9", tmp_path / "a.onnx")
    assert seen == [Asked(4, Sizes(2, 16, 100), Sizes(1, 64, 128), "tensorrt-rtx", "8.9")]


def test_the_help_says_which_three_sizes_a_range_is_given_by() -> None:
    said = typed("build", "--help").output
    assert "--frames MIN OPT MAX" in said and "--tokens MIN OPT MAX" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frames", "2", "15", "100"], "frames: got 15, expected at least 2, a multiple of 2"),
        (["--compute-capability", "1.0"], "compute_capability: got 1.0"),
        (["--compute-capability", "nine"], "compute_capability: got 'nine'"),
        (["--max-batch", "0"], "max_rows: got 0"),
    ],
)
def test_an_engine_that_cannot_be_asked_for_is_a_usage_error(tmp_path: Path, words: list[str], said: str) -> None:
    found = typed("build", "--compute-capability", "8.9", *words, registry.onnx_file("tiny"), tmp_path / "a.plan")
    assert found.exit_code == 2
    assert said in found.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--device", "nonsense"], ["--device", "cuda:99"]])
def test_a_device_that_is_not_here_is_a_usage_error(tmp_path: Path, words: list[str]) -> None:
    found = typed("export", *words, tmp_path / "a.onnx")
    assert found.exit_code == 2, found.output
    assert "device: got" in found.output


@pytest.mark.parametrize("words", [
    ["export", "FILE/a.onnx"],
    ["export", "a.onnx", "--json", "FILE/r.json"],
    ["build", "--compute-capability", "8.9", *SIZES, "ONNX", "FILE/a.plan"],
    ["build", "--compute-capability", "8.9", *SIZES, "ONNX", "a.plan", "--json", "FILE/r.json"],
])  # fmt: skip
def test_what_cannot_be_written_is_said_and_no_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    places = {"FILE": "file", "ONNX": str(registry.onnx_file("tiny"))}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    found = typed(*words)
    assert found.exit_code == 125, found.output
    assert f"cannot write {words[-1]}: " in found.stderr


def test_tensorrt_that_is_not_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bindings, "_module_name", lambda _flavour: None)
    found = typed("build", registry.onnx_file("tiny"), tmp_path / "a.plan")
    assert found.exit_code == 125
    assert "cannot build: tensorrt is not installed: pip install 'stream-harness[trt]'" in found.output
