"""The differences that a check found, each with its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.parity.baselines import platform
from harness.parity.baselines.bless import Battery
from harness.parity.baselines.captures import CAPTURES, Report
from harness.parity.baselines.sources import source_of, sources
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import Scenario
from harness.parity.proofs import evidence
from harness.parity.proofs.evidence import Evidence
from harness.parity.proofs.float64 import Engine, EngineReport
from harness.parity.proofs.lockstep import REPRO
from harness.parity.proofs.switches import EVERY, Pair, SwitchResult
from harness.parity.spread import spread
from harness.parity.traces.blessed import TraceResult
from harness.registry import ExecutorKind

PLAYED_AGAIN = 20
"""The most differences that are played again for their evidence; each takes about as long as the comparison did."""
DESCRIBED = 150
"""The most differences that a page describes; its matrix shows all."""
TOO_MANY = f"not played again: evidence is gathered for {PLAYED_AGAIN} differences that are unlike each other"
DIGESTS = "a trace holds digests of what was made, and no tensors to show"
NO_TENSORS = "there is nothing to play again: no two results were compared"


@dataclass(frozen=True, eq=False)
class Difference:
    """A verdict that does not pass.

    Attributes:
        scenario: name of the scenario, or `EVERY`.
        subject: the comparison in words, such as `fused_cfg on eager, affine`.
        verdict: the verdict.
        detail: the difference in words.
        repro: the command that shows it again.
        evidence: the evidence, or None.
        why: the reason why there is none.
    """

    scenario: str
    subject: str
    verdict: str
    detail: str
    repro: str
    evidence: Evidence | None = None
    why: str = ""


def differences(
    played: Report | EngineReport | None,
    switches: Sequence[SwitchResult],
    battery: Battery,
    folder: Path,
    engine: Path | None = None,
    advance: Callable[[str], None] = lambda _name: None,
) -> list[Difference]:
    """List every verdict that does not pass; gather evidence for `PLAYED_AGAIN` of them.

    Those with evidence come first. They, and the first `DESCRIBED` of the list, are of different executors, switches
    and scenarios, as far as there are.

    Args:
        played: report of the captures or of a compiled decoder, or None.
        switches: results of the switches.
        battery: the battery that was checked, on its device.
        folder: folder of the captures.
        engine: file of the compiled decoder that the switches ran on, or None.
        advance: called with the name of each scenario before it is played again.
    """
    found = [*_of_switches(switches, battery.scenarios, engine), *_of_captures(played, battery, folder)]
    again = _spread([each for each in found if each.gather is not None], PLAYED_AGAIN)
    chosen = {id(each) for each in again}
    rest = [each for each in found if id(each) not in chosen]
    first = _spread(rest, DESCRIBED - len(again))
    chosen |= {id(each) for each in first}
    made = []
    for each in again:
        advance(f"evidence {each.without.scenario}")
        made.append(_gathered(each))
    for each in [*first, *(each for each in rest if id(each) not in chosen)]:
        made.append(replace(each.without, why=NO_TENSORS if each.gather is None else TOO_MANY))
    return made


@dataclass(frozen=True, eq=False)
class _Found:
    """A difference without its evidence, what gathers it, or None, and what the difference is about, for `spread`."""

    without: Difference
    gather: Callable[[], Evidence] | None
    about: tuple[str, ...]


def of_traces(results: Sequence[TraceResult]) -> list[Difference]:
    """List every verdict of a blessed trace that does not pass; a trace holds digests, so there are words alone."""
    found = []
    for each in results:
        if each.compared and not each.verdict.passes:
            moved = each.verdict is Verdict.MOVED
            repro = f"python -m harness replay {shlex.quote(str(each.path)) if moved else '--blessed'}"
            why = DIGESTS if moved else NO_TENSORS
            found.append(Difference(f"trace {each.name}", "traces", str(each.verdict), each.detail, repro, why=why))
    return found


def _spread(found: Sequence[_Found], most: int) -> list[_Found]:
    return [found[index] for index in spread([each.about for each in found], most)]


def _gathered(found: _Found) -> Difference:
    try:
        return replace(found.without, evidence=found.gather() if found.gather else None)
    except Exception as error:  # noqa: BLE001 - the verdict stands without evidence, and the report says why
        return replace(found.without, why=f"it could not be played again: {type(error).__name__}: {error}")


def _of_switches(
    results: Sequence[SwitchResult], scenarios: Mapping[str, Scenario], engine: Path | None
) -> Iterator[_Found]:
    for result in results:
        if result.verdict.passes or result.verdict is Verdict.OUTSIDE_PROFILE:
            continue
        file = engine if result.executor.ahead_of_time else None
        pair = Pair(result.switch, result.scenario, result.executor, result.decoder, result.dtype, result.device, file)
        subject = f"{result.switch} on {result.executor}, {result.decoder}"
        repro = pair.repro() if result.scenario != EVERY else _whole(pair)
        detail = result.detail.partition(REPRO)[0]
        found = Difference(result.scenario, subject, str(result.verdict), detail, repro)
        scenario = scenarios.get(result.scenario)
        playable = scenario if result.verdict.moved else None
        gather = None if playable is None else partial(evidence.of_pair, pair, playable)
        yield _Found(found, gather, (result.executor, result.switch, result.scenario, result.decoder))


def _whole(pair: Pair) -> str:
    words = pair.repro().split(" --only ")
    return f"{words[0]} {words[1].partition(' ')[2]}"


def _of_captures(played: Report | EngineReport | None, battery: Battery, folder: Path) -> Iterator[_Found]:
    kind = played.engine.kind if isinstance(played, EngineReport) else None
    subject = "captures" if kind is None else f"compiled decoder on {kind}"
    options = _options(played.engine if isinstance(played, EngineReport) else None, battery.device, folder)
    for result in () if played is None else played.results:
        if result.verdict.passes or result.verdict in (Verdict.OUTSIDE_PROFILE, Verdict.NOT_GATED):
            continue
        scenario = battery.scenarios.get(result.name)
        # A stray file is no scenario that could be named.
        words = [*(["--only", result.name] if scenario is not None else []), *options]
        repro = " ".join(["python -m harness check", *map(shlex.quote, words)])
        found = Difference(result.name, subject, str(result.verdict), result.detail, repro)
        playable = scenario if kind is None and result.verdict.moved else None
        gather = None if playable is None else partial(_capture, playable, battery, folder)
        yield _Found(found, gather, ("captures", "captures", result.name, ""))


def _options(engine: Engine | None, device: str, folder: Path) -> list[str]:
    """Options of the same comparison, those with their default left out."""
    made = Engine(ExecutorKind.ONNX, device=device) if engine is None else engine
    given = {"--executor": None if engine is None else engine.kind, "--engine": made.file, "--decoder": made.decoder}
    given |= {"--dtype": made.dtype, "--device": made.device, "--captures": folder}
    usual = {"--dtype": "float32", "--device": "cpu", "--captures": CAPTURES}
    there = {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
    return [word for name, value in there.items() for word in (name, str(value))]


def _capture(scenario: Scenario, battery: Battery, folder: Path) -> Evidence:
    with platform.one_thread():
        source = source_of(scenario.name, sources(folder, platform.of_captures(battery.device), battery.device))
        entry, tensors = source.read(scenario.name)
        return evidence.of_capture(scenario, battery.play, tensors, () if source.differs else entry.ticks)
