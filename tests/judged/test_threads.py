"""One torch thread where one is promised, seen from inside the run; and the caller's number after it, whatever happens.

How many threads share a reduction decides the order of its additions, and so its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from harness.cli import main
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.baselines import contract, platform
from harness.parity.baselines.bless import BATTERY, Battery, digests
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Drain, Script, Submit
from harness.parity.proofs import float64, lockstep
from harness.parity.proofs.switches import check_switches, pairs
from harness.rails.bench.throughput import Load, bench
from harness.rails.costs import rails as costs
from harness.rails.costs.block import Block
from harness.registry import ExecutorKind
from tests.judged.conftest import Made

FEW = {"ode_plain": SCENARIOS["ode_plain"]}


def _alone(names: Sequence[str]) -> dict[str, Any]:
    """Replays as a fresh process makes them, whose own threads two tests below look at."""
    with platform.one_thread():
        return {name: BATTERY.play(SCENARIOS[name]) for name in names}


FEW_BATTERY: Battery = replace(
    BATTERY,
    scenarios=FEW,
    fresh=lambda names: {name: digests(played) for name, played in _alone(names).items()},
    plain=lambda names: {name: played.finished for name, played in _alone(names).items()},
)
SCRIPT = Script((Submit(1), Drain()))


class Spy:
    """Notes the number of threads at every run of a decoder, and raises at the first one where it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        self.fails = False
        run = EagerExecutor.run

        def spying(executor: EagerExecutor, batch: Batch) -> Tensor:
            self.seen.append(torch.get_num_threads())
            if self.fails:
                raise RuntimeError("engine broke")
            return run(executor, batch)

        patch.setattr(EagerExecutor, "run", spying)


@pytest.fixture(name="spy")
def _spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def command(*words: str, battery: Battery = FEW_BATTERY) -> Callable[[Made], Any]:
    def act(made: Made) -> Any:
        named = [word.format(captures=made.captures, root=made.root) for word in words]
        return CliRunner().invoke(main, named, obj=battery)

    return act


def probed(_: Made) -> None:
    contract.probe(contract.declared(["affine"], ["eager"], frames=[5], max_rows=1))


def recorded(made: Made) -> None:
    contract.record("why", contract.declared(["affine"], ["eager"], frames=[5], max_rows=1), made.captures)


def counted(_: Made) -> None:
    few = {"plain/1": costs.rails()["plain/1"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "rails", lambda: few)
        costs.counted()


def on_an_engine(_: Made) -> None:
    """A decoder that is named has no captures; the executor that runs the file is an eager one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float64, "executor", lambda scenario, *_: _Engine(AffineDecoder()))
        float64.check(float64.Engine(ExecutorKind.ONNX, Path("a.onnx"), "affine"), FEW)


class _Engine(EagerExecutor):
    signature = type("Signature", (), {"dtypes": {"velocity": torch.float32}})


PROMISED = {
    "check": command("check", "--captures", "{captures}"),
    "check --switches": lambda _: check_switches(
        pairs(FEW, switches=["integrator"], executors=["eager"], decoders=["affine"]), FEW
    ),
    "check --executor": on_an_engine,
    "lockstep": lambda _: lockstep.run(SCRIPT, "integrator"),
    "bless": command("bless", "--reason", "why", "--captures", "{captures}"),
    "the digests of a fresh process": command("_digests", "ode_plain"),
    "the tensors of a fresh process": command("_tensors", "{root}/tensors", "ode_plain"),
    "probe": probed,
    "probe --reason": recorded,
    "costs": counted,
    "bench": command("bench", "--decoder", "affine", "--duration", "0.2", "--ticks", "1", "--warmup", "8"),
}
"""What promises one thread, by name. `bench` has one by default and takes another number from `--threads`."""


@pytest.mark.parametrize("name", PROMISED)
def test_every_run_of_a_decoder_has_one_thread_and_the_caller_its_own_number_after(
    name: str, made: Made, spy: Spy, two_threads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "check":
        _with_a_capture(made, monkeypatch)
        spy.seen.clear()
    PROMISED[name](made)
    assert spy.seen
    assert set(spy.seen) == {1}
    assert two_threads() == 2


@pytest.mark.parametrize("name", PROMISED)
def test_a_run_that_fails_gives_the_caller_its_own_number_too(
    name: str, made: Made, spy: Spy, two_threads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "check":
        _with_a_capture(made, monkeypatch)
        spy.seen.clear()
    spy.fails = True
    with suppress(RuntimeError):
        PROMISED[name](made)
    assert spy.seen
    assert two_threads() == 2


def _with_a_capture(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bless what `check` then plays."""
    blessed = command("bless", "--reason", "why", "--captures", "{captures}")(made)
    assert blessed.exit_code == 0, blessed.output
    made.commit()


def test_a_bench_has_as_many_threads_as_it_was_told(spy: Spy, two_threads: Callable[[], int]) -> None:
    words = ["bench", "--decoder", "affine", "--duration", "0.2", "--ticks", "1", "--warmup", "8", "--threads", "2"]
    torch.set_num_threads(1)
    assert CliRunner().invoke(main, words).exit_code == 0
    assert set(spy.seen) == {2}
    assert two_threads() == 1


def test_the_library_s_bench_leaves_the_number_to_its_caller(spy: Spy, two_threads: Callable[[], int]) -> None:
    bench(Load(decoder="affine", duration=0.2, ticks=1, warmup=8))
    assert set(spy.seen) == {two_threads()} == {2}


FIXTURES = """
import torch

def one():
    assert torch.get_num_threads() == 1
    return torch.ones(2)

def test_blessed(blessed):
    blessed("tree", one)

def test_lockstep(lockstep):
    lockstep(lambda event: one(), lambda event: one(), [1, 2])

def test_cost_rail(cost_rail):
    with cost_rail("rail"):
        one()

def test_beside():
    assert torch.get_num_threads() == 2
"""


@pytest.mark.no_cover
def test_each_fixture_of_the_plugin_has_one_thread(
    pytester: pytest.Pytester, two_threads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    with Block():  # what torch imports when it is first counted
        torch.zeros(1).item()
    pytester.makepyfile(FIXTURES)
    result = pytester.runpytest_inprocess("-p", "harness.plugin", "-p", "no:cacheprovider")
    assert "torch.get_num_threads() == 1" not in result.stdout.str()
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(["*tree was never blessed*", "*rail was never blessed*"])
    assert two_threads() == 2
