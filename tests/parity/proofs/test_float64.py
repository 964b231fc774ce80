"""The battery on ONNX Runtime: the affine decoder's bits, the real architecture within torch's own distance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.engine import execute
from harness.engine.aot.closeness import FACTOR
from harness.engine.errors import OutsideProfile
from harness.engine.executors import Batch, EagerExecutor, Executor
from harness.parity.baselines.store import NoCaptures
from harness.parity.baselines.verdicts import EPS, Verdict
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, executor, play
from harness.parity.compare import assert_identical
from harness.parity.proofs import float64
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine, check, in_double, judged
from harness.parity.proofs.switches import check_switches, pairs
from harness.registry import ExecutorKind
from tests.onnx_files import written
from tests.parity.strategies import ALWAYS

ON_TINY = Engine(ExecutorKind.ONNX, decoder="tiny")
AFFINE = [name for name, scenario in SCENARIOS.items() if scenario.decoder == registry.AFFINE]
ACE = [name for name in SCENARIOS if name not in AFFINE]
FEW = {name: SCENARIOS[name] for name in ("ace_tiny_plain", "ace_tiny_cfg", "odd_length")}


def verdicts(report: EngineReport) -> dict[str, Verdict]:
    return {result.name: result.verdict for result in report.results}


# What an engine's latents are.


def test_the_battery_s_latents_are_bits_of_the_affine_decoder_and_within_the_bound_of_the_other() -> None:
    report = check(Engine(ExecutorKind.ONNX))
    assert verdicts(report) == {**dict.fromkeys(AFFINE, Verdict.EXACT), **dict.fromkeys(ACE, Verdict.TOLERANCE)}
    assert report.passes


@pytest.mark.parametrize("name", AFFINE)
def test_with_the_affine_decoder_every_tick_has_the_eager_executor_s_bits(name: str) -> None:
    found, expected = play(SCENARIOS[name], on=executor(SCENARIOS[name], "onnx")), play(SCENARIOS[name])
    assert_identical(found.finished, expected.finished)
    assert found.ticks == expected.ticks


def test_every_scenario_is_as_near_to_float64_with_the_real_architecture_as_torch() -> None:
    report = check(ON_TINY)
    assert verdicts(report) == dict.fromkeys(SCENARIOS, Verdict.TOLERANCE)
    assert all(isinstance(r, OnEngine) and r.bound == FACTOR * r.own for r in report.results)


@pytest.mark.parametrize("name", FEW)
def test_an_engine_plays_the_same_bits_in_another_session(name: str) -> None:
    scenario = replace(SCENARIOS[name], decoder="tiny")
    first, second = (play(scenario, on=executor(scenario, "onnx")) for _ in range(2))
    assert_identical(first.finished, second.finished)
    assert first.ticks == second.ticks


def test_an_engine_is_held_against_the_eager_executor_in_its_own_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(scenario: Scenario, *_file: Any) -> Any:
        made: Any = executor(scenario)
        made.signature = SimpleNamespace(dtypes={"velocity": torch.float16})
        return made

    monkeypatch.setattr(float64, "executor", eager)
    (result,) = check(Engine(ExecutorKind.ONNX, Path("a.onnx"), dtype="float16"), only=["ace_tiny_plain"]).results
    assert result.verdict is Verdict.EXACT


class Broken:
    """An executor with a defect."""

    def __init__(self, inner: Executor, change: Callable[[Executor, Batch], Tensor]) -> None:
        self.inner, self.change = inner, change
        self.max_rows, self.takes_mask, self.stream = inner.max_rows, inner.takes_mask, inner.stream

    def run(self, batch: Batch) -> Tensor:
        return self.change(self.inner, batch)

    def close(self) -> None:
        self.inner.close()


def changed(**change: Callable[[Tensor], Tensor]) -> Callable[[Executor, Batch], Tensor]:
    def run(on: Executor, batch: Batch) -> Tensor:
        return on.run(replace(batch, **{name: make(getattr(batch, name)) for name, make in change.items()}))

    return run


def lost_frame(on: Executor, batch: Batch) -> Tensor:
    """What an export makes of an odd number of frames: the last one is not there."""
    cut = {name: getattr(batch, name)[:, :-1] for name in ("hidden_states", "context_latents")}
    return torch.nn.functional.pad(on.run(replace(batch, **cut)), (0, 0, 0, 1))


def same_for_all(tensor: Tensor) -> Tensor:
    return tensor[:1].expand_as(tensor)


DEFECTS: Mapping[str, Callable[[Executor, Batch], Tensor]] = {
    "the time is wrong by a millionth": changed(timestep=lambda t: t + 1e-6),
    "the mask is lost": changed(encoder_mask=torch.ones_like),
    "every row has the first one's condition": changed(encoder_hidden_states=same_for_all, encoder_mask=same_for_all),
    "rows are swapped": lambda on, batch: on.run(batch).flip(0),
    "the last of an odd number of frames is lost": lost_frame,
    "the latents go through bfloat16": changed(hidden_states=lambda h: h.bfloat16().float()),
    "the velocity goes through float16": lambda on, batch: on.run(batch).half(),
}


@lru_cache(maxsize=1)
def odd() -> tuple[Scenario, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """A guided scenario of 11 frames, played eagerly and in float64."""
    scenario = replace(SCENARIOS["odd_length"], decoder="tiny")
    return scenario, play(scenario).finished, in_double(scenario)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_real_defect_is_fifty_times_farther_than_the_bound_lets_pass(defect: str) -> None:
    scenario, eager, reference = odd()
    on = Broken(executor(scenario, "onnx"), DEFECTS[defect])
    result = judged("odd", play(scenario, on=on).finished, eager, reference)
    assert result.verdict is Verdict.MOVED
    assert result.distance is not None and result.bound is not None
    assert result.distance > 50 * result.bound


def test_the_reference_has_the_weights_of_the_engine_s_dtype_and_the_registry_s_decoder_stays_as_it_is() -> None:
    half: Any = registry.decoder("tiny", dtype=torch.float16)
    double: Any = float64.doubled("tiny", "float16", "cpu")
    assert (half.dtype, double.dtype) == (torch.float16, torch.float64)
    for own, same in zip(double.parameters(), half.parameters(), strict=True):
        assert_identical(own, same.double())


# The verdict.


def tensors(*values: float) -> dict[str, Tensor]:
    return {"r": torch.tensor(values)}


@pytest.mark.parametrize(("found", "verdict"), [
    (2.9999, Verdict.TOLERANCE), (3.0001, Verdict.MOVED), (-0.9999, Verdict.TOLERANCE), (float("nan"), Verdict.MOVED),
])  # fmt: skip
def test_the_bound_is_twice_the_eager_executor_s_distance(found: float, verdict: Verdict) -> None:
    result = judged("r", tensors(found, 0.0), tensors(2.0, 0.0), tensors(1.0, 0.0))
    assert result.verdict is verdict
    assert (result.own, result.bound) == pytest.approx((0.5**0.5, 2**0.5))
    assert (result.distance is None) == math.isnan(found)
    json.dumps(asdict(result), allow_nan=False)  # a report of it can be written


def test_where_the_eager_executor_is_exact_one_last_place_is_allowed() -> None:
    reference = tensors(1.0, -1.0)
    assert judged("r", tensors(1.0 + EPS, -1.0), reference, reference).verdict is Verdict.TOLERANCE
    assert judged("r", tensors(1.0 + 2 * EPS, -1.0), reference, reference).verdict is Verdict.MOVED


@pytest.mark.parametrize("found", [{}, {"other": torch.ones(2)}, {"r": torch.ones(3)}])
def test_other_latents_than_the_eager_executor_s_are_no_distance(found: dict[str, Tensor]) -> None:
    assert judged("r", found, tensors(1.0, 1.0), tensors(1.0, 1.0)).verdict is Verdict.MOVED


def test_bits_that_the_affine_decoder_does_not_have_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly(scenario: Scenario, **more: Any) -> Played:
        played = play(scenario, **more)
        off = {name: latent * (1 + EPS) for name, latent in played.finished.items()}
        return Played(off, played.ticks) if more else played

    monkeypatch.setattr(float64, "play", nearly)
    (result,) = check(Engine(ExecutorKind.ONNX), only=["ode_plain"]).results
    assert (result.verdict, result.bound) == (Verdict.MOVED, 0.0)


# What is not compared, and with what.


def test_an_eager_executor_that_is_not_what_was_blessed_is_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    together = execute._step_together

    def late(plans: Any, states: Any, velocities: Any) -> Any:
        return together(plans, states, {index: v * 1.001 for index, v in velocities.items()})

    monkeypatch.setattr(execute, "_step_together", late)
    report = check(Engine(ExecutorKind.ONNX), only=["ode_plain", "sde_plain"])
    found = [(result.name, result.verdict) for result in report.results]
    assert found == [("sde_plain", Verdict.EXACT), ("ode_plain", Verdict.MOVED)]
    assert not report.passes


def test_without_captures_nothing_is_compared_unless_the_decoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCaptures):
        check(Engine(ExecutorKind.ONNX), captures=tmp_path / "none", only=["ode_plain"])
    assert check(ON_TINY, captures=tmp_path / "none", only=["ode_plain"]).passes


def test_scenarios_of_other_widths_than_the_file_s_are_said_to_be_outside_it() -> None:
    report = check(Engine(ExecutorKind.ONNX, registry.onnx_file("tiny")), only=["ode_plain", "ace_tiny_plain"])
    assert verdicts(report) == {"ode_plain": Verdict.OUTSIDE_PROFILE, "ace_tiny_plain": Verdict.TOLERANCE}
    assert report.passes and "channels D: got 4, the compiled decoder takes 8" in report.results[0].detail
    nothing = check(Engine(ExecutorKind.ONNX, registry.onnx_file("tiny")), only=["ode_plain"])
    assert not nothing.compared and not nothing.passes


def test_a_scenario_s_rows_are_pinned_whatever_ran_on_the_file_before(monkeypatch: pytest.MonkeyPatch) -> None:
    pins: list[Any] = []

    def seen(scenario: Scenario, *, on: Any = None, **more: Any) -> Played:
        pins.extend([] if on is None or isinstance(on, EagerExecutor) else [on.pin_rows])
        return play(scenario, on=on, **more)

    monkeypatch.setattr(float64, "play", seen)
    check(Engine(ExecutorKind.ONNX, registry.onnx_file("tiny")), only=["ode_plain", "ace_tiny_plain"])
    assert pins == [None, 8]


def test_captures_say_nothing_of_a_gpu_nor_of_a_decoder_that_is_named() -> None:
    engines = (Engine(ExecutorKind.ONNX), Engine(ExecutorKind.TENSORRT, device="cuda"), ON_TINY)
    assert [engine.blessed for engine in engines] == [True, False, False]


def test_a_file_that_was_made_for_a_scenario_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    file = registry.onnx_file("tiny")
    monkeypatch.setattr(registry, "onnx_file", lambda _name, **_more: file)
    with pytest.raises(OutsideProfile):
        check(Engine(ExecutorKind.ONNX), only=["ode_plain"])


def test_a_report_says_the_file_and_the_verdicts_and_is_plain_json() -> None:
    file = registry.onnx_file("tiny")
    report = check(Engine(ExecutorKind.ONNX, file), only=["ode_plain", "ace_tiny_plain"])
    assert report.summary().startswith(f"2 scenarios on onnx {file}: 1 tolerance, 1 outside_profile (bits, or 2 times")
    document = report.document()
    assert (document["engine"]["file"], document["engine"]["kind"]) == (str(file), "onnx")
    assert document["scenarios"][1].keys() == {"name", "verdict", "distance", "own", "bound", "detail"}


def test_a_report_counts_every_verdict() -> None:
    for count in (1, 2):
        results = tuple(OnEngine(str(number), Verdict.EXACT) for number in range(count))
        assert f": {count} exact (" in EngineReport(results, Engine(ExecutorKind.ONNX), "here").summary()


# Switches.


def test_every_switch_is_the_same_on_and_off_on_an_engine() -> None:
    results = check_switches(pairs(executors=["onnx"], decoders=["affine"]))
    assert [r for r in results if r.verdict is not Verdict.EXACT] == []
    assert {(r.switch, r.scenario) for r in results} == {(s, n) for s in ALWAYS for n in SCENARIOS}
    assert {r.switch for r in results if r.acted} == set(ALWAYS)


def test_every_switch_is_the_same_on_and_off_on_an_engine_of_the_real_architecture() -> None:
    few = {**FEW, "mixed_ring": SCENARIOS["mixed_ring"]}
    results = check_switches(pairs(few, executors=["onnx"], decoders=["tiny"]), few)
    assert [r for r in results if r.verdict is not Verdict.EXACT] == []
    assert {r.switch for r in results if r.acted} == set(ALWAYS)


def test_a_switch_is_not_compared_outside_a_file_s_profile_and_that_is_no_gap() -> None:
    few = {"cfg_full": SCENARIOS["cfg_full"]}
    chosen = pairs(few, switches=["fused_cfg"], executors=["onnx"], engine=registry.onnx_file("tiny"))
    results = check_switches(chosen, few)
    assert {(r.decoder, r.verdict) for r in results} == {
        ("affine", Verdict.OUTSIDE_PROFILE),
        ("tiny", Verdict.EXACT),
    }


def test_a_switch_s_repro_names_the_file() -> None:
    (pair,) = pairs(FEW, switches=["fused_cfg"], executors=["onnx"], decoders=["tiny"], engine=Path("a b.onnx"))[:1]
    assert pair.repro().endswith("--executor onnx --decoder tiny --engine 'a b.onnx'")


def test_a_file_that_takes_no_mask_is_outside_for_conditions_of_unequal_lengths(tmp_path: Path) -> None:
    file = written(tmp_path / "a.onnx", without=["encoder_mask"])
    asked = Engine(ExecutorKind.ONNX, file, "tiny")
    results = {r.name: r for r in check(asked, only=("multi_cond_padded",)).results}
    assert results["multi_cond_padded"].verdict is Verdict.OUTSIDE_PROFILE
    assert "would attend the padding" in results["multi_cond_padded"].detail
