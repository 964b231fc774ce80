"""Every option of `profile` reaches the run and the facts about it; nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import profile as command
from harness.engine.aot.layers import Layer
from harness.engine.decoders import AffineDecoder
from harness.engine.decoders.decoder_switches import PLAIN, DecoderSwitches
from harness.engine.errors import BatchTooLarge, EngineError, ExecutorError, InvalidInput, OutsideProfile
from harness.parity.baselines import platform
from harness.rails.profile import files, onnx, sources
from harness.rails.profile.report import Breakdown, NoLayers, Profile, Timed
from harness.rails.profile.rules import Facts

LAYERS = [Timed(Facts(Layer(f"mlp/MatMul_{number}")), float(9 - number)) for number in range(9)]
USUAL = {
    "executor": "eager", "engine": None, "decoder": "tiny", "dtype": "float32", "device": "cpu", "batch": 4,
    "seq_len": 750, "enc_len": 200, "iters": 20, "warmup": 3, "threads": 1, "torch": torch.__version__,
    "decoder_switches": None,
}  # fmt: skip


class Executor:
    """Stands for every executor; notes when it is closed."""

    takes_mask, stream = True, None

    def __init__(self, decoder: Any = None, rows: int = 0, device: str = "") -> None:
        self.decoder, self.max_rows, self.device, self.closed = decoder, rows, device, 0
        inputs = {"hidden_states": ((1, 2, 8),) * 3, "encoder_hidden_states": ((1, 1, 32),) * 3}
        facts = dict.fromkeys(("compute_capability", "gpu", "driver", "verbosity"), "of the plan")
        self.sidecar = SimpleNamespace(profile=inputs, flavour="rtx", version="1.7", dtypes={}, layers=(), **facts)

    def close(self) -> None:
        self.closed += 1


class Run:
    """What was asked for of each step of a profile; it finds what it was told, or raises."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.profiled: list[tuple[Any, ...]] = []
        self.threads: list[int] = []
        self.decoders: list[tuple[Any, ...]] = []
        self.switches: list[DecoderSwitches] = []
        self.exported: list[tuple[Any, ...]] = []
        self.plans: list[tuple[Any, ...]] = []
        self.onnx: list[tuple[Any, ...]] = []
        self.executors: list[Executor] = []
        self.kinds: list[Any] = []
        self.fails: Exception | None = None

        def profiled(subject: Any, iters: int, warmup: int, provenance: Any) -> Profile:
            self.profiled.append((subject, iters, warmup, provenance))
            self.threads.append(torch.get_num_threads())
            if self.fails:
                raise self.fails
            return Profile("torch", LAYERS, iters, (50.0,), False, provenance)

        def decoder(name: str, *, dtype: torch.dtype, device: str, switches: DecoderSwitches) -> Any:
            self.decoders.append((name, dtype, device))
            self.switches.append(switches)
            return AffineDecoder(16)

        def executor(kind: Any, made: Any, rows: int, *, device: str) -> Executor:
            self.kinds.append(kind)
            return self._made(Executor(made, rows, device))

        def of_plan(plan: Path, device: str) -> Executor:
            self.plans.append((plan, device))
            return self._made(Executor())

        def subject(*asked: Any) -> Any:
            self.onnx.append(asked)
            return SimpleNamespace(provenance={"onnxruntime": "1"}, source="onnxruntime")

        def onnx_file(name: str, **asked: Any) -> Path:
            self.exported.append((name, asked))
            return Path("exported.onnx")

        patch.setattr(sources, "profiled", profiled)
        patch.setattr(registry, "decoder", decoder)
        patch.setattr(registry, "executor", executor)
        patch.setattr(registry, "onnx_file", onnx_file)
        patch.setattr(command, "tensorrt_executor", of_plan)
        patch.setattr(onnx, "OnnxSubject", subject)
        patch.setattr(platform, "name", lambda device="cpu": f"name of {device}")

    def _made(self, executor: Executor) -> Executor:
        self.executors.append(executor)
        return executor


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


def profile(*words: str) -> Result:
    return CliRunner().invoke(main, ["profile", *words])


def facts(**changed: Any) -> dict[str, Any]:
    found = {**USUAL, **changed}
    return {**found, "platform": f"name of {found['device']}"}


