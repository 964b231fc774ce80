"""What promises to be repeated is counted as it is called, and the numbers are those of the documents."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from harness.cli import main
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.session import Stream
from harness.parity.baselines import blessed, contract
from harness.parity.baselines.blessed import Place
from harness.parity.baselines.platform import ROOT
from harness.parity.proofs import invariance
from harness.parity.proofs.invariance import Property, Rows, measure
from harness.rails.bench import bare, throughput
from harness.rails.bench.throughput import Load, bench
from harness.rails.costs import rails as costs
from tests.bench import rails
from tests.judged.conftest import Made
from tests.rails.costs.test_rails import alter


def said_in(path: str) -> str:
    """A document with single spaces."""
    return re.sub(r"\s+", " ", (ROOT / "docs" / path).read_text())


# Replays before blessing.


def test_bless_replays_a_scenario_three_times_one_of_them_in_a_fresh_process(made: Made) -> None:
    assert "three replays of a scenario, one of them in a fresh process" in said_in("captures.md")
    made.nudge(1)
    made.invoke("bless", "--reason", "why")
    assert {name: len(calls) for name, calls in made.calls.items()} == {"alpha": 2, "beta": 2}
    assert made.fresh_calls == [["alpha", "beta"]]


def test_a_tree_is_made_three_times_before_it_is_blessed_and_once_to_compare(tmp_path: Path) -> None:
    assert "called three times and must return the same bytes each time" in said_in("plugin.md")
    calls: list[int] = []

    def tree() -> Any:
        calls.append(1)
        return {"x": torch.ones(2)}

    assert blessed.bless("tree", tree(), tree, Place(tmp_path, tmp_path), "why") is not None
    assert len(calls) == 3


def test_a_contract_is_measured_twice_before_it_is_recorded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a second measurement says something else" in (contract.record.__doc__ or "")
    calls: Counter[str] = Counter()
    whole = {asked: {1: True} for asked in Property}
    monkeypatch.setattr(contract, "measured", lambda subject: (calls.update([subject.name]), whole)[1])
    subjects = contract.declared(["affine"], ["eager"], frames=[5], max_rows=1)
    contract.probe(subjects, made.captures)
    assert set(calls.values()) == {1}
    contract.record("why", subjects, made.captures)
    assert set(calls.values()) == {3}, "one more to compare, and one more to see that it is the same again"


def test_costs_are_counted_three_times_one_of_them_in_a_fresh_process(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a second count, in this or in a fresh process, differs" in re.sub(r"\s+", " ", costs.bless.__doc__ or "")
    calls: Counter[str] = Counter()
    counts = {"one": {"ticks": 8}}
    monkeypatch.setattr(costs, "counted", lambda *_: (calls.update(["here"]), counts)[1])
    monkeypatch.setattr(costs, "counted_afresh", lambda: (calls.update(["afresh"]), counts)[1])
    assert made.invoke("bless", "--costs", "--reason", "why").exit_code == 0
    assert calls == {"here": 2, "afresh": 1}
    alter(made.captures, lambda rails: rails["one"].update(ticks=9))
    calls.clear()
    assert made.invoke("check", "--costs").exit_code == 1
    assert calls == {"here": 1}


# Reruns of the probe.


class Counting(EagerExecutor):
    """Counts runs by their rows' number."""

    def __init__(self) -> None:
        super().__init__(AffineDecoder(16), 2)
        self.runs: list[int] = []

    def run(self, batch: Batch) -> torch.Tensor:
        self.runs.append(batch.rows)
        return super().run(batch)


def test_a_rerun_is_twenty_more_runs() -> None:
    assert "`rerun`: twenty more runs give the same results" in re.sub(r"\s+", " ", Property.__doc__ or "")
    executor = Counting()
    probe = invariance._Probe(executor, Rows(4, 16, 3, torch.device("cpu")))
    assert probe.rerun(2)
    assert executor.runs == [2] * 21


@pytest.mark.parametrize(("at", "holds"), [(21, False), (22, True)])
def test_the_twentieth_rerun_counts_and_there_is_no_further_one(at: int, holds: bool) -> None:
    executor = Counting()
    run = executor.run

    def late(batch: Batch) -> torch.Tensor:
        out = run(batch)
        return out + 1 if len(executor.runs) == at else out

    executor.run = late  # type: ignore[method-assign]
    assert invariance._Probe(executor, Rows(4, 16, 3, torch.device("cpu"))).rerun(1) is holds


