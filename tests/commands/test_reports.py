"""What `export` and `build` print and write, whole, of files that nobody made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import build as build_module
from harness.commands import export as export_module
from harness.engine.aot import closeness
from harness.engine.aot.build import Asked, Built, Sizes
from harness.engine.aot.closeness import Closeness, Distance
from harness.engine.aot.export import Exported
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import BuildFailed, EngineError, ExportRefused, Inaccurate, InvalidInput
from tests.commands.test_tables import rows

NEAR = Closeness((
    Distance((1, 2, 3), 16, scale=0.5, file=2e-7, torch=3e-7, worst=4e-7),
    Distance((2, 4, 5), 64, scale=0.25, file=3e-7, torch=5e-7, worst=9e-7),
    Distance((2, 4, 6), 32, scale=0.75, file=1e-7, torch=6e-7, worst=8e-7),
    Distance((3, 2, 1), 16, scale=0.125, file=5e-7, torch=7e-7, worst=5e-7),
))  # fmt: skip


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


class Exporting:
    """`export` without a decoder: notes what is asked of each step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.exported: list[tuple[Any, ...]] = []
        self.measured: list[tuple[Any, ...]] = []
        self.decoder: Any = object.__new__(AceStepDecoder)
        self.fails: Exception | None = None

        def decoder(name: str, *, dtype: torch.dtype, device: str) -> Any:
            self.made.append((name, dtype, device))
            return self.decoder

        def export(made: Any, path: Path, *, mask: bool, accept: Callable[[Path], None]) -> Exported:
            if self.fails:
                raise self.fails
            self.exported.append((made, path, mask))
            path.write_bytes(b"seven b")
            accept(path.with_name("not yet there"))
            return Exported(path, torch.float32, 31, 7, None, mask)

        def measure(file: Path, made: Any, *, mask: bool) -> Closeness:
            self.measured.append((file.name, made, mask))
            return NEAR

        patch.setattr(registry, "decoder", decoder)
        patch.setattr(export_module, "export", export)
        patch.setattr(closeness, "measure", measure)


@pytest.fixture(name="exporting")
def _exporting(monkeypatch: pytest.MonkeyPatch) -> Exporting:
    return Exporting(monkeypatch)


@pytest.mark.parametrize(("words", "made", "mask"), [
    ([], ("tiny", torch.float32, "cpu"), True),
    (["--decoder", "mid", "--dtype", "bfloat16", "--device", "cuda:1"], ("mid", torch.bfloat16, "cuda:1"), True),
    (["--dtype", "float16", "--no-mask"], ("tiny", torch.float16, "cpu"), False),
])  # fmt: skip
def test_every_option_of_an_export_reaches_decoder_export_and_comparison(
    words: list[str], made: tuple[Any, ...], mask: bool, exporting: Exporting, tmp_path: Path
) -> None:
    file = tmp_path / "a.onnx"
    assert typed("export", *words, file).exit_code == 0
    assert exporting.made == [made]
    assert exporting.exported == [(exporting.decoder, file, mask)]
    assert exporting.measured == [("not yet there", exporting.decoder, mask)]


@pytest.mark.parametrize("mask", [True, False])
def test_an_export_is_reported_whole(exporting: Exporting, mask: bool, tmp_path: Path) -> None:
    file, report = tmp_path / "a.onnx", tmp_path / "r.json"
    words = ["--decoder", "mid", "--dtype", "bfloat16", "--mask" if mask else "--no-mask"]
    said = typed("export", *words, "--json", report, file)
    assert said.exit_code == 0, said.output
    assert rows(said.stdout) == [
        ["rows, frames, tokens", "velocity", "file", "torch", "worst"],
        ["(1, 2, 3)", "0.5", "2e-07", "3e-07", "4e-07"],
        ["(2, 4, 5)", "0.25", "3e-07", "5e-07", "9e-07"],
        ["(2, 4, 6)", "0.75", "1e-07", "6e-07", "8e-07"],
        ["(3, 2, 1)", "0.125", "5e-07", "7e-07", "5e-07"],
    ]
    gate = f"worst error 9e-07, root mean square {NEAR.file:.3g} of at most 2 x {NEAR.torch:.3g}"
    assert said.stdout.splitlines()[-1] == f"{file}: 31 nodes, 7 bytes, {gate}"
    assert json.loads(report.read_text()) == {
        "path": str(file),
        "sha256": sha256(b"seven b").hexdigest(),
        "nodes": 31,
        "bytes": 7,
        "decoder": "mid",
        "dtype": "bfloat16",
        "mask": mask,
        "file": NEAR.file,
        "torch": NEAR.torch,
        "worst": 9e-7,
        "factor": 2.0,
        "distances": [{**asdict(each), "shape": list(each.shape)} for each in NEAR.distances],
    }
    assert len({NEAR.file, NEAR.torch, 9e-7}) == 3


