"""Every option of `bench` reaches the load, and what was measured is written and announced whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness.cli import main
from harness.commands import bench as command
from harness.engine import Switches
from harness.engine.aot import bindings, sidecar
from harness.engine.aot.sidecar import Sidecar
from harness.engine.decoders.decoder_switches import ALL, PLAIN
from harness.engine.errors import EngineError, InvalidInput, OutsideProfile
from harness.engine.switches import PLAIN_PATH, SWITCHES
from harness.parity.baselines import platform
from harness.rails.bench import ablation, recorded, steady, throughput
from harness.rails.bench.ablation import Saving, Says, ablated_ticks
from harness.rails.bench.bare import Bare
from harness.rails.bench.recorded import Recorded
from harness.rails.bench.steady import Steady
from harness.rails.bench.throughput import Latency, Load, Measured

SAVED = Saving("fused_cfg", 8, 3.0, 2.0, 1.0, 0.5, (0.75, 1.25), (0.25, 0.625), Says.BEYOND, Says.WITHIN)
RATIO = Steady(
    2.5, 2.0, (1.25, 1.5), 1.375, 1.0, 1.75, 0.5, 0.75, 7.5, {"cudaGraphLaunch": 1.0, "cudaMemcpyAsync": 6.5}
)


def measured(load: Load) -> Measured:
    samples = {"tick_ms": [4.0, 5.0], "host_ms": [0.5, 0.25]}
    return Measured(
        load, samples, 10, 5.0, "digest", 6, 1.25, 8.5, Latency(1.0, 2.0, 3.0, 4.0), Bare(7, {"eager": 2.0})
    )


class Asked:
    """What a bench was asked for; nothing is measured."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loads: list[Load] = []
        self.ablated: list[Load] = []
        self.steadied: list[Load] = []
        self.totals: list[int] = []
        self.steps: list[str] = []
        self.fails: Exception | None = None

        def bench(load: Load, advance: Callable[[str], None]) -> Measured:
            self.loads.append(load)
            advance("bench")
            if self.fails:
                raise self.fails
            return measured(load)

        def ablate(load: Load, advance: Callable[[str], None]) -> list[Saving]:
            self.ablated.append(load)
            advance("ablate")
            return [SAVED]

        def steadied(load: Load) -> Steady:
            self.steadied.append(load)
            return RATIO

        @contextmanager
        def progress(_console: Any, total: int, _what: str) -> Iterator[Callable[[str], None]]:
            self.totals.append(total)
            yield self.steps.append

        patch.setattr(throughput, "bench", bench)
        patch.setattr(ablation, "ablate", ablate)
        patch.setattr(steady, "measured", steadied)
        patch.setattr(command, "progress", progress)


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def bench(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", *words])


@pytest.mark.parametrize(("words", "fields"), [
    ("", {}),
    ("--duration 3.5", {"duration": 3.5}),
    ("--depth 3", {"depth": 3}),
    ("--steps 5", {"steps": 5}),
    ("--denoise 0.25", {"denoise": 0.25}),
    ("--ticks 17", {"ticks": 17}),
    ("--warmup 19", {"warmup": 19}),
    ("--cfg self --guidance-scale 1.5", {"cfg": "self", "guidance_scale": 1.5}),
    ("--cfg", {"cfg": "full"}),
    ("--no-dcw", {"dcw": False}),
    ("--dcw", {}),
    ("--fresh", {"fresh": True}),
    ("--shared", {}),
    ("--fresh --shared", {}),
    ("--decoder mid", {"decoder": "mid"}),
    ("--executor static", {"executor": "static"}),
    ("--executor cuda_graph", {"executor": "cuda_graph"}),
    ("--executor compiled_graph --device cuda", {"executor": "compiled_graph", "device": "cuda"}),
    ("--dtype bfloat16", {"dtype": "bfloat16"}),
    ("--device cuda:1", {"device": "cuda:1"}),
    ("--threads 2", {}),
    ("--switch fused_cfg=off", {"switches": Switches(fused_cfg=False)}),
    ("--switch fused_cfg=off --switch host_gates=off", {"switches": Switches(fused_cfg=False, host_gates=False)}),
    ("--switch fused_cfg=off --switch fused_cfg=on", {}),
    ("--switch integrator=off", {"switches": Switches(integrator="per_slot")}),
    ("--switch integrator=per_slot --switch integrator=foreach", {}),
    (" ".join(f"--switch {name}=off" for name in SWITCHES), {"switches": PLAIN_PATH}),
    ("--decoder-switch kept_time=on", {"decoder_switches": PLAIN.turned_on("kept_time")}),
    ("--decoder-switch all=on --decoder-switch kept_time=off", {"decoder_switches": ALL.turned_off("kept_time")}),
    ("--decoder-switch band=flex --decoder-switch all=off", {"decoder_switches": replace(PLAIN, band="flex")}),
])  # fmt: skip
def test_each_option_reaches_its_field_of_the_load_and_no_other(
    words: str, fields: dict[str, Any], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "name", lambda *_: "here")
    monkeypatch.setattr(platform, "of_device", lambda *_: {})
    result = bench(*words.split())
    assert result.exit_code == 0, result.output
    assert asked.loads == [Load(**fields)]
    assert asked.ablated == asked.steadied == []


@pytest.mark.parametrize("word", ["fused_cfg", "fused_cfg=", "=on", "none=on", "fused=on", ""])
def test_a_switch_without_a_known_name_or_a_value_is_answered_with_all_names(word: str, asked: Asked) -> None:
    result = bench("--switch", word)
    assert (result.exit_code, asked.loads) == (2, [])
    assert f"{word!r}: expected NAME=VALUE with a name of {', '.join(SWITCHES)}" in " ".join(result.stderr.split())


@pytest.mark.parametrize("word", ["kept_time", "kept_time=1", "all=none", "=on", "band=dense", "fused_cfg=on", ""])
def test_an_acceleration_that_is_none_or_takes_no_such_value_is_a_usage_error(word: str, asked: Asked) -> None:
    result = bench("--decoder-switch", word)
    assert (result.exit_code, asked.loads) == (2, [])
    assert f"{word!r}: switches" in " ".join(result.stderr.split())


@pytest.mark.parametrize("word", ["fused_cfg=1", "fused_cfg=ON", "fused_cfg=off=on", "integrator=none"])
def test_a_value_that_a_switch_does_not_take_is_answered_with_what_it_takes(word: str, asked: Asked) -> None:
    result = bench("--switch", word)
    name = word.partition("=")[0]
    assert (result.exit_code, asked.loads) == (2, [])
    assert f"{word!r}: expected {name}=on or {name}=off" in " ".join(result.stderr.split())


@pytest.mark.parametrize("ablated", [False, True])
def test_as_many_steps_are_announced_as_ticks_are_made_and_the_report_holds_what_was_measured(
    ablated: bool, asked: Asked, tmp_path: Path
) -> None:
    load = Load(decoder="affine", ticks=17, warmup=19)
    words = ["--decoder", "affine", "--ticks", "17", "--warmup", "19", "--json", str(tmp_path / "r.json")]
    result = bench(*words, *(["--ablate"] if ablated else []))
    assert result.exit_code == 0, result.output
    assert asked.totals == [36 + (ablated_ticks(load) if ablated else 0)]
    assert asked.steps == ["bench", *(["ablate"] if ablated else [])]
    assert asked.ablated == ([load] if ablated else [])
    with platform.one_thread():
        where = {"name": platform.name(), "fingerprint": platform.of_device("cpu")}
    savings = [asdict(SAVED)] if ablated else []
    wanted = {**measured(load).document(), "ablation": savings, "steady": None, "recording": None}
    wanted["platform"] = where
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(wanted))
    assert ("switched off" in result.stdout) is ablated
    assert "steady ring" not in result.stdout