def test_every_property_runs_the_rows_that_it_speaks_of() -> None:
    """Where a property made fewer runs, it would hold for want of a comparison."""
    found = {}
    for asked in Property:
        executor = Counting()
        probe = invariance._Probe(executor, Rows(4, 16, 3, torch.device("cpu")))
        getattr(probe, asked.value)(1 if asked is Property.FUSED else 2)
        found[asked.value] = executor.runs
    assert found == {
        "fused": [2, 1, 1],
        "rows_alone": [2, 1, 1],
        "permutation": [2, 2, 2, 2],
        "neighbours": [2, 2, 2],
        "duplicates": [2],
        "padding": [2, 2],
        "rerun": [2] * 21,
    }
    assert set(measure(Counting(), Rows(4, 16, 3, torch.device("cpu")))) == set(Property)


# Warm-ups and turns.


def test_a_bench_warms_up_for_30_ticks_and_measures_200(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that `--help` shows; each is counted at the stream."""
    shown = re.sub(r"\s+", " ", CliRunner().invoke(main, ["bench", "--help"]).stdout)
    assert re.search(r"--warmup INTEGER Ticks before it, at least --steps\. \[default: 30\]", shown)
    assert re.search(r"--ticks INTEGER In the window that is measured\. \[default: 200\]", shown)
    load, calls, at = Load(decoder="affine", duration=0.2), Counter[str](), ["warm-up"]
    tick, window = Stream.tick, throughput.Driver.window

    def counted(self: Any, *args: Any, **asked: Any) -> Any:
        calls[at[0]] += 1
        return tick(self, *args, **asked)

    def within(self: Any, *args: Any) -> Any:
        at[0] = "window"
        try:
            return window(self, *args)
        finally:
            at[0] = "after"

    monkeypatch.setattr(Stream, "tick", counted)
    monkeypatch.setattr(throughput.Driver, "window", within)
    monkeypatch.setattr(throughput.Driver, "latency", lambda self: throughput.Latency(0, 0, 0, 0))
    bench(load)
    assert (calls["warm-up"], calls["window"]) == (30, 200)


def test_the_bare_decoder_runs_three_times_before_the_clock_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = SimpleNamespace(mark=lambda: calls.append("mark"), between=lambda: [1.0])
    monkeypatch.setattr(bare, "HostClock", lambda: clock)
    bare.back_to_back(lambda: calls.append("run"), on_gpu=False)
    marks = [at for at, what in enumerate(calls) if what == "mark"]
    groups, forwards = len(marks) - 1, marks[1] - marks[0] - 1
    words = re.sub(r"\s+", " ", inspect.getsource(bare))
    assert marks[0] == 3
    assert f"GROUPS = {groups}" in words or f"GROUPS, FORWARDS = {groups}, {forwards}" in words
    assert len(calls) == 3 + len(marks) + groups * forwards


def test_a_time_rail_takes_15_turns_after_2_of_warm_up_and_again_where_it_is_beyond_the_bound() -> None:
    assert "median of 15 turns, after 2 turns of warm-up" in said_in("costs.md")
    calls: Counter[str] = Counter()

    class Benchmark:
        disabled = False
        extra_info: dict[str, Any] = {}

        def pedantic(self, target: Any, setup: Any, rounds: int, warmup_rounds: int) -> None:
            calls.update(rounds=rounds, warmup_rounds=warmup_rounds)
            for _ in range(rounds + warmup_rounds):
                setup()
                target()

    def side(name: str) -> Callable[[], None]:
        return lambda: calls.update([name])

    sides = [side("first"), side("twin"), side("other")]
    rails.gate(rails.Rail("wide", 1e9), *sides, Benchmark())
    assert calls == {"rounds": 15, "warmup_rounds": 2, "first": 17, "twin": 17, "other": 17}
    calls.clear()
    with pytest.raises(AssertionError, match="and again"):
        rails.gate(rails.Rail("narrow", 0.0), *sides, Benchmark())
    assert calls == {"rounds": 15, "warmup_rounds": 2, "first": 32, "twin": 32, "other": 32}


# The same again.


@pytest.mark.parametrize("load", [{}, {"cfg": "full"}, {"denoise": 0.5}, {"decoder": "tiny"}], ids=str)
def test_a_bench_makes_the_same_latents_in_every_run(load: dict[str, Any]) -> None:
    asked = Load(**{"decoder": "affine", "duration": 0.64, "ticks": 8, "warmup": 8, **load})
    first = bench(asked)
    torch.manual_seed(7)
    again = bench(asked)
    assert first.outputs == again.outputs
    assert first.latents == again.latents > 0


def test_a_fresh_replay_has_the_digests_of_one_in_this_process() -> None:
    """What `bless` and `compare` ask fresh processes for; here in this process, without the battery's own play."""
    words = ["_digests", "ode_plain"]
    first, second = (json.loads(CliRunner().invoke(main, words, obj=_battery()).stdout) for _ in range(2))
    assert first == second
    assert len(first["ode_plain"]["ticks"]) > 1


def _battery() -> Any:
    from harness.parity.baselines.bless import BATTERY  # noqa: PLC0415

    return BATTERY
