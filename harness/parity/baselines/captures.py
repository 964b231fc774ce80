"""The battery against its captures: byte for byte where they were blessed, within a bound elsewhere.

A scenario without a capture of this platform is compared with the reference platform's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import registry
from harness.engine.errors import InvalidInput
from harness.parity.baselines import platform, store
from harness.parity.baselines.flags import FLAGS
from harness.parity.baselines.sources import Source, source_of, sources, used
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, play
from harness.parity.compare import compare_named, max_abs

CAPTURES = platform.ROOT / "captures"
EPS = torch.finfo(torch.float32).eps

Play = Callable[[Scenario], Played]


class Verdict(StrEnum):
    """The verdict of a check about one scenario; only `exact` and `tolerance` pass.

    `outside_profile` neither passes nor fails: an engine from a file does not take what the scenario runs.
    """

    EXACT = "exact"
    TOLERANCE = "tolerance"
    MOVED = "moved"
    MISSING = "missing"
    ORPHAN = "orphan"
    CORRUPT = "corrupt"
    DIGEST_DIFFERS = "digest_differs"
    NOT_GATED = "not_gated"
    OUTSIDE_PROFILE = "outside_profile"

    @property
    def passes(self) -> bool:
        """True where this verdict lets a check succeed."""
        return self in (Verdict.EXACT, Verdict.TOLERANCE)


@dataclass(frozen=True)
class Result:
    """One scenario's verdict.

    Attributes:
        name: the scenario's, or the file's where it belongs to none.
        verdict: see `Verdict`.
        max_abs: largest |Δ| over its tensors; None where nothing finite was compared.
        bound: what it had to stay within, 0.0 where bytes had to match; None where nothing was compared.
        detail: what differs and where, in words.
        compared_with: the platform whose capture was compared; None where nothing was, or where it is of no platform.
    """

    name: str
    verdict: Verdict
    max_abs: float | None = None
    bound: float | None = None
    detail: str = ""
    compared_with: str | None = None


@dataclass(frozen=True)
class Report:
    """A whole check.

    Attributes:
        results: one a scenario, then one a stray capture.
        platform: this platform's name.
        compared_with: each platform whose captures were compared, and the fields of the fingerprint in which this
            machine differs from the one that blessed them; none on that very machine.
        fingerprint: this platform's.
        elsewhere: the fields in which this GPU differs from the one that blessed its captures. Then nothing is
            compared: another GPU makes other bits, and no bound is known that they are within.
    """

    results: tuple[Result, ...]
    platform: str
    compared_with: Mapping[str, tuple[str, ...]]
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()

    @property
    def compared(self) -> bool:
        """False on a GPU with captures of another one; a single capture that is missing or damaged is a verdict."""
        return not self.elsewhere

    @property
    def passes(self) -> bool:
        """True where something was compared and every verdict passes."""
        return bool(self.results) and all(result.verdict.passes for result in self.results)

    @property
    def blessed_here(self) -> bool:
        """True where something was compared, and only with captures that this very machine blessed."""
        return bool(self.compared_with) and not any(self.compared_with.values())

    def summary(self) -> str:
        """The verdicts counted, and with what the scenarios were compared, in one line."""
        found = counted([result.verdict for result in self.results])
        return f"{len(self.results)} scenario{'s'[: len(self.results) != 1]}: {found} ({self._where()})"

    def document(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "scenarios": [asdict(result) for result in self.results],
            "platform": {
                "name": self.platform,
                "compared_with": {name: list(differs) for name, differs in self.compared_with.items()},
                "blessed_here": self.blessed_here,
                "elsewhere": list(self.elsewhere),
                "fingerprint": dict(self.fingerprint),
            },
        }

    def _where(self) -> str:
        if self.elsewhere:
            return f"{self.platform}, not compared: differs in {', '.join(self.elsewhere)} from where they were blessed"
        if not self.compared_with:
            return f"{self.platform}, nothing was compared"
        if len(self.compared_with) > 1:
            return f"{self.platform}, {', '.join(self._shares())}"
        ((name, differs),) = self.compared_with.items()
        if not differs:
            return f"{self.platform}, the platform that blessed them"
        if name == self.platform:
            words = ", ".join(f"{each} ({found})" if (found := self._flag(each)) else each for each in differs)
            return f"{self.platform}, differs in {words} from where they were blessed: within the bound"
        return f"{self.platform}, within the bound of the captures of {name}"

    def _flag(self, field: str) -> str:
        """The value of a flag here; empty for any other field."""
        return self.fingerprint.get(field, "") if field in FLAGS else ""

    def _shares(self) -> Iterator[str]:
        """How many scenarios were compared with which captures, and how, for each platform."""
        counts = Counter(result.compared_with for result in self.results)
        for name, differs in self.compared_with.items():
            how = "within the bound of" if differs else "byte for byte with"
            yield f"{counts[name]} {how} {'its own captures' if name == self.platform else f'the captures of {name}'}"


def check(
    scenarios: Mapping[str, Scenario] = SCENARIOS,
    play: Play = play,
    captures: Path = CAPTURES,
    only: Sequence[str] = (),
    advance: Callable[[str], None] = lambda _name: None,
    device: str = "cpu",
) -> Report:
    """Replay the battery with one thread and compare it with its captures.

    On a GPU the captures are compared where this very GPU blessed them, or one with the same fingerprint: byte for
    byte. Under another fingerprint nothing is played, and every scenario is `not_gated`.

    Args:
        scenarios: the battery, by name.
        play: runs one of them.
        captures: the folder that holds one folder a platform.
        only: names to check, and nothing else; empty checks everything, stray files too.
        advance: called with the name of each scenario before it is played.
        device: the device that `play` plays the scenarios on, the CPU or a CUDA device.

    Raises:
        NoCaptures: neither this platform nor the reference platform has captures.
        NoReferencePlatform: this platform has no captures, and no reference platform is named.
        InvalidInput: `only` names no scenario of the battery, the battery is empty, or there is no such device here.
    """
    chosen = select(scenarios, only)
    registry.check_here(device)
    with platform.one_thread():
        here = platform.of_captures(device)
        known = sources(captures, here, device)
        elsewhere = known[0].differs if platform.on_gpu(device) else ()
        if elsewhere:
            skipped = tuple(Result(name, Verdict.NOT_GATED) for name in chosen)
            return Report(skipped, platform.name(device), {}, here, elsewhere)
        results = []
        for name, scenario in chosen.items():
            advance(name)
            results.append(_result(scenario, name, play, known))
    compared = {result.compared_with for result in results}
    if not only:
        results += [stray for source in used(list(chosen), known) for stray in _strays(source, scenarios)]
    compared_with = {source.platform: source.differs for source in known if source.platform in compared}
    return Report(tuple(results), platform.name(device), compared_with, here)


def counted(verdicts: Sequence[Verdict]) -> str:
    """The number of each verdict that occurs, in words: `24 exact, 2 tolerance`."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def select(scenarios: Mapping[str, Scenario], only: Sequence[str]) -> dict[str, Scenario]:
    """The scenarios that `only` names, or all of them where it is empty.

    Raises:
        InvalidInput: a name is unknown, or there is no scenario at all.
    """
    unknown = [name for name in only if name not in scenarios]
    if unknown:
        raise InvalidInput("only", ", ".join(unknown), f"some of {', '.join(scenarios)}")
    if not scenarios:
        raise InvalidInput("scenarios", "none", "at least one")
    return {name: scenario for name, scenario in scenarios.items() if not only or name in only}