FAILURES = [
    (InvalidInput("frames", 3, "an even one"), 2, "Error: frames: got 3, expected an even one\n"),
    (Inaccurate("too far"), 1, "refused: too far\n"),
    (ExportRefused("frozen"), 2, "refused: frozen\n"),
    (BuildFailed("no kernel"), 125, "cannot {}: no kernel\n"),
    (EngineError("no driver"), 125, "cannot {}: no driver\n"),
    (OSError("no space left"), 125, "cannot {}: no space left\n"),
]


@pytest.mark.parametrize(("error", "code", "said"), FAILURES)
@pytest.mark.parametrize("command", ["export", "build"])
def test_what_fails_is_said_in_one_line_and_leaves_no_report(
    command: str, error: Exception, code: int, said: str, exporting: Exporting, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def build(*_: Any) -> Any:
        raise error

    exporting.fails = error
    monkeypatch.setattr(build_module, "build", build)
    found = typed(command, "--json", tmp_path / "r.json", tmp_path / "a.onnx")
    assert (found.exit_code, found.stdout) == (code, "")
    assert found.stderr.endswith(said.format(command))
    assert code == 2 or found.stderr == said.format(command)
    assert list(tmp_path.iterdir()) == []


# Build.

LAYERS = tuple(Layer(f"l{min(n, 5)}", kind) for n, kind in enumerate(["copy", "", "gemm", "gemm", "", "gemm", "gemm"]))
SIDECAR = Sidecar("aa", "bb", "tensorrt-rtx", "1.7", "8.9", "a GPU", None, {}, {"velocity": "float16"}, 2, "detailed")


class Building:
    """`build` without TensorRT."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.reused, self.differs = False, ()

        def build(onnx: Path, plan: Path, asked: Asked) -> Built:
            self.asked.append((onnx, plan, asked))
            plan.write_bytes(b"eleven byte")
            return Built(plan, replace(SIDECAR, layers=LAYERS), self.reused, self.differs)

        patch.setattr(build_module, "build", build)


@pytest.fixture(name="building")
def _building(monkeypatch: pytest.MonkeyPatch) -> Building:
    return Building(monkeypatch)


@pytest.mark.parametrize(("onnx", "plan", "target"), [
    ("a.onnx", None, "a.plan"), ("a.b.onnx", None, "a.b.plan"), ("a", None, "a.plan"), ("a.onnx", "b.c", "b.c"),
])  # fmt: skip
def test_a_plan_is_built_where_it_was_asked_for_or_beside_the_file(
    onnx: str, plan: str | None, target: str, building: Building, tmp_path: Path
) -> None:
    said = typed("build", tmp_path / onnx, *([tmp_path / plan] if plan else []))
    assert said.exit_code == 0, said.output
    assert building.asked == [(tmp_path / onnx, tmp_path / target, Asked())]


def test_every_option_of_a_build_reaches_it(building: Building, tmp_path: Path) -> None:
    words = ["--max-batch", "3", "--frames", "4", "6", "8", "--tokens", "9", "10", "11"]
    typed("build", *words, "--flavour", "tensorrt", "--compute-capability", "8.6", tmp_path / "a.onnx")
    assert building.asked[0][2] == Asked(3, Sizes(4, 6, 8), Sizes(9, 10, 11), "tensorrt", "8.6")


@pytest.mark.parametrize(("reused", "differs", "lines"), [
    (False, (), ["{}: built"]),
    (True, (), ["{}: used again"]),
    (False, ("version",), ["the plan that was there could not be used again: version", "{}: built"]),
    (False, ("gpu", "driver"), ["the plan that was there could not be used again: gpu, driver", "{}: built"]),
])  # fmt: skip
def test_a_build_is_reported_whole(
    reused: bool, differs: tuple[str, ...], lines: list[str], building: Building, tmp_path: Path
) -> None:
    building.reused, building.differs = reused, differs
    (tmp_path / "a.onnx").write_bytes(b"four")
    plan, report = tmp_path / "b.plan", tmp_path / "r.json"
    said = typed("build", tmp_path / "a.onnx", plan, "--json", report)
    assert rows(said.stdout) == [["layers of kind", "number"], ["gemm", "4"], ["not said", "2"], ["copy", "1"]]
    end = ", 11 bytes, 7 layers, tensorrt-rtx 1.7 for compute capability 8.9"
    wanted = [line.format(plan) for line in lines]
    assert said.stdout.splitlines()[-len(lines) :] == [*wanted[:-1], wanted[-1] + end]
    assert ("could not be used again" in said.stdout) == bool(differs)
    made = json.loads(json.dumps(asdict(replace(SIDECAR, layers=LAYERS))))
    assert json.loads(report.read_text()) == {
        "plan": str(plan),
        "reused": reused,
        "differs": list(differs),
        **made,
    }
