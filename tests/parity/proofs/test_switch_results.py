"""Comparisons of a switch on and off with stand-ins for the pipelines: which are made, with what, and what is said."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.errors import InvalidInput, OutsideProfile
from harness.engine.switches import PLAIN_PATH, SWITCHES, Switches
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import SCENARIOS, configuration
from harness.parity.proofs import switches
from harness.parity.proofs.lockstep import Parted
from harness.parity.proofs.switches import (
    DECODERS,
    EVERY,
    Pair,
    SwitchResult,
    check_switches,
    compare,
    executors_of,
    idle,
    pairs,
)
from harness.registry import ExecutorKind
from tests.parity.strategies import ALWAYS

EAGER, STATIC, DEFERRED, GRAPH, COMPILED, ONNX, TENSORRT = ExecutorKind
TWO: Any = {"one": SimpleNamespace(name="one"), "two": SimpleNamespace(name="two")}


# Which comparisons there are.

KINDS: list[tuple[str, list[str], tuple[ExecutorKind, ...], tuple[ExecutorKind, ...]]] = [
    ("cpu", [], (EAGER, STATIC, GRAPH), (DEFERRED,)),
    ("cuda", [], (EAGER, STATIC, GRAPH, COMPILED), (STATIC, GRAPH, COMPILED)),
    ("cuda:1", ["static", "eager"], (EAGER, STATIC), (STATIC,)),
    ("cpu", ["deferred", "static"], (STATIC,), (DEFERRED,)),
    ("cpu", ["deferred"], (), (DEFERRED,)),
    ("cpu", ["eager"], (EAGER,), ()),
    ("cpu", ["onnx", "eager", "onnx"], (EAGER, ONNX), ()),
    ("cuda", ["tensorrt"], (TENSORRT,), (TENSORRT,)),
    ("cpu", ["tensorrt"], (TENSORRT,), ()),
]


@pytest.mark.parametrize(("device", "asked", "any_executor", "own_stream"), KINDS)
def test_a_switch_is_compared_on_the_asked_kinds_in_their_order_and_a_stand_in_is_for_streams_alone(
    device: str, asked: list[str], any_executor: Any, own_stream: Any
) -> None:
    for switch in SWITCHES:
        assert executors_of(switch, device, asked) == (any_executor if switch in ALWAYS else own_stream), switch


def test_pairs_are_of_every_switch_kind_decoder_and_scenario_in_this_order() -> None:
    asked = {"switches": ["host_gates", "fused_cfg"], "executors": ["static", "eager"], "decoders": ["mid", "affine"]}
    where: Any = {"dtype": "float16", "device": "cuda:1", "engine": Path("a.onnx")}
    assert pairs(TWO, **asked, **where) == [
        Pair(switch, scenario, kind, decoder, "float16", "cuda:1", Path("a.onnx"))
        for switch in ("fused_cfg", "host_gates")
        for kind in (EAGER, STATIC)
        for decoder in ("mid", "affine")
        for scenario in ("one", "two")
    ]
    assert pairs(TWO, switches=["joined_stream"]) == [
        Pair("joined_stream", scenario, DEFERRED, decoder, "float32", "cpu", None)
        for decoder in DECODERS
        for scenario in ("one", "two")
    ]
    assert pairs(TWO, switches=["joined_stream"], executors=["eager"]) == pairs({}) == []
    assert DECODERS == ("affine", "tiny")


PAIR = Pair("fused_cfg", "one", ONNX, "tiny")
COMMAND = "python -m harness check --switches"


def test_a_repro_is_the_command_of_this_comparison_and_no_other() -> None:
    assert PAIR.repro() == f"{COMMAND} --only one --switch fused_cfg --executor onnx --decoder tiny"
    other = replace(PAIR, dtype="float16", device="cuda:1", engine=Path("/a/b.onnx"))
    assert other.repro() == f"{PAIR.repro()} --dtype float16 --device cuda:1 --engine /a/b.onnx"


@pytest.mark.parametrize("word", ["a b", "it's", "$HOME", "*", "größe"])
def test_every_word_of_a_repro_is_one_word_of_the_command_line(word: str) -> None:
    pair = replace(PAIR, scenario=word, decoder=f"/models/{word}", engine=Path(f"/plans/{word}"))
    assert shlex.split(pair.repro()) == [
        *COMMAND.split(),
        *("--only", word, "--switch", "fused_cfg", "--executor", "onnx", "--decoder", f"/models/{word}"),
        *("--engine", f"/plans/{word}"),
    ]


# One comparison.


class Two:
    """In place of a lockstep: what it was made with, and how it ends."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[Any] = []
        self.executors: list[tuple[Any, Any]] = []
        self.ends: Exception | None = None
        self.on, self.off = 1, 2
        self.closed = 0
        patch.setattr(switches, "Lockstep", self._make)
        patch.setattr(switches, "executor", self._executor)

    def _executor(self, *asked: Any) -> Any:
        self.executors.append((asked, object()))
        return self.executors[-1][1]

    def _make(self, *words: Any) -> Any:
        self.made.append(words)
        return self

    def __enter__(self) -> Any:
        runs = [SimpleNamespace(decoder_runs=number, euler_steps=0) for number in (self.on, self.off)]
        self.first, self.second = (SimpleNamespace(stats=lambda told=told: told) for told in runs)
        return self

    def __exit__(self, *_: Any) -> None:
        self.closed += 1

    def play(self, player: Any) -> None:
        assert player.pipeline is self
        self.sizes = player.sizes
        if self.ends is not None:
            raise self.ends


@pytest.fixture(name="two")
def _two(monkeypatch: pytest.MonkeyPatch) -> Two:
    return Two(monkeypatch)


