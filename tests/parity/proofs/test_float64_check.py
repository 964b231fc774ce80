"""The check of a compiled decoder on stand-ins: what it plays, keeps and closes, and what it says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.engine.errors import OutsideProfile
from harness.parity.baselines import captures, platform
from harness.parity.baselines.captures import Report
from harness.parity.baselines.store import NoCaptures
from harness.parity.baselines.verdicts import EPS, Result, Verdict
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, pinned
from harness.parity.proofs import float64
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine, check, in_double, judged
from harness.registry import ExecutorKind

Tensors = Mapping[str, Tensor]
ONNX, TENSORRT = ExecutorKind.ONNX, ExecutorKind.TENSORRT
ONES, HALF, MORE, LESS = ({"r": torch.tensor([value])} for value in (1.0, 0.5, 1.5, 0.75))


def scenarios(**decoders: str) -> dict[str, Scenario]:
    return {name: replace(SCENARIOS["ode_plain"], name=name, decoder=decoder) for name, decoder in decoders.items()}


class Stand:
    """In place of all that takes time; `log` says in which order it was asked for what."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.of_file = "float32"
        self.found: dict[str, Any] = {}
        self.eager, self.double = ONES, HALF
        patch.setattr(registry, "engine_for", lambda kind, name, **more: Path(f"{name}.{more['dtype']}.{kind}"))
        patch.setattr(float64, "executor", self._executor)
        patch.setattr(float64, "play", self._play)
        patch.setattr(float64, "in_double", self._double)

    def _executor(self, scenario: Scenario, kind: str, file: Path) -> Any:
        words = f"{kind} {file} pinned {pinned(scenario)}"
        self.log.append(f"open {words}")
        signature = SimpleNamespace(dtypes={"velocity": getattr(torch, self.of_file)})
        return SimpleNamespace(signature=signature, name=words, close=lambda: self.log.append(f"close {words}"))

    def _play(self, scenario: Scenario, on: Any = None) -> Played:
        words = f"play {scenario.name} {scenario.decoder} {scenario.dtype} {scenario.device}"
        self.log.append(words if on is None else f"{words} on {on.name}")
        found = self.eager if on is None else self.found.get(scenario.name, self.eager)
        if isinstance(found, Exception):
            raise found
        return Played(dict(found), ())

    def _double(self, scenario: Scenario) -> Tensors:
        self.log.append(f"double {scenario.name} {scenario.decoder} {scenario.dtype} {scenario.device}")
        return self.double

    def check(self, engine: Engine, battery: dict[str, Scenario], **more: Any) -> EngineReport:
        return check(engine, battery, advance=lambda name: self.log.append(f"advance {name}"), **more)


@pytest.fixture(name="stand")
def _stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


# What is played, and on what.


def test_every_scenario_is_played_on_its_decoder_s_file_which_is_opened_once_and_closed_at_the_end(
    stand: Stand,
) -> None:
    stand.found["c"] = MORE
    report = stand.check(Engine(ONNX, device="cuda"), scenarios(a="affine", b="tiny", c="tiny", d="mid", e="affine"))
    affine, tiny, mid = (
        f"onnx {name}.float32.onnx pinned {pins}" for name, pins in (("affine", None), ("tiny", 8), ("mid", 8))
    )
    wanted: list[str] = []
    for name, decoder, file in (
        ("a", "affine", affine),
        ("b", "tiny", tiny),
        ("c", "tiny", tiny),
        ("d", "mid", mid),
        ("e", "affine", affine),
    ):
        what = f"{name} {decoder} float32 cuda"
        wanted += [f"advance {name}", *([f"open {file}"] if f"open {file}" not in wanted else [])]
        wanted += [f"play {what} on {file}", f"play {what}", *([f"double {what}"] if name == "c" else [])]
    assert stand.log[: len(wanted)] == wanted
    assert sorted(stand.log[len(wanted) :]) == sorted(f"close {file}" for file in (affine, tiny, mid))
    assert [(result.name, result.verdict) for result in report.results] == [
        *((name, Verdict.EXACT) for name in "ab"),
        ("c", Verdict.TOLERANCE),
        *((name, Verdict.EXACT) for name in "de"),
    ]