def tolerance(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """`max |Δ|` and the unit it is measured in, eps * rms of `expected`, a complex one's parts; as float64.

    The unit is 0 where the rms is not finite: no bound relative to it exists, and nothing compares with a NaN.
    """
    rms = _rms(expected)
    return max_abs(actual, expected), EPS * rms if math.isfinite(rms) else 0.0


def _rms(tensor: Tensor) -> float:
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return float(parts.double().square().mean().sqrt()) if tensor.numel() else 0.0


def distance(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float | None:
    """Largest |Δ| over all tensors; None where names, dtypes or shapes differ or it is not finite."""
    alike = actual.keys() == expected.keys() and all(
        actual[name].dtype == expected[name].dtype and actual[name].shape == expected[name].shape for name in actual
    )
    largest = max((max_abs(actual[name], expected[name]) for name in actual), default=0.0) if alike else math.inf
    return largest if math.isfinite(largest) else None


def within_bound(name: str, actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], k: float) -> Result:
    """`exact`, `tolerance` or `moved`, by `max |Δ| <= k * eps * rms(expected)` for every tensor; eps is float32's.

    Tick digests are no part of it: where the finished bits may differ, the states' may.
    """
    differences = compare_named(actual, expected)
    if not differences:
        return Result(name, Verdict.EXACT, 0.0, 0.0)
    if distance(actual, expected) is None:
        return Result(name, Verdict.MOVED, detail="; ".join(map(str, differences)))
    measured = {each.name: tolerance(actual[each.name], expected[each.name]) for each in differences}
    boundless = [each for each in measured if not math.isfinite(_rms(expected[each]))]
    if boundless:
        detail = "; ".join([f"{boundless[0]}: its capture is not finite, so no bound exists", *map(str, differences)])
        return Result(name, Verdict.MOVED, detail=detail)
    # The tensor that is furthest out of its own bound speaks for the scenario.
    worst = max(measured, key=lambda each: measured[each][0] - k * measured[each][1])
    moved, unit = measured[worst]
    if moved <= k * unit:
        return Result(name, Verdict.TOLERANCE, moved, k * unit, f"{worst}: max |Δ| {moved:.3g} <= {k * unit:.3g}")
    detail = "; ".join([f"{worst}: max |Δ| {moved:.3g} > {k * unit:.3g}", *map(str, differences)])
    return Result(name, Verdict.MOVED, moved, k * unit, detail)


def _result(scenario: Scenario, name: str, play: Play, known: Sequence[Source]) -> Result:
    try:
        source = source_of(name, known)
        expected, tensors = source.read(name)
    except store.CapturesError as error:
        return Result(name, _verdict(error), detail=str(error))
    exact = not source.differs
    played = play(scenario)
    if exact:
        result = _byte_for_byte(name, played, tensors, expected)
    else:
        result = within_bound(name, played.finished, tensors, expected.k)
    return replace(result, compared_with=source.platform)


def _byte_for_byte(name: str, played: Played, tensors: Mapping[str, Tensor], expected: store.Entry) -> Result:
    differences = compare_named(played.finished, tensors)
    tick = _first_tick(played.ticks, expected.ticks)
    if differences:
        detail = "; ".join([f"first tick that moved: {tick or 'none'}", *map(str, differences)])
        return Result(name, Verdict.MOVED, distance(played.finished, tensors), 0.0, detail)
    if tick:
        detail = f"finished tensors are identical, states are not; first tick that moved: {tick}"
        return Result(name, Verdict.DIGEST_DIFFERS, 0.0, 0.0, detail)
    return Result(name, Verdict.EXACT, 0.0, 0.0)


def _first_tick(now: Sequence[str], blessed: Sequence[str]) -> str:
    """The first tick, counted from 1, whose state differs; a tick that only one side has differs. Empty if none."""
    for tick, (got, expected) in enumerate(zip(now, blessed, strict=False), start=1):
        if got != expected:
            return f"{tick} of {len(blessed)}"
    if len(now) != len(blessed):
        return f"{min(len(now), len(blessed)) + 1}, after {len(now)} ticks where {len(blessed)} were blessed"
    return ""


def _strays(source: Source, scenarios: Mapping[str, Scenario]) -> list[Result]:
    """Captures of scenarios that are not in the battery, and files that the manifest does not know.

    Where the manifest cannot be used there is no telling.
    """
    if isinstance(source.manifest, store.CapturesError):
        return []
    found = [
        Result(name, Verdict.ORPHAN, detail=f"{source.folder / entry.file}: blessed, but no scenario of the battery")
        for name, entry in sorted(source.entries.items())
        if name not in scenarios
    ]
    known = {store.MANIFEST, *(entry.file for entry in source.entries.values())}
    for path in sorted(source.folder.iterdir()):
        if path.name not in known:
            found.append(Result(path.name, Verdict.ORPHAN, detail=f"{path}: not in the manifest"))
    return found


def _verdict(error: store.CapturesError) -> Verdict:
    if isinstance(error, store.CaptureUnknown):
        return Verdict.ORPHAN
    return Verdict.MISSING if isinstance(error, store.CaptureMissing) else Verdict.CORRUPT
