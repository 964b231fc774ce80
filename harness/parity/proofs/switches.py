"""The battery with each switch on and off, in lockstep, on every kind of executor and both decoders."""

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
from harness.parity.baselines.captures import Verdict
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, Scenario, configuration, executor
from harness.parity.proofs.lockstep import Lockstep, Parted, acted, one_apart
from harness.registry import ExecutorKind

DECODERS = (registry.AFFINE, "tiny")
EVERY = "*"
"""In place of a scenario's name: all of them."""


@dataclass(frozen=True)
class Pair:
    """What is compared: a scenario on two pipelines one switch apart."""

    switch: str
    scenario: str
    executor: ExecutorKind
    decoder: str
    dtype: str = "float32"
    device: str = "cpu"
    engine: Path | None = None

    def repro(self) -> str:
        """The command that compares it alone."""
        options = f"--only {self.scenario} --switch {self.switch} --executor {self.executor} --decoder {self.decoder}"
        usual = (self.dtype, self.device) == ("float32", "cpu")
        options += "" if usual else f" --dtype {self.dtype} --device {self.device}"
        options += "" if self.engine is None else f" --engine {shlex.quote(str(self.engine))}"
        return f"python -m harness check --switches {options}"


@dataclass(frozen=True)
class SwitchResult:
    """One pair's verdict.

    Attributes:
        switch: the switch, like the five after it of the `Pair`.
        scenario: its name, or `EVERY`.
        executor: kind.
        decoder: name.
        dtype: of the decoder.
        device: where.
        verdict: `exact`; `moved` where the two part; `not_gated` where the switch had nothing to do in any scenario,
            so that nothing was compared; `outside_profile` where the engine does not take what the scenario runs.
        acted: whether the switch had anything to do.
        detail: where the two part, in words.
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
    """The kinds of executor that a switch is compared on, by the switch's record.

    Args:
        switch: of `SWITCHES`.
        device: where.
        asked: kinds, and no others; empty are those that run the decoder itself.
    """
    kinds = [kind for kind in ExecutorKind if kind in asked] or list(registry.LIVE)
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
    """Everything there is to compare, or those of it that are named; an empty sequence names all.

    Args:
        scenarios: the battery, by name.
        switches: of `SWITCHES`.
        executors: kinds; empty are those that run the decoder itself.
        decoders: see `registry.decoder`; empty are `DECODERS`.
        dtype: what decoders compute in.
        device: where.
        engine: the file that an ahead-of-time kind runs; None is `registry.engine_for` the decoder.
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
    """Compare, with one thread.

    Args:
        chosen: what to compare.
        scenarios: the battery, by name.
        advance: called with the name of each pair before it is compared.
        whole: whether `chosen` has every scenario, so that a switch which none of them moves is a gap.
    """
    results = []
    with platform.one_thread():
        for pair in chosen:
            advance(f"{pair.switch} {pair.scenario}")
            results.append(compare(pair, scenarios[pair.scenario]))
    return [*results, *idle(results)] if whole else results


def compare(pair: Pair, scenario: Scenario) -> SwitchResult:
    """Play one scenario on two pipelines, the switch on in one and off in the other, and compare them at every tick.

    Raises:
        OutsideProfile: the engine that was made for this decoder does not take what the scenario runs.
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
    """A verdict for every switch, executor and decoder of which no scenario says anything."""
    spoken = {_combination(result) for result in results if result.acted}
    compared = [result for result in results if result.verdict is not Verdict.OUTSIDE_PROFILE]
    silent = {_combination(result): result for result in compared if _combination(result) not in spoken}
    for result in silent.values():
        detail = f"{result.switch} had nothing to do in any scenario: that both agree says nothing"
        yield replace(result, scenario=EVERY, verdict=Verdict.NOT_GATED, detail=detail)


def _combination(result: SwitchResult) -> tuple[str, ...]:
    """All but the scenario and the verdict."""
    return result.switch, result.executor, result.decoder, result.dtype, result.device


def _lockstep(pair: Pair, scenario: Scenario, on: PipelineConfig, off: PipelineConfig) -> Lockstep:
    first, second = (executor(scenario, pair.executor, pair.engine) for _ in range(2))
    return Lockstep((first, on), (second, off), (f"{pair.switch} on", "off"), pair.repro())


def _result(pair: Pair, verdict: Verdict, has_acted: bool, detail: str = "") -> SwitchResult:
    where = pair.executor, pair.decoder, pair.dtype, pair.device
    return SwitchResult(pair.switch, pair.scenario, *where, verdict, has_acted, detail)