def test_the_cost_of_a_recording_is_measured_where_it_is_asked_for(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Recorded(2.0, 2.5, 1.0, 1.25, 940.0, True)
    monkeypatch.setattr(recorded, "recorded", lambda load, path, advance: found if path == tmp_path / "t" else None)
    result = bench("--ticks", "17", "--record", str(tmp_path / "t"), "--json", str(tmp_path / "r.json"))
    assert asked.totals == [30 + 17 + 2 * (30 + 4 * 4)]
    assert json.loads((tmp_path / "r.json").read_text())["recording"] == asdict(found)
    assert all(words in result.stdout for words in ("0.500", "940", "the same bits"))


@pytest.mark.parametrize("kind", ["cuda_graph", "compiled_graph"])
def test_the_ratio_of_a_steady_ring_is_measured_where_it_is_asked_for_and_stands_in_the_report(
    kind: str, asked: Asked, tmp_path: Path
) -> None:
    result = bench("--steady", "--executor", kind, "--fresh", "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 0, result.output
    assert asked.loads == asked.steadied == [Load(executor=kind, fresh=True)]
    assert asked.totals == [Load().warmup + Load().ticks]
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["steady"] == json.loads(json.dumps(asdict(RATIO)))
    assert found["load"] == json.loads(json.dumps(asdict(Load(executor=kind, fresh=True))))
    assert "steady ring" in result.stdout


@pytest.mark.parametrize("kind", ["eager", "static", "deferred"])
def test_no_ratio_is_measured_on_an_executor_without_recorded_runs(kind: str, asked: Asked, tmp_path: Path) -> None:
    result = bench("--steady", "--executor", kind, "--json", str(tmp_path / "r.json"))
    assert (result.exit_code, asked.loads, asked.steadied) == (2, [], []), "before anything is measured"
    words = " ".join(result.stderr.split())
    assert f"executor: got {kind}, expected cuda_graph or compiled_graph, whose runs can be replayed" in words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "code", "said"), [
    (EngineError("no driver"), 125, "cannot bench: no driver\n"),
    (OutsideProfile("9 rows"), 125, "cannot bench: 9 rows\n"),
    (InvalidInput("depth", 0, "at least 1"), 2, "Error: depth: got 0, expected at least 1\n"),
])  # fmt: skip
def test_what_cannot_be_measured_is_one_line_and_no_report(
    error: Exception, code: int, said: str, asked: Asked, tmp_path: Path
) -> None:
    asked.fails = error
    with platform.threads(2):
        result = bench("--json", str(tmp_path / "r.json"))
        assert torch.get_num_threads() == 2
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.endswith(said) and "Traceback" not in result.stderr
    assert code == 2 or result.stderr == said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_plan_is_measured_on_a_gpu_in_the_dtype_of_its_velocity(
    dtype: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bindings, "binding", lambda *_: None)
    monkeypatch.setattr(platform, "name", lambda *_: "here")
    monkeypatch.setattr(platform, "of_device", lambda *_: {})
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    dtypes = {"hidden_states": "float32", "velocity": dtype, "timestep": "float32"}
    made = Sidecar(digest, "0", "tensorrt", "10", "8.9", None, None, {}, dtypes, 2, "detailed")
    sidecar.write(plan, made)
    result = bench("--executor", "tensorrt", "--engine", str(plan))
    assert result.exit_code == 0, result.output
    assert asked.loads == [replace(Load(), executor="tensorrt", engine=str(plan), dtype=dtype, device="cuda")]


def test_a_plan_whose_metadata_cannot_be_read_could_not_run(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bindings, "binding", lambda *_: None)
    (tmp_path / "a.plan").touch()
    result = bench("--executor", "tensorrt", "--engine", str(tmp_path / "a.plan"))
    assert (result.exit_code, asked.loads) == (125, [])
    assert "cannot bench: " in result.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_the_report_s_machine_has_the_threads_that_were_measured_with(
    threads: int, asked: Asked, tmp_path: Path
) -> None:
    with platform.threads(3 - threads):
        assert bench("--threads", str(threads), "--json", str(tmp_path / "r.json")).exit_code == 0
    said = json.loads((tmp_path / "r.json").read_text())["platform"]
    with platform.threads(threads):
        assert said == {"name": platform.name(), "fingerprint": platform.of_device()}
    assert said["fingerprint"]["threads"] == str(threads)


def test_a_file_of_code_reaches_the_load(asked: Asked) -> None:
    assert bench("--executor", "compiled_graph", "--code", "a.code").exit_code == 0
    assert asked.loads == [Load(executor="compiled_graph", code="a.code")]
