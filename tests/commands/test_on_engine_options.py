"""Which kinds, files, decoders and devices go together, for each command, and in what words they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import torch

from harness.commands import on_engine
from harness.commands.on_engine import CannotRun, benched, engine_to_check, probed
from harness.engine.aot import bindings, onnx_file
from harness.engine.errors import EngineError, ExportRefused, InvalidInput
from harness.parity.proofs.float64 import Engine
from harness.registry import ExecutorKind
from tests.onnx_files import written

FILE = Path("a.file")
ONE_KIND = "--engine goes with one --executor, onnx or tensorrt: others run the decoder itself"
NEEDS_PLAN = "--executor tensorrt needs --engine PATH, the plan to run"
ALONE = "without --switches, give one --executor, at most one --decoder and no --switch"


@pytest.fixture(name="gpu")
def _gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """TensorRT and a GPU, as far as options can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bindings, "binding", lambda *_: None)
    return monkeypatch


def of_check(*kinds: str, **more: Any) -> dict[str, Any]:
    usual = {"engine": None, "decoder": (), "dtype": "float32", "device": "cpu", "switch": ()}
    return {**usual, "executor": kinds, **more}


def of_probe(*kinds: str, **more: Any) -> dict[str, Any]:
    return {"engine": None, "decoders": (), "device": "cpu", "executor": kinds, **more}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("asked", "engine"), [
    (of_check(), None),
    (of_check("eager"), None),
    (of_check("eager", "static", "deferred", decoder=("tiny", "nowhere"), switch=("fused_cfg",)), None),
    (of_check("onnx"), Engine(ExecutorKind.ONNX)),
    (of_check("onnx", engine=FILE, decoder=("mid",), dtype="float16"),
     Engine(ExecutorKind.ONNX, FILE, "mid", "float16", "cpu")),
    (of_check("onnx", device="cpu:0"), Engine(ExecutorKind.ONNX, device="cpu:0")),
    (of_check("tensorrt", engine=FILE), Engine(ExecutorKind.TENSORRT, FILE, device="cuda")),
    (of_check("tensorrt", engine=FILE, device="cuda:1"), Engine(ExecutorKind.TENSORRT, FILE, device="cuda:1")),
])  # fmt: skip
def test_a_battery_is_played_on_a_compiled_decoder_where_nothing_else_is_asked_for(
    asked: dict[str, Any], engine: Engine | None, alone: bool, gpu: Any
) -> None:
    assert engine_to_check(asked, alone=alone) == (engine if alone else None)


@pytest.mark.parametrize(("asked", "said"), [
    (of_check(engine=FILE), ONE_KIND),
    (of_check("eager", engine=FILE), ONE_KIND),
    (of_check("onnx", "eager", engine=FILE), ONE_KIND),
    (of_check("onnx", "tensorrt", engine=FILE), ONE_KIND),
    (of_check("onnx", "onnx", engine=FILE), ONE_KIND),
    (of_check("tensorrt"), NEEDS_PLAN),
    (of_check("onnx", "tensorrt"), NEEDS_PLAN),
    (of_check("onnx", engine=FILE, decoder=("tiny", "mid")),
     "--engine goes with one --decoder, from which the file was made, got 2"),
    (of_check("onnx", device="cuda"), "device: got 'cuda', expected 'cpu', where executors of the kind onnx run"),
    (of_check("tensorrt", engine=FILE, device="cpu:0"),
     "device: got 'cpu:0', expected 'cuda', where executors of the kind tensorrt run"),
    (of_check("eager", "onnx", device="cuda"),
     "device: got 'cuda', expected 'cpu', where executors of the kind onnx run"),
])  # fmt: skip
@pytest.mark.parametrize("alone", [True, False])
def test_what_no_check_can_run_is_refused_whatever_is_asked_beside(
    asked: dict[str, Any], said: str, alone: bool, gpu: Any
) -> None:
    with pytest.raises(click.UsageError) as refused:
        engine_to_check(asked, alone=alone)
    assert refused.value.message == said


@pytest.mark.parametrize("asked", [
    of_check("onnx", "eager"), of_check("eager", "onnx"), of_check("onnx", decoder=("tiny", "mid")),
    of_check("onnx", switch=("fused_cfg",)), of_check("onnx", "onnx"),
])  # fmt: skip
def test_alone_one_compiled_decoder_is_checked(asked: dict[str, Any], gpu: Any) -> None:
    with pytest.raises(click.UsageError) as refused:
        engine_to_check(asked, alone=True)
    assert refused.value.message == ALONE
    assert engine_to_check(asked, alone=False) is None


