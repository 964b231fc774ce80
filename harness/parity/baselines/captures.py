"""The battery against its captures: byte for byte where they were blessed, within a bound elsewhere.

A scenario without a capture of this platform is compared with the reference platform's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from harness import registry
from harness.engine.errors import InvalidInput
from harness.parity.baselines import platform, store
from harness.parity.baselines.flags import FLAGS
from harness.parity.baselines.sources import Source, source_of, sources, used
from harness.parity.baselines.verdicts import Result, Verdict, distance, within_bound
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, play
from harness.parity.compare import compare_named
from harness.parity.differences import LATENTS

CAPTURES = platform.ROOT / "captures"

Play = Callable[[Scenario], Played]


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


def _result(scenario: Scenario, name: str, play: Play, known: Sequence[Source]) -> Result:
    try:
        source = source_of(name, known)
        expected, tensors = source.read(name)
    except store.CapturesError as error:
        return Result(name, verdict_of(error), detail=str(error))
    exact = not source.differs
    played = play(scenario)
    if exact:
        result = _byte_for_byte(name, played, tensors, expected)
    else:
        result = within_bound(name, played.finished, tensors, expected.k, LATENTS)
    return replace(result, compared_with=source.platform)


def _byte_for_byte(name: str, played: Played, tensors: Mapping[str, Tensor], expected: store.Entry) -> Result:
    differences = compare_named(played.finished, tensors)
    tick = _first_tick(played.ticks, expected.ticks)
    if differences:
        told = "; ".join(each.told(LATENTS) for each in differences)
        detail = f"first tick that moved: {tick or 'none'}; finished latents: {told}"
        return Result(name, Verdict.MOVED, distance(played.finished, tensors), 0.0, detail)
    if tick:
        detail = f"finished tensors are identical, states are not; first tick that moved: {tick}"
        return Result(name, Verdict.DIGEST_DIFFERS, 0.0, 0.0, detail)
    return Result(name, Verdict.EXACT, 0.0, 0.0)


def _first_tick(now: Sequence[str], blessed: Sequence[str]) -> str:
    """The first tick, counted from 0, whose state differs; a tick that only one side has differs. Empty if none."""
    for tick, (got, expected) in enumerate(zip(now, blessed, strict=False)):
        if got != expected:
            return f"{tick} of 0 to {len(blessed) - 1}"
    if len(now) != len(blessed):
        return f"{min(len(now), len(blessed))}, after {len(now)} ticks where {len(blessed)} were blessed"
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


def verdict_of(error: store.CapturesError) -> Verdict:
    """The verdict of a file that cannot be read: `orphan`, `missing` or `corrupt`."""
    if isinstance(error, store.CaptureUnknown):
        return Verdict.ORPHAN
    return Verdict.MISSING if isinstance(error, store.CaptureMissing) else Verdict.CORRUPT