@pytest.mark.parametrize(("words", "changed"), [
    ("", {}),
    ("--executor static", {"executor": "static"}),
    ("--decoder mid", {"decoder": "mid"}),
    ("--dtype float16", {"dtype": "float16"}),
    ("--batch 3", {"batch": 3}),
    ("--seq-len 6 --enc-len 5", {"seq_len": 6, "enc_len": 5}),
    ("--iters 7 --warmup 2", {"iters": 7, "warmup": 2}),
    ("--threads 2", {"threads": 2}),
])  # fmt: skip
def test_every_option_of_a_run_in_torch_reaches_it_and_its_facts(words: str, changed: dict[str, Any], run: Run) -> None:
    small = {"seq_len": 8, "enc_len": 4, "batch": 2, **changed}
    usual = [word for name in ("seq_len", "enc_len", "batch") if name not in changed
             for word in (f"--{name.replace('_', '-')}", str(small[name]))]  # fmt: skip
    result = profile(*words.split(), *usual)
    assert result.exit_code == 0, result.output
    wanted = facts(**small)
    ((subject, iters, warmup, provenance),) = run.profiled
    (executor,) = run.executors
    assert (iters, warmup, provenance) == (wanted["iters"], wanted["warmup"], wanted)
    assert run.threads == [wanted["threads"]]
    assert run.decoders == [(wanted["decoder"], getattr(torch, wanted["dtype"]), "cpu")]
    assert run.kinds == [wanted["executor"]]
    assert subject.executor is executor and subject.decoder is executor.decoder
    assert (executor.max_rows, executor.device, executor.closed) == (wanted["batch"], "cpu", 1)
    batch, rows = subject.batch, wanted["batch"]
    widths = registry.widths(executor.decoder)
    assert batch.hidden_states.shape == (rows, wanted["seq_len"], widths[0])
    assert batch.encoder_hidden_states.shape == (rows, wanted["enc_len"], widths[1])


def test_without_options_the_sizes_are_those_that_the_help_shows(run: Run) -> None:
    assert profile("--executor", "onnx").exit_code == 0
    assert run.profiled[0][3] == {**facts(executor="onnx"), "onnxruntime": "1"}
    assert list(run.profiled[0][3])[::14] == ["executor", "onnxruntime"], "what the program says of itself comes last"


@pytest.mark.parametrize(("words", "file", "exported"), [
    ([], "exported.onnx", [("tiny", {"dtype": "float32"})]),
    (["--decoder", "mid", "--dtype", "float16"], "exported.onnx", [("mid", {"dtype": "float16"})]),
    (["--decoder", "affine"], "exported.onnx", [("affine", {"dtype": "float32", "tokens": 5})]),
    (["--engine", "folder/a.onnx"], "folder/a.onnx", []),
])  # fmt: skip
def test_onnx_runtime_runs_the_named_file_or_an_export(
    words: list[str], file: str, exported: list[Any], run: Run
) -> None:
    sizes = ["--batch", "3", "--seq-len", "8", "--enc-len", "5", "--threads", "2"]
    result = profile("--executor", "onnx", *words, *sizes)
    assert result.exit_code == 0, result.output
    assert (run.onnx, run.exported, run.threads) == ([(Path(file), (3, 8, 5), 2)], exported, [2])
    given = dict(zip(words[::2], words[1::2], strict=True))
    named = {"decoder": given.get("--decoder", "tiny"), "dtype": given.get("--dtype", "float32")}
    told = {"engine": "a.onnx", "decoder": None, "dtype": None} if "--engine" in words else named
    sizes_of_it = {"batch": 3, "seq_len": 8, "enc_len": 5, "threads": 2}
    assert run.profiled[0][3] == {**facts(executor="onnx", **told, **sizes_of_it), "onnxruntime": "1"}


@pytest.mark.parametrize(("words", "device"), [([], "cuda"), (["--device", "cuda:1"], "cuda:1")])
def test_a_plan_runs_on_the_gpu_that_was_named_or_on_the_first_with_the_widths_that_it_takes(
    words: list[str], device: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[Any, ...]] = []
    monkeypatch.setattr(sources, "batch", lambda *asked: batches.append(asked))
    sizes = ["--batch", "3", "--seq-len", "8", "--enc-len", "5"]
    result = profile("--executor", "tensorrt", "--engine", "folder/a.plan", *words, *sizes)
    assert result.exit_code == 0, result.output
    assert run.plans == [(Path("folder/a.plan"), device)]
    assert batches == [((3, 8, 5), 8, 32, device)]
    told = {"engine": "a.plan", "decoder": None, "dtype": None, "device": device}
    of_plan = {name: run.profiled[0][3].get(name) for name in ("flavour", "version", "gpu", "driver", "verbosity")}
    assert of_plan == dict.fromkeys(("gpu", "driver", "verbosity"), "of the plan") | {
        "flavour": "rtx",
        "version": "1.7",
    }
    wanted = facts(executor="tensorrt", **told, batch=3, seq_len=8, enc_len=5)
    assert {name: run.profiled[0][3][name] for name in wanted} == wanted
    assert [executor.closed for executor in run.executors] == [1]


