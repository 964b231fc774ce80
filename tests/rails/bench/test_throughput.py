"""A bench drives the production path at a fixed depth and reports what it saw, no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.engine import Finished, Switches
from harness.engine.decoders.decoder_switches import ALL, PLAIN
from harness.engine.errors import InvalidInput
from harness.engine.executors import EagerExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.switches import PLAIN_PATH, SWITCHES
from harness.parity.baselines import platform
from harness.rails.bench import clocks, throughput
from harness.rails.bench.ablation import FLOOR, ablate, ablated_ticks
from harness.rails.bench.bare import Bare, merged, runs
from harness.rails.bench.clocks import HostClock
from harness.rails.bench.throughput import (
    Advance,
    Driver,
    Latency,
    Load,
    Measured,
    bench,
    digest,
    silent,
    spread,
)
from tests.fakes import Counting, LoggedStream, StillClock

SMALL = Load(decoder="affine", duration=0.64, ticks=16, warmup=8)


# What is driven.


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_at_every_tick_of_the_window_as_many_requests_are_in_flight_as_there_are_places(depth: int) -> None:
    driver = Driver(replace(SMALL, depth=depth))
    driver.warm_up()
    made = 0
    for _ in range(16):
        finished = driver.tick()
        ages = {slot.step for slot in driver.stream.pipeline.slots if slot is not None}
        assert len(ages) + len(finished) == sum(batch.rows for batch in driver.tap.batches) == depth
        made += len(finished)
    assert made == 16 * depth // 8
    assert driver.dropped == 0


def test_what_is_reported_of_a_window_is_what_was_done_in_it() -> None:
    m = bench(SMALL)
    assert (m.latents, m.dropped, m.runs, m.rows) == (8, 0, 1.0, 4.0)
    assert len(m.samples["tick_ms"]) == len(m.samples["host_ms"]) == 16
    assert m.latents_per_second == m.latents / m.seconds
    assert m.realtime == pytest.approx(m.latents_per_second * 0.64)
    assert m.overhead_ms == m.tick.median - m.bare.ms == m.beyond["eager"]
    assert m.bare.rows == 4
    assert m.seconds * 1e3 >= sum(m.samples["tick_ms"]) >= sum(m.samples["host_ms"])


def test_the_document_holds_every_figure_and_what_follows_from_them() -> None:
    samples = {"tick_ms": [4.0], "host_ms": [0.5]}
    bare, load = Bare(7, {"eager": 2.0, "graph": 1.0}), replace(SMALL, duration=2.0)
    assert Measured(load, samples, 10, 5.0, "aa", 6, 1.25, 8.5, Latency(1.0, 2.0, 3.0, 4.0), bare).document() == {
        "load": asdict(load),
        "samples": samples,
        "latents": 10,
        "seconds": 5.0,
        "outputs": "aa",
        "dropped": 6,
        "runs": 1.25,
        "rows": 8.5,
        "control": {"touched_ticks": 1.0, "touched_ms": 2.0, "whole_ticks": 3.0, "whole_ms": 4.0},
        "bare": {"rows": 7, "forms": {"eager": 2.0, "graph": 1.0}, "fastest": "graph", "ms": 1.0},
        "tick": {"median": 4.0, "p95": 4.0, "p99": 4.0},
        "host": {"median": 0.5, "p95": 0.5, "p99": 0.5},
        "beyond_ms": {"eager": 2.0, "graph": 3.0},
        "latents_per_second": 2.0,
        "realtime": 4.0,
        "overhead_ms": 3.0,
        "overhead_ratio": 3.0,
    }


@pytest.mark.parametrize(("denoise", "has_source"), [(0.99, True), (1.0, False), (1.5, False)])
def test_requests_have_a_source_only_where_they_start_from_one(denoise: float, has_source: bool) -> None:
    driver = Driver(replace(SMALL, denoise=denoise))
    assert (driver.stream._template.source is not None) == has_source


def test_a_bench_closes_the_executor_that_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(EagerExecutor, "close", lambda _self: closed.append("closed"))
    bench(SMALL)
    assert closed == ["closed"]


def test_a_request_that_was_dropped_before_the_window_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def warm_up(self: Driver, advance: Advance = silent) -> None:
        plain(self, advance)
        self.dropped += 3

    plain = Driver.warm_up
    monkeypatch.setattr(Driver, "warm_up", warm_up)
    assert bench(SMALL).dropped == 0


@pytest.mark.parametrize(("more", "runs", "rows"), [
    ({"cfg": "full"}, 1, 8),
    ({"cfg": "full", "switches": Switches(fused_cfg=False)}, 2, 8),
    ({"cfg": "self"}, 1, 4),
    ({"cfg": "initialize"}, 1, 4.5),
    ({"denoise": 0.5}, 1, 4),
    ({"executor": "static"}, 1, 4),
    ({"executor": "onnx"}, 1, 4),
])  # fmt: skip
def test_the_bare_decoder_gets_the_rows_of_a_tick(more: dict[str, Any], runs: int, rows: float) -> None:
    m = bench(replace(SMALL, **more))
    assert (m.runs, m.rows) == (runs, rows)
    assert m.bare.rows in (int(rows), int(rows) + 1)


@pytest.mark.parametrize("depth", [1, 4, 5, 8, 9, 16])
@pytest.mark.parametrize("cfg", [None, *map(str, GuidanceMode)])
def test_a_tick_s_rows_fit_into_one_run_at_every_depth_and_guidance(cfg: str | None, depth: int) -> None:
    driver = Driver(replace(SMALL, cfg=cfg, depth=depth, steps=16, warmup=16))
    assert driver.tap.max_rows == driver.load.max_rows
    rows = []
    for _ in range(32):
        driver.tick()
        assert len(driver.tap.batches) <= 1
        rows += [batch.rows for batch in driver.tap.batches]
    assert max(rows) == (2 * depth if cfg == "full" else depth + (cfg == "initialize"))


@pytest.mark.parametrize("depth", [5, 8])
def test_a_deep_and_guided_bench_says_one_run_a_tick_and_the_rows_of_both_passes(depth: int) -> None:
    m = bench(replace(SMALL, cfg="full", depth=depth, steps=depth))
    assert (m.runs, m.rows, m.bare.rows) == (1, 2 * depth, 2 * depth)


def test_an_engine_s_own_runs_are_one_of_the_bare_decoder_s_forms_and_its_latents_those_of_the_decoder() -> None:
    m, eager = bench(replace(SMALL, executor="onnx")), bench(SMALL)
    assert m.bare.forms.keys() == m.beyond.keys() == {"eager", "engine"}
    assert all(ms > 0 for ms in m.bare.forms.values())
    assert eager.bare.forms.keys() == {"eager"}
    assert m.outputs == eager.outputs


def test_an_engine_s_form_runs_what_the_tick_ran_and_waits_for_each() -> None:
    driver = Driver(replace(SMALL, cfg="full", switches=Switches(fused_cfg=False)))
    driver.warm_up()
    counting = Counting(driver.tap.inner)
    stream = counting.stream = LoggedStream()
    runs(counting, driver.tap.batches)()
    assert (counting.rows, stream.log) == ([4, 4], ["join", "join"])


def test_merged_rows_are_the_rows_of_both_runs_in_order() -> None:
    driver = Driver(replace(SMALL, cfg="full", switches=Switches(fused_cfg=False)))
    driver.warm_up()
    first, second = driver.tap.batches
    rows = merged(driver.tap.batches)
    for name, tensor in rows.tensors().items():
        assert torch.equal(tensor, torch.cat([first.tensors()[name], second.tensors()[name]])), name


def test_the_digest_is_that_of_the_latents_and_no_switch_moves_it() -> None:
    digests = {bench(replace(SMALL, cfg="full", switches=switches)).outputs for switches in (Switches(), PLAIN_PATH)}
    assert len(digests) == 1
    assert digests != {bench(replace(SMALL, cfg="self")).outputs}
    assert digests != {bench(replace(SMALL, cfg="full", ticks=24)).outputs}


def test_a_digest_is_that_of_the_latents_in_the_order_in_which_they_were_made() -> None:
    def made(values: list[int], names: str = "request") -> list[Finished]:
        return [Finished(f"{names}-{i}", torch.full((1, 2, 2), float(i)), i, 4, 1.0, 4) for i in values]

    whole = list(range(12))
    turned = [[*whole[:at], whole[at + 1], whole[at], *whole[at + 2 :]] for at in range(11)]
    others = [*turned, whole[:-1], whole[1:], [*whole, 11]]
    assert len({digest(made(values)) for values in (whole, *others)}) == 1 + len(others)
    assert digest(made(whole)) == digest(made(whole, "song")), "names are no part of it"


@pytest.mark.parametrize(("depth", "touched", "whole"), [(1, 4.5, 11.5), (2, 2.5, 9.5), (4, 1.5, 8.5), (8, 1, 8)])
def test_a_control_shows_after_a_wait_for_a_finish_and_wholly_after_a_whole_request(
    depth: int, touched: float, whole: float
) -> None:
    driver = Driver(replace(SMALL, depth=depth))
    driver.warm_up()
    found = driver.latency()
    assert (found.touched_ticks, found.whole_ticks) == (touched, whole)
    assert 0 < found.touched_ms < found.whole_ms


# Times.


def slower(
    monkeypatch: pytest.MonkeyPatch,
    clock: StillClock,
    ms: float,
    only: Callable[[StreamPipeline], bool] = lambda _p: True,
) -> None:
    run = StreamPipeline.tick

    def ticking(self: StreamPipeline) -> Any:
        if only(self):
            clock.sleep(ms / 1e3)
        return run(self)

    monkeypatch.setattr(StreamPipeline, "tick", ticking)


def test_what_slows_a_tick_is_in_its_time_and_in_its_overhead(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    slower(monkeypatch, still_clock, 20)
    m = bench(SMALL)
    assert [m.tick.median, m.host.median, m.overhead_ms] == pytest.approx([20, 20, 20])
    assert m.seconds == pytest.approx(16 * 20e-3)
    assert m.bare.ms == 0


def test_what_a_switch_saves_is_found_beside_noise(monkeypatch: pytest.MonkeyPatch, still_clock: StillClock) -> None:
    ticks = count()
    slower(monkeypatch, still_clock, 20, lambda pipeline: not pipeline.config.switches.host_gates)
    slower(monkeypatch, still_clock, 20, lambda _p: next(ticks) % 7 == 0)
    savings = {saving.switch: saving for saving in ablate(SMALL)}
    assert list(savings) == [FLOOR, *SWITCHES]
    noise = 20 / 8 + 1e-6
    for name, saving in savings.items():
        saved = 20 if name == "host_gates" else 0
        assert [saving.saved_tick_ms, saving.saved_host_ms] == pytest.approx([saved, saved], abs=noise), name


def test_an_ablation_advances_as_often_as_it_says() -> None:
    seen: list[str] = []
    ablate(SMALL, seen.append)
    assert len(seen) == ablated_ticks(SMALL)


def test_a_clock_gives_the_time_from_each_mark_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 1.5, 3.5])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(now))
    clock = HostClock()
    for _ in range(3):
        clock.mark()
    assert clock.between() == [500.0, 2000.0]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float]) -> None:
    found = spread(values)
    for share, value in ((0.95, found.p95), (0.99, found.p99)):
        within = [v for v in values if v <= value]
        assert len(within) >= share * len(values) - 1e-9
        assert len([v for v in values if v < value]) < share * len(values)
    assert found.median <= found.p95 <= found.p99


# What is refused.


@pytest.mark.parametrize("more", [
    {"ticks": 0},
    {"warmup": 7},
    {"duration": 0.02},
    {"duration": float("nan")},
    {"depth": 0},
    {"decoder": "none of them"},
    {"denoise": -1.0},
    {"cfg": "none of them"},
])  # fmt: skip
def test_a_load_that_nothing_takes_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        bench(replace(SMALL, **more))


# The command.

OPTIONS = ["--decoder", "affine", "--duration", "0.64", "--ticks", "8", "--warmup", "8"]


def invoke(*more: str) -> Result:
    return CliRunner().invoke(main, ["bench", *OPTIONS, *more])


def test_options_reach_the_load_and_the_report(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    result = invoke(
        "--cfg",
        "--depth=2",
        "--no-dcw",
        "--executor=static",
        "--switch=integrator=per_slot",
        "--switch=fused_cfg=off",
        "--denoise=0.9",
        "--ablate",
        "--json",
        str(file),
    )
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    wanted = {"cfg": "full", "depth": 2, "dcw": False, "executor": "static", "denoise": 0.9, "ticks": 8}
    assert wanted.items() <= report["load"].items()
    assert report["load"]["switches"] == {
        "fused_cfg": False,
        "cached_conditioning": True,
        "integrator": "per_slot",
        "host_gates": True,
        "joined_stream": True,
    }
    assert report["runs"] == 2
    assert [row["switch"] for row in report["ablation"]] == [FLOOR, *SWITCHES]
    assert set(report["platform"]) == {"name", "fingerprint"}
    assert len(report["samples"]["tick_ms"]) == 8
    for words in ("ms a tick", "bare decoder", "x realtime", "joined_stream"):
        assert words in result.stdout
    assert "\x1b" not in result.output, "no bar and no colours in a pipe"


def test_what_the_command_is_not_told_is_as_in_a_load_without_options(tmp_path: Path) -> None:
    assert invoke("--json", str(tmp_path / "b.json")).exit_code == 0
    load = json.loads((tmp_path / "b.json").read_text())["load"]
    assert load == asdict(Load(decoder="affine", duration=0.64, ticks=8, warmup=8))
    assert Load(cfg="full").guidance_scale == 2.5


@pytest.mark.parametrize(("options", "number"), [([], 1), (["--threads", "1"], 1), (["--threads", "3"], 3)])
@pytest.mark.parametrize("outside", [1, 2])
def test_the_report_names_the_platform_with_the_threads_that_its_figures_were_measured_with(
    options: list[str], number: int, outside: int, tmp_path: Path
) -> None:
    with platform.threads(number):
        wanted = {"name": platform.name(), "fingerprint": platform.of_device("cpu")}
    with platform.threads(outside):
        assert invoke("--json", str(tmp_path / "b.json"), *options).exit_code == 0
    found = json.loads((tmp_path / "b.json").read_text())["platform"]
    assert found == wanted
    assert found["fingerprint"]["threads"] == str(number)


def test_the_report_s_platform_is_that_of_the_device_of_the_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "name", lambda device="cpu": f"name of {device}")
    monkeypatch.setattr(platform, "of_device", lambda device="cpu": {"of": device})
    # What a GPU would measure; no kind of device but these two has a name of its own.
    monkeypatch.setattr(throughput, "bench", lambda load, *_: bench(replace(load, device="cpu")))
    assert invoke("--device", "cuda", "--json", str(tmp_path / "b.json")).exit_code == 0
    found = json.loads((tmp_path / "b.json").read_text())["platform"]
    assert found == {"name": "name of cuda", "fingerprint": {"of": "cuda"}}


@pytest.mark.parametrize(("options", "mode"), [
    (["--cfg"], "full"),
    (["--cfg", "self"], "self"),
    (["--cfg=initialize"], "initialize"),
    ([], None),
])  # fmt: skip
def test_guidance_without_a_mode_is_full(options: list[str], mode: str | None, tmp_path: Path) -> None:
    assert invoke("--json", str(tmp_path / "b.json"), *options).exit_code == 0
    assert json.loads((tmp_path / "b.json").read_text())["load"]["cfg"] == mode


@pytest.mark.parametrize("more", [
    ["--switch", "fused_cfg"],
    ["--switch", "none=on"],
    ["--switch", "fused_cfg=per_slot"],
    ["--switch", "integrator=none"],
    ["--ticks", "0"],
    ["--decoder", "none"],
    ["--executor", "none"],
])  # fmt: skip
def test_what_cannot_be_measured_is_a_wrong_command_line(more: list[str]) -> None:
    result = invoke(*more)
    assert result.exit_code == 2, result.output


@pytest.mark.parametrize("engine", ["some.onnx", None], ids=["named", "exported"])
def test_accelerations_of_a_decoder_that_a_file_brings_along_are_refused(
    engine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.registry.engine_for", lambda *_, **_options: Path("some.onnx"))
    load = Load(executor="onnx", engine=engine, decoder_switches=PLAIN.turned_on("kept_time"))
    with pytest.raises(InvalidInput, match="decoder_switches: got kept_time, expected none on: onnx runs a file"):
        Driver(load)


def test_a_ring_over_an_accelerated_decoder_makes_latents() -> None:
    load = Load(duration=0.64, ticks=16, warmup=8, executor="cuda_graph", decoder_switches=ALL)
    plain = replace(load, decoder_switches=PLAIN)
    found, expected = bench(load), bench(plain)
    assert (found.latents, found.dropped) == (expected.latents, 0)
    assert found.outputs != expected.outputs  # its sums have another order