def scenario(two: Two) -> Any:
    """One whose other switches are off, of another decoder than the pair's."""
    fields: Any = {"config": {"steps": 7, "shift": 2.0}, "decoder": "tiny", "switches": PLAIN_PATH}
    return replace(SCENARIOS["ode_plain"], name="one", script=two.play, **fields)


RESULT = SwitchResult("fused_cfg", "one", ONNX, "affine", "float16", "cpu", Verdict.EXACT, True)
ASKED = replace(PAIR, decoder="affine", dtype="float16", engine=Path("a.onnx"))


def test_a_comparison_is_of_two_executors_of_the_pair_and_of_configurations_that_differ_in_the_switch(
    two: Two,
) -> None:
    compare(ASKED, scenario(two))
    on_it = replace(scenario(two), decoder="affine", dtype="float16")
    assert [asked for asked, _ in two.executors] == [(on_it, ONNX, Path("a.onnx"))] * 2
    config = configuration(on_it)
    on, off = (replace(config, switches=replace(PLAIN_PATH, fused_cfg=each)) for each in (True, False))
    (first, second), names, repro = two.made[0][:2], *two.made[0][2:]
    assert (first, second) == ((two.executors[0][1], on), (two.executors[1][1], off))
    assert (names, repro) == (("fused_cfg on", "off"), ASKED.repro())
    assert (two.sizes, two.closed) == (on_it.sizes, 1)
    compare(replace(ASKED, switch="integrator", device="meta"), replace(scenario(two), switches=Switches()))
    assert [config.switches.integrator for _, config in two.made[1][:2]] == ["foreach", "per_slot"]
    assert [config.switches.fused_cfg for _, config in two.made[1][:2]] == [True, True]
    assert two.executors[-1][0][0].device == two.sizes.device == "meta"


@pytest.mark.parametrize(("on", "off", "acted"), [(1, 2, True), (2, 2, False), (2, 1, False)])
def test_equal_pipelines_are_exact_and_it_is_said_whether_the_switch_acted(
    on: int, off: int, acted: bool, two: Two
) -> None:
    two.on, two.off = on, off
    assert compare(ASKED, scenario(two)) == replace(RESULT, acted=acted)


def test_pipelines_that_differ_have_moved_and_the_difference_is_told_whole(two: Two) -> None:
    two.ends = Parted("fused_cfg on and off", 3, 1, "decoder", "bytes differ", "repro")
    assert compare(ASKED, scenario(two)) == replace(RESULT, verdict=Verdict.MOVED, detail=str(two.ends))
    assert two.closed == 1


def test_what_a_named_file_does_not_take_is_outside_its_profile_and_an_export_takes_all(two: Two) -> None:
    two.ends = OutsideProfile("frames T: got 12")
    outside = replace(RESULT, verdict=Verdict.OUTSIDE_PROFILE, acted=False, detail="frames T: got 12")
    assert compare(ASKED, scenario(two)) == outside
    with pytest.raises(OutsideProfile):
        compare(replace(ASKED, engine=None), scenario(two))


@pytest.mark.parametrize("error", [InvalidInput("a", "b", "c"), MemoryError("out of memory"), AssertionError("no")])
def test_any_other_error_is_no_verdict(error: Exception, two: Two) -> None:
    two.ends = error
    with pytest.raises(type(error)) as caught:
        compare(ASKED, scenario(two))
    assert caught.value is error and two.closed == 1


# Many comparisons.


def test_every_comparison_is_announced_before_it_runs_and_gaps_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    def said(pair: Pair, scenario: Any) -> SwitchResult:
        log.append((pair, scenario.name))
        return switches._result(pair, Verdict.EXACT, pair.switch == "integrator" and pair.scenario == "two")

    monkeypatch.setattr(switches, "compare", said)
    chosen = pairs(TWO, switches=["fused_cfg", "integrator"], executors=["eager"], decoders=["tiny"])
    results = check_switches(chosen, TWO, log.append)
    wanted: list[Any] = []
    for pair in chosen:
        wanted += [f"{pair.switch} {pair.scenario}", (pair, pair.scenario)]
    assert log == wanted
    own = [switches._result(pair, Verdict.EXACT, number == 3) for number, pair in enumerate(chosen)]
    detail = "fused_cfg acted in no scenario: equal results prove nothing"
    gap = SwitchResult(
        "fused_cfg", EVERY, EAGER, "tiny", "float32", "cpu", Verdict.NOT_GATED, acted=False, detail=detail
    )
    assert results == [*own, gap]
    assert check_switches(chosen, TWO, whole=False) == own
    assert check_switches([], TWO) == []


def test_a_gap_is_of_what_was_compared_and_never_acted() -> None:
    """A comparison outside the profile says nothing; one that moved has acted."""
    silent = SwitchResult("fused_cfg", "a", ONNX, "tiny", "float32", "cpu", Verdict.EXACT, False)
    outside = replace(silent, scenario="b", verdict=Verdict.OUTSIDE_PROFILE, detail="frames T")
    moved = replace(silent, scenario="c", verdict=Verdict.MOVED, acted=True, detail="bytes differ")
    detail = "fused_cfg acted in no scenario: equal results prove nothing"
    gap = replace(silent, scenario=EVERY, verdict=Verdict.NOT_GATED, detail=detail)
    assert list(idle([])) == list(idle([outside])) == []
    assert list(idle([silent, outside])) == list(idle([outside, silent])) == list(idle([silent] * 3)) == [gap]
    assert list(idle([silent, outside, moved])) == list(idle([moved, outside, silent])) == []
    other = replace(silent, switch="integrator")
    assert [found.switch for found in idle([other, silent, other, silent])] == ["integrator", "fused_cfg"]