@pytest.mark.parametrize("words", [
    ["--seq-len", "8", "--enc-len", "4"],
    ["--executor", "tensorrt", "--engine", "a.plan", "--device", "cpu", "--seq-len", "8", "--enc-len", "4"],
])  # fmt: skip
@pytest.mark.parametrize(("error", "code"), [
    (EngineError("broke"), 125), (ExecutorError("broke"), 125), (BatchTooLarge("broke"), 125),
    (OutsideProfile("broke"), 125), (NoLayers("broke"), 125), (InvalidInput("frames", 3, "an even one"), 2),
])  # fmt: skip
def test_a_run_that_fails_is_one_line_and_its_executor_is_closed(
    words: list[str], error: Exception, code: int, run: Run, tmp_path: Path
) -> None:
    run.fails = error
    with platform.threads(2):
        result = profile(*words, "--json", str(tmp_path / "r.json"))
        assert torch.get_num_threads() == 2
    assert (result.exit_code, result.stdout) == (code, "")
    if code == 125:
        assert result.stderr == f"cannot profile: {type(error).__name__}: broke\n"
    assert "Traceback" not in result.stderr
    assert [executor.closed for executor in run.executors] == [1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "count"), [([], 9), (["--top", "1"], 1), (["--top", "3"], 3), (["--top", "20"], 9)])
def test_as_many_of_the_slowest_layers_are_listed_as_asked_and_all_are_written(
    words: list[str], count: int, run: Run, tmp_path: Path
) -> None:
    result = profile("--executor", "onnx", *words, "--json", str(tmp_path / "r.json"))
    listed = [line for line in result.stdout.splitlines() if "mlp/MatMul_" in line]
    assert len(listed) == count and "MatMul_0" in listed[0]
    found = Breakdown(Profile("torch", LAYERS, 20, (50.0,), False, run.profiled[0][3]))
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(found.document()))
    assert result.stdout.splitlines()[-1].startswith("unattributed: 0.00% of the time, 0 of 9 layers")


# Files.


@pytest.mark.parametrize(("words", "read"), [
    (["--from-json", "p.json"], ("trtexec", Path("p.json"), None)),
    (["--from-json", "p.json", "--layers", "l.json"], ("trtexec", Path("p.json"), Path("l.json"))),
    (["--layers-of", "a.plan"], ("plan", Path("a.plan"))),
])  # fmt: skip
def test_a_profile_of_a_file_takes_what_it_prints_and_writes_and_runs_nothing(
    words: list[str], read: tuple[Any, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    for name in ("trtexec", "plan"):
        monkeypatch.setattr(files, name, lambda *of, name=name: (seen.append((name, *of)), Profile(name, LAYERS))[1])
    result = profile(*words, "--top", "2", "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    assert (seen, run.profiled) == ([read], [])
    assert json.loads((tmp_path / "r.json").read_text())["source"] == read[0]


USAGE = "a profile is of a file or of a run, not of both"


@pytest.mark.parametrize(("words", "said"), [
    (["--from-json", "p", "--layers-of", "a"], f"--from-json, --layers-of: {USAGE}"),
    (["--layers-of", "a", "--seq-len", "8", "--from-json", "p"], f"--from-json, --layers-of, --seq-len: {USAGE}"),
    *((["--layers-of", "a", name, value], f"--layers-of, {name}: {USAGE}") for name, value in (
        ("--executor", "eager"), ("--engine", "b"), ("--decoder", "tiny"), ("--dtype", "float32"), ("--device", "cpu"),
        ("--batch", "4"), ("--seq-len", "750"), ("--enc-len", "200"), ("--iters", "20"), ("--warmup", "3"),
        ("--threads", "1"),
    )),
    (["--layers-of", "a", "--layers", "l"], "--layers goes with --from-json"),
    (["--layers", "l"], "--layers goes with --from-json"),
    (["--executor", "tensorrt"], "--executor tensorrt needs --engine, a built plan"),
    (["--engine", "a.plan"], "--engine goes with --executor tensorrt or onnx"),
    (["--executor", "deferred", "--engine", "a.plan"], "--engine goes with --executor tensorrt or onnx"),
    (["--executor", "onnx", "--device", "cuda"], "device: got cuda, expected cpu, which is where ONNX Runtime runs"),
    (["--executor", "onnx", "--dtype", "bfloat16"], "dtype: got bfloat16, expected float32 or float16"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_named(words: list[str], said: str, run: Run) -> None:
    result = profile(*words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert run.profiled == run.executors == run.onnx == []


def test_the_accelerations_of_the_decoder_reach_it_and_its_facts_and_its_modules_are_not_marked(run: Run) -> None:
    words = "--decoder-switch fused_products=on --decoder-switch kept_time=on --decoder-switch band=flex"
    result = profile(*words.split(), "--seq-len", "8", "--enc-len", "4", "--batch", "2")
    assert result.exit_code == 0, result.output
    assert run.switches == [PLAIN.turned_on("fused_products", "kept_time").assigned("band", "flex")]
    ((subject, _iters, _warmup, provenance),) = run.profiled
    said = "fused_products, kept_time, band=flex, full=auto, norms=kernels"
    assert (subject.decoder, provenance["decoder_switches"]) == (None, said)


@pytest.mark.parametrize("words", ["--executor onnx", "--from-json a.json"])
def test_accelerations_without_a_decoder_that_runs_are_a_usage_error(words: str, run: Run) -> None:
    result = profile(*words.split(), "--decoder-switch", "fused_products=on")
    assert (result.exit_code, run.profiled) == (2, [])
    assert "--decoder-switch" in result.stderr
