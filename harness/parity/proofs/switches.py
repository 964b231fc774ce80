"""Lockstep of the battery with each switch on and off, on every kind of executor and with both decoders."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import registry
from harness.engine.config import PipelineConfig
from harness.engine.errors import OutsideProfile
from harness.engine.switches import SWITCHES
from harness.parity.baselines import platform
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, Scenario, configuration, executor
from harness.parity.proofs.lockstep import Lockstep, Parted, acted, one_apart
from harness.registry import ExecutorKind

DECODERS = (registry.AFFINE, "tiny")
EVERY = "*"
"""In place of a scenario's name, for all scenarios."""


@dataclass(frozen=True)
class Pair:
    """One comparison: a scenario on two pipelines that differ in one switch.

    Attributes:
        switch: name of the switch.
        scenario: name of the scenario.
        executor: kind of the executors.
        decoder: name of the decoder; see `registry.decoder`.
        dtype: name of the dtype in which the decoder computes.
        device: device of the decoder and of all tensors.
        engine: file of the compiled decoder, for a kind that runs one; None is the default of `registry.engine_for`.
    """

    switch: str
    scenario: str
    executor: ExecutorKind
    decoder: str
    dtype: str = "float32"
    device: str = "cpu"
    engine: Path | None = None

    def repro(self) -> str:
        """Return the command that runs this comparison alone."""
        words = ["--only", self.scenario, "--switch", self.switch, "--executor", self.executor]
        words += ["--decoder", self.decoder]
        usual = (self.dtype, self.device) == ("float32", "cpu")
        words += [] if usual else ["--dtype", self.dtype, "--device", self.device]
        words += [] if self.engine is None else ["--engine", str(self.engine)]
        return f"python -m harness check --switches {shlex.join(words)}"


@dataclass(frozen=True)
class SwitchResult:
    """Verdict of one comparison, or of a switch that acted in no scenario.

    Attributes:
        switch: name of the switch.
        scenario: name of the scenario, or `EVERY`.
        executor: kind of the executors.
        decoder: name of the decoder.
        dtype: name of the decoder's dtype.
        device: device of the decoder.
        verdict: `exact`; `moved` where the pipelines differ; `not_gated` where the switch acted in no scenario, so that
            nothing was compared; `outside_profile` where the compiled decoder does not take the scenario's rows.
        acted: the switch changed the work of one of the pipelines.
        detail: the difference or the reason, in words; empty for `exact`.
    """

    switch: str
    scenario: str
    executor: ExecutorKind
    decoder: str
    dtype: str
    device: str
    verdict: Verdict
    acted: bool
    detail: str = ""


def executors_of(switch: str, device: str = "cpu", asked: Sequence[str] = ()) -> tuple[ExecutorKind, ...]:
    """Kinds of executor on which a switch is compared, by the switch's record.

    Args:
        switch: name of the switch.
        device: device of the decoder.
        asked: the kinds to choose from; empty: every kind that runs the decoder itself there.
    """
    kinds = [kind for kind in ExecutorKind if kind in asked] or list(registry.live(device))
    if SWITCHES[switch].needs_own_stream:
        return tuple(kind for kind in kinds if kind.has_own_stream(device))
    return tuple(kind for kind in kinds if not kind.record.stand_in)


def pairs(
    scenarios: Mapping[str, Scenario] = SCENARIOS,
    *,
    switches: Sequence[str] = (),
    executors: Sequence[str] = (),
    decoders: Sequence[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
    engine: Path | None = None,
) -> list[Pair]:
    """List the comparisons of every named switch, executor, decoder and scenario.

    Args:
        scenarios: the battery, by name.
        switches: names of switches; empty: all.
        executors: kinds of executor; empty: every kind that runs the decoder itself.
        decoders: names of decoders, see `registry.decoder`; empty: `DECODERS`.
        dtype: name of the dtype in which decoders compute.
        device: device of the decoders.
        engine: file of the compiled decoder, for a kind that runs one; None is the default of `registry.engine_for`.
    """
    return [
        Pair(switch, scenario, kind, decoder, dtype, device, engine)
        for switch in SWITCHES
        if not switches or switch in switches
        for kind in executors_of(switch, device, executors)
        for decoder in decoders or DECODERS
        for scenario in scenarios
    ]


def check_switches(
    chosen: Sequence[Pair],
    scenarios: Mapping[str, Scenario] = SCENARIOS,
    advance: Callable[[str], None] = lambda _name: None,
    *,
    whole: bool = True,
) -> list[SwitchResult]:
    """Run comparisons with one torch thread; return a result for each.

    Args:
        chosen: the comparisons.
        scenarios: the battery, by name.
        advance: called with the name of each comparison before it runs.
        whole: `chosen` covers every scenario; a switch that acted in none then adds a result `not_gated`.
    """
    results = []
    with platform.one_thread():
        for pair in chosen:
            advance(f"{pair.switch} {pair.scenario}")
            results.append(compare(pair, scenarios[pair.scenario]))
    return [*results, *idle(results)] if whole else results


def compare(pair: Pair, scenario: Scenario) -> SwitchResult:
    """Play one scenario on two pipelines, with the switch on and off, and compare the pipelines at every tick.

    Raises:
        OutsideProfile: a compiled decoder exported for this comparison does not take the scenario's rows.
    """
    on_it = replace(scenario, decoder=pair.decoder, dtype=pair.dtype, device=pair.device)
    on, off = one_apart(configuration(on_it), pair.switch)
    try:
        with _lockstep(pair, on_it, on, off) as lockstep:
            on_it.script(Player(lockstep, on_it.sizes))
    except Parted as parted:
        return _result(pair, Verdict.MOVED, True, str(parted))
    except OutsideProfile as error:
        if pair.engine is None:
            raise
        return _result(pair, Verdict.OUTSIDE_PROFILE, False, str(error))
    return _result(pair, Verdict.EXACT, acted(pair.switch, lockstep.first.stats(), lockstep.second.stats()))


def idle(results: Sequence[SwitchResult]) -> Iterator[SwitchResult]:
    """Yield a result `not_gated` for every switch, executor and decoder with which the switch acted in no scenario."""
    spoken = {_combination(result) for result in results if result.acted}
    compared = [result for result in results if result.verdict is not Verdict.OUTSIDE_PROFILE]
    silent = {_combination(result): result for result in compared if _combination(result) not in spoken}
    for result in silent.values():
        detail = f"{result.switch} acted in no scenario: equal results prove nothing"
        yield replace(result, scenario=EVERY, verdict=Verdict.NOT_GATED, detail=detail)


def _combination(result: SwitchResult) -> tuple[str, ...]:
    """Key of a result: all fields but scenario, verdict and detail."""
    return result.switch, result.executor, result.decoder, result.dtype, result.device


def _lockstep(pair: Pair, scenario: Scenario, on: PipelineConfig, off: PipelineConfig) -> Lockstep:
    first, second = (executor(scenario, pair.executor, pair.engine) for _ in range(2))
    return Lockstep((first, on), (second, off), (f"{pair.switch} on", "off"), pair.repro())


def _result(pair: Pair, verdict: Verdict, has_acted: bool, detail: str = "") -> SwitchResult:
    where = pair.executor, pair.decoder, pair.dtype, pair.device
    return SwitchResult(pair.switch, pair.scenario, *where, verdict, has_acted, detail)
