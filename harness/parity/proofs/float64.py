"""The battery on an ahead-of-time engine, which no capture can hold to the byte: another program computes there.

The eager executor is compared with its captures first. Then the engine's finished latents are either the eager
executor's to the bit, as those of the affine decoder are, or as near to a replay in float64 as these: their distance
from it is at most `FACTOR` times the eager executor's own. The distance is the root mean square of Δ over all finished
latents of a scenario, in float64.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import registry
from harness.engine.aot.closeness import FACTOR
from harness.engine.decoders import Decoder
from harness.engine.errors import OutsideProfile
from harness.engine.executors import EagerExecutor, Executor
from harness.parity.baselines import captures as blessed
from harness.parity.baselines import platform
from harness.parity.baselines.captures import counted, select
from harness.parity.baselines.sources import sources
from harness.parity.baselines.verdicts import EPS, Result, Verdict
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, executor, pinned, play
from harness.parity.compare import compare_named
from harness.parity.differences import LATENTS

FLOOR = 1.0
"""Of `eps * rms`, float32's: what is allowed where the eager executor happens to be exact; it is at 0.9 to 3.4."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Engine:
    """The compiled decoder that is checked, and how.

    Attributes:
        kind: of the executor.
        file: what it runs; None is `registry.engine_for` each scenario's decoder.
        decoder: the one that the file was made of, which then plays every scenario; None is each scenario's own.
        dtype: what a file that is made here computes in.
        device: where.
    """

    kind: registry.ExecutorKind
    file: Path | None = None
    decoder: str | None = None
    dtype: str = "float32"
    device: str = "cpu"

    def of(self, scenario: Scenario) -> Scenario:
        """The scenario as it is played."""
        return replace(scenario, decoder=self.decoder or scenario.decoder, dtype=self.dtype, device=self.device)

    @property
    def blessed(self) -> bool:
        """True where there are captures of the scenarios that are played."""
        return self.decoder is None and self.device == "cpu"


