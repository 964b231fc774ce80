"""`python -m harness profile`: sources, exit codes, and what is printed and written."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from harness.cli import main
from harness.commands import profile as command
from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.decoders.decoder_switches import PLAIN
from harness.engine.errors import BatchTooLarge, PackageMissing, PlanMismatch
from harness.parity.baselines import platform
from tests.fakes import LoggedStream
from tests.onnx_files import written

SMALL = ("--batch", "2", "--seq-len", "16", "--enc-len", "5", "--iters", "2", "--warmup", "1")
BUILT = Path(__file__).parent.parent / "rails" / "profile" / "data" / "rtx_tiny_layers.json"


def invoke(*arguments):
    return CliRunner().invoke(main, ["profile", *map(str, arguments)], obj=object())


def write(folder, name, content):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def plan_of(folder, dtype):
    """A plan whose metadata lists the layers of an engine that TensorRT-RTX built."""
    rows = json.loads(BUILT.read_text())[dtype]
    layers = tuple(Layer(name, kind, "", stream, tuple(nodes)) for name, kind, stream, nodes in rows)
    path = folder / f"{dtype}.plan"
    path.write_bytes(b"plan")
    digest = hashlib.sha256(b"plan").hexdigest()
    known = Sidecar(digest, "0", "tensorrt-rtx", "1.7", "8.9", None, None, {}, {}, 2, "detailed", layers)
    sidecar.write(path, known)
    return path


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
@pytest.mark.parametrize("decoder", ["affine", "tiny"])
def test_a_device_that_is_not_here_is_exit_code_2(device, decoder):
    result = invoke("--device", device, "--decoder", decoder, *SMALL)
    assert result.exit_code == 2, result.output
    assert "device: got" in result.stderr


def test_a_report_that_cannot_be_written_is_exit_code_125(tmp_path):
    (tmp_path / "file").write_text("no folder")
    profile = write(tmp_path, "profile.json", [{"count": 1}, {"name": "a", "averageMs": 1.0}])
    result = invoke("--from-json", profile, "--json", tmp_path / "file" / "r.json")
    assert result.exit_code == 125, result.output
    assert "cannot write " in result.stderr


@pytest.mark.parametrize("executor", ["eager", "static"])
def test_a_torch_executor_is_profiled_and_everything_is_written(tmp_path, executor):
    path = tmp_path / "profile.json"
    result = invoke("--executor", executor, "--json", path, "--top", "3", *SMALL)
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    assert written["source"] == "torch"
    assert len(written["wall"]["samples_ms"]) == written["runs"] == 2
    assert written["provenance"]["executor"] == executor
    assert {name: written["provenance"][name] for name in ("decoder", "dtype", "device", "threads", "batch")} == {
        "decoder": "tiny",
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "batch": 2,
    }
    assert written["sum_ms"] == pytest.approx(sum(layer["ms"] for layer in written["layers"]))
    assert result.output.rstrip().splitlines()[-1].startswith("unattributed: ")


@pytest.mark.skipif(find_spec("onnxscript") is None or find_spec("onnxruntime") is None, reason="needs the extra onnx")
def test_onnx_runtimes_profile_of_an_exported_decoder_is_attributed(tmp_path):
    path = tmp_path / "profile.json"
    result = invoke("--executor", "onnx", "--json", path, *SMALL)
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    assert written["source"] == "onnxruntime"
    assert written["unattributed"]["share"] < 0.02
    assert all(written["categories"][name]["layers"] for name in ("attention", "gemm", "norm", "pointwise"))


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra onnx")
def test_the_device_on_which_onnx_runtime_runs_may_be_named(tmp_path):
    result = invoke("--executor", "onnx", "--device", "cpu", "--engine", written(tmp_path / "a.onnx"), *SMALL)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_layers_of_a_built_plan_roll_up_by_number(tmp_path, dtype):
    path = tmp_path / "layers.json"
    result = invoke("--layers-of", plan_of(tmp_path, dtype), "--json", path)
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    assert (written["shares_by"], written["sum_ms"], written["wall"]["ms"]) == ("layers", None, None)
    assert written["unattributed"]["share"] < 0.05
    assert "of the layers, 0 of" in result.output


def test_trtexecs_files_are_profiled_offline(tmp_path):
    profile = write(tmp_path, "profile.json", [{"count": 9}, {"name": "x_myl0_1", "averageMs": 2.0}])
    layers = write(tmp_path, "layers.json", {"Layers": [{"Name": "x_myl0_1", "LayerType": "gemm"}], "Bindings": []})
    alone, joined = invoke("--from-json", profile), invoke("--from-json", profile, "--layers", layers)
    assert (alone.exit_code, joined.exit_code) == (0, 0)
    assert "unattributed: 100.00% of the time" in alone.output
    assert "unattributed: 0.00% of the time" in joined.output


class FakeExecutor:
    """A TensorRT executor without TensorRT: two layers a run."""

    takes_mask = True

    def __init__(self):
        self.stream, self.listener, self.closed, self.batches = LoggedStream(), None, False, []
        fields = dict.fromkeys(("compute_capability", "gpu", "driver"))
        shapes = {"hidden_states": ((1, 2, 8),) * 3, "encoder_hidden_states": ((1, 1, 32),) * 3}
        layers = (Layer("a", "gemm", nodes=("mlp/MatMul_1",)), Layer("b", "wait", stream=1))
        self.sidecar = SimpleNamespace(
            profile=shapes, layers=layers, flavour="tensorrt", version="11", dtypes={}, verbosity="detailed", **fields
        )

    def run(self, batch):
        self.batches.append(batch)
        if self.listener:
            for name in ("a", "b"):
                self.listener(name, 1e6)

    @contextmanager
    def profiling(self, listener):
        self.listener = listener
        yield
        self.listener = None

    def close(self):
        self.closed = True


def test_an_engine_is_profiled_by_its_own_profiler_and_closed(tmp_path, monkeypatch):
    executor = FakeExecutor()
    monkeypatch.setattr(command, "tensorrt_executor", lambda _plan, _device: executor)
    path = tmp_path / "profile.json"
    result = invoke("--executor", "tensorrt", "--engine", "a.plan", "--device", "cpu", "--json", path, *SMALL)
    assert result.exit_code == 0, result.output
    assert executor.closed
    assert executor.batches[0].hidden_states.shape == (2, 16, 8)
    assert executor.batches[0].encoder_hidden_states.shape == (2, 5, 32)
    written = json.loads(path.read_text())
    assert (written["source"], written["resolved"], written["streams"]) == ("tensorrt", True, 2)
    assert (written["provenance"]["flavour"], written["provenance"]["engine"]) == ("tensorrt", "a.plan")
    assert "the layers of 2 streams overlap" in result.output
    assert written["residual"]["ms"] < 0


@pytest.mark.parametrize(
    "error", [PlanMismatch("version", "11", "10"), PackageMissing("tensorrt", "trt"), BatchTooLarge("too many")]
)
def test_an_engine_that_cannot_be_run_is_exit_code_125_and_says_why(monkeypatch, error):
    def refuse(_plan, _device):
        raise error

    monkeypatch.setattr(command, "tensorrt_executor", refuse)
    result = invoke("--executor", "tensorrt", "--engine", "a.plan")
    assert result.exit_code == 125
    assert f"cannot profile: {type(error).__name__}: {error}" in result.output


def test_a_file_that_is_no_profile_is_exit_code_125(tmp_path):
    result = invoke("--from-json", write(tmp_path, "profile.json", [{"name": "0", "averageMs": 1.0}]))
    assert result.exit_code == 125
    assert "cannot profile: NamelessLayers: " in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--executor", "tensorrt"),
        ("--executor", "eager", "--engine", "a.plan"),
        ("--layers", "layers.json"),
        ("--from-json", "profile.json", "--layers-of", "a.plan"),
        ("--from-json", "profile.json", "--decoder", "mid"),
        ("--layers-of", "a.plan", "--executor", "eager"),
        ("--layers-of", "a.plan", "--iters", "3"),
        ("--decoder", "nothing-like-it"),
        ("--executor", "onnx", "--device", "cuda"),
        ("--executor", "onnx", "--dtype", "bfloat16"),
        ("--executor", "onnx", "--engine", "gone.onnx"),
        ("--iters", "0"),
        ("--warmup", "0"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments):
    assert invoke(*arguments).exit_code == 2


def test_a_plan_goes_to_its_executor_with_the_device_that_was_named(monkeypatch):
    module = SimpleNamespace(TensorRTExecutor=lambda plan, **options: (plan, options))
    modules = {"harness.engine.executors.tensorrt.executor": module}
    monkeypatch.setattr(command, "import_module", modules.__getitem__)
    assert command.tensorrt_executor(Path("a.plan"), "cuda:1") == (Path("a.plan"), {"device": "cuda:1"})


@pytest.mark.parametrize("engine", [None, Path("folder/a.onnx")])
def test_what_ran_is_a_file_or_a_decoder_in_a_dtype_and_never_both(engine):
    sizes = {"batch": 2, "seq_len": 16, "enc_len": 5, "iters": 3, "warmup": 1, "threads": 4}
    named = {"decoder": "tiny", "dtype": "float16"}
    asked = {"executor": "onnx", "engine": engine, "device": None, "decoder_switches": PLAIN}
    found = command._provenance({**asked, **named, **sizes})
    assert found == {
        "executor": "onnx",
        "engine": "a.onnx" if engine else None,
        **(dict.fromkeys(named) if engine else named),
        "decoder_switches": None,
        "device": "cpu",
        "platform": platform.name("cpu"),
        **sizes,
        "torch": torch.__version__,
    }