def test_on_a_file_of_its_own_every_scenario_has_the_named_decoder_and_each_number_of_pinned_rows_its_executor(
    stand: Stand, tmp_path: Path
) -> None:
    file = tmp_path / "a.onnx"
    stand.check(Engine(ONNX, file, device="cuda"), scenarios(a="affine", b="tiny"))
    opened = [line for line in stand.log if line.startswith("open")]
    assert opened == [f"open onnx {file} pinned None", f"open onnx {file} pinned 8"]
    stand.log.clear()
    stand.check(Engine(ONNX, file, "mid"), scenarios(a="affine", b="tiny"))
    assert [line for line in stand.log if line.startswith("open")] == [f"open onnx {file} pinned 8"]
    assert [line for line in stand.log if line.startswith("play") and " on " not in line] == [
        "play a mid float32 cpu",
        "play b mid float32 cpu",
    ]


@pytest.mark.parametrize("made", ["float32", "float16"])
@pytest.mark.parametrize("of_file", ["float32", "float16"])
def test_the_eager_executor_and_the_replay_in_float64_have_the_dtype_that_the_file_turns_out_to_have(
    made: str, of_file: str, stand: Stand
) -> None:
    stand.of_file, stand.found["a"] = of_file, MORE
    stand.check(Engine(TENSORRT, dtype=made, device="cuda"), scenarios(a="tiny"))
    file = f"tensorrt tiny.{made}.tensorrt pinned 8"
    assert stand.log == [
        "advance a",
        f"open {file}",
        f"play a tiny {made} cuda on {file}",
        f"play a tiny {of_file} cuda",
        f"double a tiny {of_file} cuda",
        f"close {file}",
    ]


