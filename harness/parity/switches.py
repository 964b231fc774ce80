"""The battery with each switch on and off, in lockstep, on every kind of executor and both decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.engine.config import PipelineConfig
from harness.parity import catalog, platform
from harness.parity.captures import Verdict
from harness.parity.catalog import Kind
from harness.parity.lockstep import SWITCHES, Lockstep, Parted, acted, one_apart
from harness.parity.scenarios import SCENARIOS, Player, Scenario, configuration, executor

DECODERS = (catalog.AFFINE, "tiny")
EVERY = "*"
"""In place of a scenario's name: all of them."""


@dataclass(frozen=True)
class Pair:
    """What is compared: a scenario on two pipelines one switch apart."""

    switch: str
    scenario: str
    executor: Kind
    decoder: str

    def repro(self) -> str:
        """The command that compares it alone."""
        options = f"--only {self.scenario} --switch {self.switch} --executor {self.executor} --decoder {self.decoder}"
        return f"python -m harness check --switches {options}"


@dataclass(frozen=True)
class SwitchResult:
    """One pair's verdict.

    Attributes:
        switch: the switch, like the three after it of the `Pair`.
        scenario: its name, or `EVERY`.
        executor: kind.
        decoder: name.
        verdict: `exact`; `moved` where the two part; `not_gated` where the switch had nothing to do in any scenario,
            so that nothing was compared.
        acted: whether the switch had anything to do.
        detail: where the two part, in words.
    """

    switch: str
    scenario: str
    executor: Kind
    decoder: str
    verdict: Verdict
    acted: bool
    detail: str = ""


def executors_of(switch: str) -> tuple[Kind, ...]:
    """The kinds of executor that a switch is compared on: `joined_stream` acts on those with a stream of their own."""
    return (Kind.DEFERRED,) if switch == "joined_stream" else (Kind.EAGER, Kind.STATIC)


def pairs(
    scenarios: Mapping[str, Scenario] = SCENARIOS,
    *,
    switches: Sequence[str] = (),
    executors: Sequence[str] = (),
    decoders: Sequence[str] = (),
) -> list[Pair]:
    """Everything there is to compare, or those of it that are named; an empty sequence names all."""
    return [
        Pair(switch, scenario, kind, decoder)
        for switch in SWITCHES
        if not switches or switch in switches
        for kind in executors_of(switch)
        if not executors or kind in executors
        for decoder in DECODERS
        if not decoders or decoder in decoders
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
    """Play one scenario on two pipelines, the switch on in one and off in the other, and compare them at every tick."""
    on_it = replace(scenario, decoder=pair.decoder)
    on, off = one_apart(configuration(on_it), pair.switch)
    try:
        with _lockstep(pair, on_it, on, off) as lockstep:
            on_it.script(Player(lockstep, on_it.sizes))
    except Parted as parted:
        return _result(pair, Verdict.MOVED, True, str(parted))
    return _result(pair, Verdict.EXACT, acted(pair.switch, lockstep.first.stats(), lockstep.second.stats()))


def idle(results: Sequence[SwitchResult]) -> Iterator[SwitchResult]:
    """A verdict for every switch, executor and decoder of which no scenario says anything."""
    tried = {(r.switch, r.executor, r.decoder) for r in results}
    for switch, kind, decoder in sorted(tried - {(r.switch, r.executor, r.decoder) for r in results if r.acted}):
        detail = f"{switch} had nothing to do in any scenario: that both agree says nothing"
        yield SwitchResult(switch, EVERY, kind, decoder, Verdict.NOT_GATED, False, detail)


def _lockstep(pair: Pair, scenario: Scenario, on: PipelineConfig, off: PipelineConfig) -> Lockstep:
    first, second = (executor(scenario, pair.executor) for _ in range(2))
    return Lockstep((first, on), (second, off), (f"{pair.switch} on", "off"), pair.repro())


def _result(pair: Pair, verdict: Verdict, has_acted: bool, detail: str = "") -> SwitchResult:
    return SwitchResult(pair.switch, pair.scenario, pair.executor, pair.decoder, verdict, has_acted, detail)