def test_a_decoder_must_have_a_name_or_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="decoder: got 'nowhere'"):
        engine_to_check(of_check("onnx", decoder=("nowhere",)), alone=True)
    found = engine_to_check(of_check("onnx", decoder=(str(tmp_path),)), alone=True)
    assert found == Engine(ExecutorKind.ONNX, None, str(tmp_path))


@pytest.mark.parametrize(("asked", "found"), [
    (of_probe(), (None, "cpu")),
    (of_probe("eager", "onnx", decoders=("tiny", "mid")), (None, "cpu")),
    (of_probe("static", device="cuda:1"), (None, "cuda:1")),
    (of_probe("onnx", engine=FILE, decoders=("tiny",)), (FILE, "cpu")),
    (of_probe("tensorrt", engine=FILE, decoders=("tiny",)), (FILE, "cuda")),
    (of_probe("tensorrt", engine=FILE, decoders=("tiny",), device="cuda:1"), (FILE, "cuda:1")),
])  # fmt: skip
def test_a_probe_has_a_file_and_a_device(asked: dict[str, Any], found: tuple[Any, ...], gpu: Any) -> None:
    assert probed(asked) == found


@pytest.mark.parametrize(("decoders", "count"), [((), 0), (("tiny", "mid"), 2), (("tiny",) * 3, 3)])
def test_a_probe_of_a_file_names_the_one_decoder_that_it_was_made_of(decoders: tuple[str, ...], count: int) -> None:
    with pytest.raises(click.UsageError) as refused:
        probed(of_probe("onnx", engine=FILE, decoders=decoders))
    said = f"--engine goes with one --decoder, from which the file was made, got {count}"
    assert refused.value.message == said


def of_bench(kind: str, **more: Any) -> dict[str, Any]:
    return {"engine": None, "dtype": "float32", "device": "cpu", "executor": kind, "depth": 3, **more}


@pytest.mark.parametrize("asked", [of_bench("eager"), of_bench("static", device="cuda:1", dtype="float16"),
                                   of_bench("onnx", dtype="float16")])  # fmt: skip
def test_a_bench_without_a_file_is_what_was_asked_for(asked: dict[str, Any]) -> None:
    assert benched(asked) == asked


def test_a_bench_of_a_file_has_its_path_as_text_and_its_dtype(tmp_path: Path) -> None:
    file = written(tmp_path / "a.onnx")
    assert benched(of_bench("onnx", engine=file, dtype="bfloat16")) == of_bench("onnx", engine=str(file))


@pytest.mark.parametrize("kind", ["onnx", "tensorrt"])
def test_a_file_that_cannot_be_read_cannot_be_benched(kind: str, gpu: Any, tmp_path: Path) -> None:
    (tmp_path / "a.file").write_bytes(b"nothing of the kind")
    with pytest.raises(CannotRun, match="^cannot bench: ") as refused:
        benched(of_bench(kind, engine=tmp_path / "a.file"))
    assert refused.value.exit_code == 125


@pytest.mark.parametrize("error", [ExportRefused("frozen"), InvalidInput("file", "a", "another")])
def test_a_file_that_is_refused_cannot_be_benched_in_the_words_of_the_refusal(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise error

    monkeypatch.setattr(onnx_file, "read", refuse)
    with pytest.raises(CannotRun) as refused:
        benched(of_bench("onnx", engine=FILE))
    assert refused.value.message == f"cannot bench: {error}"


def test_a_plan_needs_tensorrt_then_a_gpu_and_what_is_no_plan_needs_neither(gpu: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise EngineError("no TensorRT")

    plan, file = of_probe("tensorrt", engine=FILE, decoders=("tiny",)), of_probe("onnx", engine=FILE, decoders=("a",))
    gpu.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CannotRun) as refused:
        probed(plan)
    assert refused.value.message == (
        "--executor tensorrt: torch sees no CUDA GPU here, and a plan runs only on one; "
        "run the exported file instead, with --executor onnx"
    )
    gpu.setattr(bindings, "binding", missing)
    with pytest.raises(CannotRun) as refused:
        probed(plan)
    assert refused.value.message == "no TensorRT"
    assert probed(file) == (FILE, "cpu")
    assert on_engine.device(["onnx"], "cpu") == "cpu"