@dataclass(frozen=True)
class OnEngine:
    """One scenario's verdict.

    Attributes:
        name: the scenario's.
        verdict: `exact`, `tolerance` or `moved`; `outside_profile` where the engine does not take what it runs.
        distance: root mean square of Δ from the replay in float64; None where there is none or it is not finite.
        own: the eager executor's, in the engine's dtype.
        bound: what `distance` had to stay within; 0.0 where bits had to match, None where nothing was compared.
        detail: the same in words.
    """

    name: str
    verdict: Verdict
    distance: float | None = None
    own: float | None = None
    bound: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class EngineReport:
    """A whole check.

    Attributes:
        results: one a scenario; a scenario whose eager replay is not what was blessed has that verdict.
        engine: what was checked.
        platform: this platform's name.
        fingerprint: this platform's.
    """

    results: tuple[OnEngine | Result, ...]
    engine: Engine
    platform: str
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def compared(self) -> bool:
        """True where the compiled decoder took at least one scenario."""
        return any(result.verdict is not Verdict.OUTSIDE_PROFILE for result in self.results)

    @property
    def passes(self) -> bool:
        """True where something was compared and every verdict passes."""
        return self.compared and all(r.verdict.passes or r.verdict is Verdict.OUTSIDE_PROFILE for r in self.results)

    def summary(self) -> str:
        """The verdicts counted, in one line."""
        found = counted([result.verdict for result in self.results])
        what = self.engine.kind if self.engine.file is None else f"{self.engine.kind} {self.engine.file}"
        bound = f"bits, or {FACTOR:g} times the eager executor's distance from float64"
        return f"{len(self.results)} scenario{'s'[: len(self.results) != 1]} on {what}: {found} ({bound})"

    def document(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        file = None if self.engine.file is None else str(self.engine.file)
        return {
            "scenarios": [asdict(result) for result in self.results],
            "engine": {**asdict(self.engine), "file": file},
            "platform": {"name": self.platform, "fingerprint": dict(self.fingerprint)},
        }


def check(
    engine: Engine,
    scenarios: Mapping[str, Scenario] = SCENARIOS,
    captures: Path = blessed.CAPTURES,
    only: Sequence[str] = (),
    advance: Callable[[str], None] = lambda _name: None,
) -> EngineReport:
    """Replay the battery on an engine with one thread.

    Args:
        engine: what is checked.
        scenarios: the battery, by name.
        captures: the folder that holds one folder a platform.
        only: names to check, and nothing else.
        advance: called with the name of each scenario before it is played.

    Raises:
        NoCaptures: there are none to compare the eager executor with.
        NoReferencePlatform: likewise.
        InvalidInput: `only` names no scenario of the battery, or no executor can be made so.
        EngineError: the file cannot be used.
        OutsideProfile: a file that was made here does not take what a scenario runs.
    """
    chosen = select(scenarios, only)
    with platform.one_thread(), ExitStack() as opened:
        executors = _Executors(engine, opened)
        replays: dict[str, Played] = {}
        strays: list[OnEngine | Result] = []
        if engine.blessed:
            sources(captures, platform.fingerprint())  # where there are none, this raises before the long replays
            replays = {scenario.name: play(scenario) for scenario in chosen.values()}
            report = blessed.check(chosen, lambda scenario: replays[scenario.name], captures, tuple(chosen))
            strays = [result for result in report.results if not result.verdict.passes]
        wrong = {result.name for result in strays}
        results: list[OnEngine | Result] = []
        for name, scenario in chosen.items():
            advance(name)
            if name not in wrong:
                results.append(_on_engine(engine.of(scenario), executors, engine, replays.get(scenario.name)))
    return EngineReport((*results, *strays), engine, platform.name(), platform.fingerprint())


class _Executors:
    """An engine's executors, one a file and a number of pinned rows: opening a file may take long."""

    def __init__(self, engine: Engine, opened: ExitStack) -> None:
        self._engine, self._opened = engine, opened
        self._made: dict[tuple[Path | None, int | None], Executor] = {}

    def __call__(self, scenario: Scenario) -> Executor:
        file = self._engine.file or registry.engine_for(self._engine.kind, scenario.decoder, dtype=scenario.dtype)
        key = file, pinned(scenario)
        if key not in self._made:
            made = executor(scenario, self._engine.kind, file)
            self._made[key] = self._opened.enter_context(closing(made))
        return self._made[key]


def _on_engine(scenario: Scenario, executors: _Executors, engine: Engine, replay: Played | None) -> OnEngine:
    on = executors(scenario)
    try:
        found = play(scenario, on=on).finished
    except OutsideProfile as error:
        if engine.file is None:
            raise
        return OnEngine(scenario.name, Verdict.OUTSIDE_PROFILE, detail=str(error))
    dtype = _dtype(on)
    if replay is None or dtype != "float32":
        replay = play(replace(scenario, dtype=dtype))
    if not compare_named(found, replay.finished):
        return OnEngine(scenario.name, Verdict.EXACT, bound=0.0)
    if scenario.decoder == registry.AFFINE:
        detail = "; ".join(each.told(LATENTS) for each in compare_named(found, replay.finished))
        return OnEngine(scenario.name, Verdict.MOVED, bound=0.0, detail=f"not the eager executor's bits: {detail}")
    return judged(scenario.name, found, replay.finished, in_double(replace(scenario, dtype=dtype)))


def in_double(scenario: Scenario) -> Tensors:
    """A scenario's finished latents with its decoder in float64; everything around it is float32, as ever."""
    decoder = doubled(scenario.decoder, scenario.dtype, scenario.device)
    with closing(EagerExecutor(decoder, pin_rows=pinned(scenario))) as on:
        return play(scenario, on=on).finished


@lru_cache(maxsize=1)
def doubled(name: str, dtype: str, device: str) -> Decoder:
    """A decoder that computes in float64 with the weights that it has in `dtype`.

    The frequencies of its time and position embeddings stay what they are: diffusers computes them in float32 whatever
    the model is in, and an exported file has them as constants.

    Args:
        name: of an ACE-Step decoder; see `registry.decoder`.
        dtype: by name.
        device: where.
    """
    # A copy: the registry's own is shared.
    copied: Any = copy.deepcopy(registry.decoder(name, dtype=getattr(torch, dtype), device=device))
    made: Decoder = copied.double()
    return made


def judged(name: str, found: Tensors, eager: Tensors, reference: Tensors) -> OnEngine:
    """`tolerance` or `moved`, by how far the engine's latents are from the reference.

    Args:
        name: the scenario's.
        found: finished latents on the engine.
        eager: on the eager executor.
        reference: in float64.
    """
    shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (found, eager, reference)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        return OnEngine(name, Verdict.MOVED, detail="other latents finished, or with other shapes")
    distance, own = (_rms(each[i].double() - reference[i].double() for i in reference) for each in (found, eager))
    bound = max(FACTOR * own, FLOOR * EPS * _rms(each.double() for each in reference.values()))
    # Not `>`: a distance that is no number passes nothing. Neither does one within a bound that is not finite.
    verdict = Verdict.TOLERANCE if bound < math.inf and distance <= bound else Verdict.MOVED
    compared = f"rms Δ {distance:.3g} {'<=' if distance <= bound else '>'} {bound:.3g}, eager {own:.3g}"
    kept, kept_own, kept_bound = (number if math.isfinite(number) else None for number in (distance, own, bound))
    return OnEngine(name, verdict, kept, kept_own, kept_bound, compared)


def _rms(tensors: Iterator[Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).square().mean().sqrt())


def _dtype(on: Any) -> str:
    """Dtype of a compiled decoder's output, by name: `float32`."""
    return str(on.signature.dtypes["velocity"]).removeprefix("torch.")