def test_a_replay_that_the_captures_hold_is_no_measure_of_a_file_of_another_dtype(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blessed_check(chosen: Any, play: Any, *_: Any) -> Report:
        return Report(tuple(Result(name, Verdict.EXACT) for name in chosen if play(chosen[name])), "here", {})

    monkeypatch.setattr(captures, "check", blessed_check)
    monkeypatch.setattr(float64, "sources", lambda *_: ())
    stand.of_file = "bfloat16"
    stand.check(Engine(ONNX), scenarios(a="tiny"))
    eager = [line for line in stand.log if line.startswith("play") and " on " not in line]
    assert eager == ["play a tiny float32 cpu", "play a tiny bfloat16 cpu"]


def test_files_are_closed_also_where_a_scenario_fails(stand: Stand) -> None:
    stand.found["b"] = OutsideProfile("frames T")
    with pytest.raises(OutsideProfile):
        stand.check(Engine(ONNX, device="cuda"), scenarios(a="affine", b="tiny", c="affine"))
    assert sorted(line for line in stand.log if line.startswith("close")) == [
        "close onnx affine.float32.onnx pinned None",
        "close onnx tiny.float32.onnx pinned 8",
    ]
    assert not any(line.startswith(("advance c", "play c")) for line in stand.log)


def test_without_captures_no_replay_begins(stand: Stand, tmp_path: Path) -> None:
    with pytest.raises(NoCaptures):
        stand.check(Engine(ONNX), scenarios(a="affine"), captures=tmp_path / "none")
    assert stand.log == []


def test_the_replay_that_was_compared_with_the_captures_is_the_one_that_the_engine_is_held_against(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not as blessed has that verdict, after the others', and is not played again."""
    judged_so = {"a": Verdict.EXACT, "b": Verdict.MOVED, "c": Verdict.TOLERANCE, "d": Verdict.MISSING}
    asked: list[Any] = []

    def blessed_check(chosen: Any, play: Any, folder: Path, only: Any) -> Report:
        asked.append((list(chosen), folder, only, {name: play(chosen[name]).finished for name in chosen}))
        return Report(tuple(Result(name, judged_so[name], detail=name) for name in chosen), "here", {})

    monkeypatch.setattr(captures, "check", blessed_check)
    monkeypatch.setattr(float64, "sources", lambda *_: ())
    battery = scenarios(a="affine", b="affine", c="tiny", d="tiny", e="tiny")
    report = stand.check(Engine(ONNX), battery, captures=tmp_path, only=["d", "c", "b", "a"])
    names = ["a", "b", "c", "d"]
    assert asked == [(names, tmp_path, tuple(names), dict.fromkeys(names, ONES))]
    affine, tiny = "onnx affine.float32.onnx pinned None", "onnx tiny.float32.onnx pinned 8"
    assert stand.log[:-2] == [
        *(f"play {name} {battery[name].decoder} float32 cpu" for name in names),
        *("advance a", f"open {affine}", f"play a affine float32 cpu on {affine}"),
        "advance b",
        *("advance c", f"open {tiny}", f"play c tiny float32 cpu on {tiny}"),
        "advance d",
    ]
    assert report.results == (
        *(OnEngine(name, Verdict.EXACT, bound=0.0) for name in "ac"),
        *(Result(name, judged_so[name], detail=name) for name in "bd"),
    )
    assert not report.passes


def test_a_scenario_is_played_as_the_engine_is() -> None:
    scenario = replace(SCENARIOS["sde_plain"], decoder="tiny")
    assert Engine(ONNX, dtype="float16", device="cuda:1").of(scenario) == replace(
        scenario, dtype="float16", device="cuda:1"
    )
    assert Engine(ONNX, decoder="mid").of(scenario) == replace(scenario, decoder="mid")
    assert Engine(ONNX).of(replace(scenario, dtype="float16", device="cuda")) == scenario


@pytest.mark.parametrize(("engine", "blessed"), [
    (Engine(ONNX), True), (Engine(ONNX, Path("a.onnx")), True), (Engine(ONNX, dtype="float16"), True),
    (Engine(ONNX, decoder="affine"), False), (Engine(TENSORRT, device="cuda:1"), False),
    (Engine(ONNX, decoder="tiny", device="cuda"), False),
])  # fmt: skip
def test_captures_are_of_each_scenario_s_own_decoder_on_the_cpu(engine: Engine, blessed: bool) -> None:
    assert engine.blessed is blessed


# The replay in float64.


@pytest.mark.parametrize(("decoder", "pins"), [("tiny", 8), ("affine", None)])
def test_the_replay_in_float64_is_of_the_same_rows_and_its_executor_is_closed(
    decoder: str, pins: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []

    def eager(*words: Any, **more: Any) -> Any:
        log.append((words, more))
        return SimpleNamespace(close=lambda: log.append("closed"))

    def play(scenario: Scenario, on: Any) -> Played:
        log.append(scenario)
        return Played(dict(HALF), ())

    monkeypatch.setattr(float64, "doubled", lambda *words: words)
    monkeypatch.setattr(float64, "EagerExecutor", eager)
    monkeypatch.setattr(float64, "play", play)
    scenario = replace(SCENARIOS["odd_length"], decoder=decoder, dtype="float16", device="meta")
    assert in_double(scenario) == HALF
    assert log == [(((decoder, "float16", "meta"),), {"pin_rows": pins}), scenario, "closed"]


@pytest.fixture(name="fresh")
def _fresh() -> Iterator[None]:
    float64.doubled.cache_clear()
    yield
    float64.doubled.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_decoder_in_float64_is_another_one_for_every_name_dtype_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[Any, Any] = {}

    def decoder(name: str, *, dtype: torch.dtype, device: str) -> Any:
        linear = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(linear.weight, 1 + len(made) / 3)
        return made.setdefault((name, dtype, device), linear.to(dtype))

    monkeypatch.setattr(registry, "decoder", decoder)
    asked = [("a", "float32", "cpu"), ("b", "float32", "cpu"), ("b", "float16", "cpu"), ("b", "float16", "meta")]
    for name, dtype, device in [*asked, *asked]:
        found: Any = float64.doubled(name, dtype, device)
        own = made[name, getattr(torch, dtype), device]
        assert (found.weight.dtype, own.weight.dtype) == (torch.float64, getattr(torch, dtype))
        assert found.weight.item() == own.weight.item()
        assert found is not own


# The distance.


def two(first: list[float], *second: float) -> dict[str, Tensor]:
    return {"a": torch.tensor(first), "b": torch.tensor(second)}


def test_the_distance_is_of_all_latents_as_if_they_were_one() -> None:
    """Of four values that are 2, 0, 0 and 4 off: the root of 5."""
    reference = two([0.0, 1.0, 2.0], 3.0)
    found, eager = two([2.0, 1.0, 2.0], 7.0), two([0.0, 1.0, 2.0], 1.0)
    result = judged("two", found, eager, reference)
    root = float(torch.tensor(5.0, dtype=torch.float64).sqrt())
    assert result == OnEngine("two", Verdict.MOVED, root, 1.0, 2.0, "rms Δ 2.24 > 2, eager 1")
    nearer = judged("two", two([0.0, 1.0, 2.0], 7.0), eager, reference)
    assert nearer == OnEngine("two", Verdict.TOLERANCE, 2.0, 1.0, 2.0, "rms Δ 2 <= 2, eager 1")


def test_the_least_bound_is_of_all_latents_of_the_replay_in_float64() -> None:
    """Their root mean square is 3. The eager executor's is another one, though it is nearly exact."""
    reference = two([1.0, 1.0], 5.0)
    eager, least = two([1.0 + EPS, 1.0], 5.0), 3.0 * EPS
    result = judged("two", two([1.0, 1.0], 5.0 + 2**-21), eager, reference)
    assert result.bound == least
    assert result.distance == float(torch.tensor(2**-42 / 3, dtype=torch.float64).sqrt())
    assert result.verdict is Verdict.TOLERANCE
    assert judged("two", two([1.0, 1.0], 9.0), eager, reference).bound == least


def test_distances_are_taken_in_float64() -> None:
    reference = {"r": torch.tensor([1e-9])}
    result = judged("r", {"r": torch.tensor([-1.0])}, {"r": torch.tensor([1.0])}, reference)
    small = float(torch.tensor(1e-9).double())
    assert (result.distance, result.own, result.bound) == (1.0 + small, 1.0 - small, 2 * (1.0 - small))
    assert result.verdict is Verdict.TOLERANCE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("engine_s", ["exact", "near", "infinite"])
def test_where_the_eager_executor_is_not_finite_there_is_no_bound_and_nothing_passes(
    engine_s: str, value: float
) -> None:
    reference = two([1.0, 2.0], 3.0)
    found = {
        "exact": reference,
        "near": two([1.0, 2.0], 3.5),
        "infinite": two([float("inf"), 2.0], 3.0),
    }[engine_s]
    result = judged("two", found, two([1.0, value], 3.0), reference)
    assert result.verdict is Verdict.MOVED
    assert (result.own, result.bound) == (None, None)
    assert (result.distance is None) == (engine_s == "infinite")


@pytest.mark.parametrize("side", [0, 1, 2])
@pytest.mark.parametrize("other", [{}, {"a": torch.ones(2)}, {"a": torch.ones(2), "c": torch.ones(1)},
                                   {"a": torch.ones(2), "b": torch.ones(1, 1)}])  # fmt: skip
def test_latents_of_other_names_or_shapes_on_any_of_the_three_are_no_distance(side: int, other: Any) -> None:
    sides: list[Any] = [two([1.0, 1.0], 1.0) for _ in range(3)]
    sides[side] = other
    assert judged("s", *sides) == OnEngine("s", Verdict.MOVED, detail="other latents finished, or with other shapes")


# What is said.


def test_each_verdict_says_what_was_compared_and_no_more(stand: Stand, tmp_path: Path) -> None:
    stand.found.update(
        b=MORE, c=LESS, d={"r": torch.tensor([3.0])}, e=OutsideProfile("frames T: got 12"), f={"s": HALF["r"]}
    )
    battery = scenarios(a="tiny", b="affine", c="tiny", d="tiny", e="tiny", f="affine")
    results = stand.check(Engine(ONNX, tmp_path / "a.onnx", device="cuda"), battery).results
    assert results == (
        OnEngine("a", Verdict.EXACT, bound=0.0),
        OnEngine(
            "b",
            Verdict.MOVED,
            bound=0.0,
            detail="not the eager executor's bits: r: bytes differ in 1 of 1 elements, first at index [0]: "
            "got 1.5 (0x3fc00000), expected 1.0 (0x3f800000); max |Δ| 0.5; max 4194304 ULP",
        ),
        OnEngine("c", Verdict.TOLERANCE, 0.25, 0.5, 1.0, "rms Δ 0.25 <= 1, eager 0.5"),
        OnEngine("d", Verdict.MOVED, 2.5, 0.5, 1.0, "rms Δ 2.5 > 1, eager 0.5"),
        OnEngine("e", Verdict.OUTSIDE_PROFILE, detail="frames T: got 12"),
        OnEngine(
            "f",
            Verdict.MOVED,
            bound=0.0,
            detail="not the eager executor's bits: r: missing, expected torch.float32 tensor of shape [1]; "
            "s: unexpected, got torch.float32 tensor of shape [1]",
        ),
    )


def test_a_report_is_of_the_engine_and_of_this_platform(stand: Stand) -> None:
    engine = Engine(ONNX, decoder="tiny")
    report = stand.check(engine, scenarios(a="tiny"))
    with platform.one_thread():
        here = platform.fingerprint()
    assert (report.engine, report.platform, report.fingerprint) == (engine, platform.name(), here)


REPORT = EngineReport(
    (
        OnEngine("a", Verdict.TOLERANCE, 0.25, 0.5, 1.0, "near"),
        OnEngine("b", Verdict.OUTSIDE_PROFILE, detail="frames T"),
        Result("c", Verdict.MOVED, 0.5, 0.0, "far", "there"),
    ),
    Engine(ONNX, Path("x y.onnx"), "tiny", "float16", "cuda"),
    "board",
    {"cpu": "one"},
)


def test_a_report_in_json_has_all_that_it_holds() -> None:
    document = REPORT.document()
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "scenarios": [
            {"name": "a", "verdict": "tolerance", "distance": 0.25, "own": 0.5, "bound": 1.0, "detail": "near"},
            {
                "name": "b",
                "verdict": "outside_profile",
                "distance": None,
                "own": None,
                "bound": None,
                "detail": "frames T",
            },
            {
                "name": "c",
                "verdict": "moved",
                "max_abs": 0.5,
                "bound": 0.0,
                "detail": "far",
                "compared_with": "there",
            },
        ],
        "engine": {"kind": "onnx", "file": "x y.onnx", "decoder": "tiny", "dtype": "float16", "device": "cuda"},
        "platform": {"name": "board", "fingerprint": {"cpu": "one"}},
    }
    none = replace(REPORT, engine=Engine(TENSORRT)).document()["engine"]
    assert none == {"kind": "tensorrt", "file": None, "decoder": None, "dtype": "float32", "device": "cpu"}


def test_a_summary_is_one_line_of_all_verdicts_and_the_bound() -> None:
    bound = "(bits, or 2 times the eager executor's distance from float64)"
    assert REPORT.summary() == (f"3 scenarios on onnx x y.onnx: 1 tolerance, 1 moved, 1 outside_profile {bound}")
    one = EngineReport((OnEngine("a", Verdict.EXACT),), Engine(TENSORRT), "board")
    assert one.summary() == f"1 scenario on tensorrt: 1 exact {bound}"


@pytest.mark.parametrize("verdict", Verdict)
def test_a_report_passes_where_something_was_compared_and_nothing_that_was_failed(verdict: Verdict) -> None:
    def told(*results: OnEngine | Result) -> tuple[bool, bool]:
        report = EngineReport(results, Engine(ONNX), "here")
        return report.compared, report.passes

    outside, exact = OnEngine("o", Verdict.OUTSIDE_PROFILE), OnEngine("e", Verdict.EXACT)
    passes = verdict in (Verdict.EXACT, Verdict.TOLERANCE)
    compared = verdict is not Verdict.OUTSIDE_PROFILE
    for result in (OnEngine("r", verdict), Result("r", verdict)):
        assert told(result) == told(outside, result) == told(result, outside) == (compared, passes)
        assert told(exact, result) == told(result, exact) == (True, passes or not compared)
    assert told() == (False, False)
