"""Every blessed trace in a folder of captures, played again on a pipeline: a verdict for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.engine.errors import InvalidInput
from harness.files import FileRefused
from harness.parity.baselines import platform
from harness.parity.baselines.captures import counted, verdict_of
from harness.parity.baselines.store import MANIFEST
from harness.parity.baselines.verdicts import Verdict
from harness.parity.compare import NothingCompared
from harness.parity.traces.engine_replay import MakeExecutor, replayed_pipeline
from harness.parity.traces.hints import UnknownHint, settings
from harness.parity.traces.kept import FOLDER, SUFFIX, Found, listed
from harness.parity.traces.reading import PIPELINE, Header, verified
from harness.parity.traces.replay import OtherPlatform, TraceParted


@dataclass(frozen=True)
class TraceResult:
    """Verdict of one blessed trace.

    Attributes:
        name: name of the trace, or of the file where it belongs to none.
        verdict: `exact`; `moved` where something differs; `missing`, `orphan` and `corrupt` of its file; `not_gated`
            where it cannot be replayed here, so that nothing was compared.
        platform: name of the platform that blessed it.
        path: its file.
        ticks: number of ticks that were replayed, or None.
        values: number of digests and texts that were compared, or None.
        detail: counts, the first difference, or the reason, in words.
    """

    name: str
    verdict: Verdict
    platform: str
    path: Path
    ticks: int | None = None
    values: int | None = None
    detail: str = ""

    @property
    def compared(self) -> bool:
        """False where the trace cannot be replayed here; a file that is missing or damaged is a verdict."""
        return self.verdict is not Verdict.NOT_GATED

    def document(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


def number(captures: Path) -> int:
    """The number of results that `check` will have, of all platforms, as far as the names of files tell it.

    It is 0 only where no trace was blessed: a manifest whose traces are gone is one.
    """
    of_folders = [[path.name for path in _files(folder)] for folder in captures.glob(f"*/{FOLDER}")]
    return sum(max(len(names) - (MANIFEST in names), bool(names)) for names in of_folders)


def check(
    captures: Path, device: str = "cpu", advance: Callable[[str], None] = lambda _name: None
) -> tuple[TraceResult, ...]:
    """Replay every trace that was blessed on this platform, and name those of other platforms.

    Args:
        captures: the folder that holds one folder a platform.
        device: the device whose traces are replayed, the CPU or a CUDA device.
        advance: called with the words `trace NAME` before each of them.
    """
    own = captures / platform.name(device) / FOLDER
    results = []
    for found in listed(own) if _files(own) else ():
        advance(f"trace {found.name}")
        results.append(_result(found, device))
    return (*results, *_of_others(captures, own))


def summary_of(results: tuple[TraceResult, ...]) -> str:
    """Count the verdicts in one line, and name the traces that were not compared."""
    skipped = ", ".join(each.name for each in results if not each.compared)
    found = counted([each.verdict for each in results])
    plural = "s"[: len(results) != 1]
    return f"{len(results)} blessed trace{plural}: {found}" + (f" (not compared: {skipped})" if skipped else "")


def _result(found: Found, device: str) -> TraceResult:
    made = TraceResult(found.name, Verdict.EXACT, found.path.parent.parent.name, found.path)
    if found.error is not None:
        return replace(made, verdict=verdict_of(found.error), detail=str(found.error))
    try:
        whole = verified(found.path)
        if whole.cut:
            return replace(made, verdict=Verdict.CORRUPT, detail=f"{found.path}: cut off: {whole.cut}")
        reason = _not_here(whole.header, device)
        if reason:
            return replace(made, verdict=Verdict.NOT_GATED, detail=reason)
        result = replayed_pipeline(found.path, _maker(whole.header, device), device=device)
    except OtherPlatform as error:
        return replace(made, verdict=Verdict.NOT_GATED, detail=str(error))
    except (FileRefused, InvalidInput, NothingCompared) as error:
        return replace(made, verdict=Verdict.CORRUPT, detail=str(error))
    except TraceParted as parted:
        return replace(made, verdict=Verdict.MOVED, detail=str(parted))
    # A blessed trace ends at its tick on purpose, so the reason of its end says nothing.
    return replace(made, ticks=result.ticks, values=result.values, detail=str(replace(result, cut="")))


def _not_here(header: Header, device: str) -> str:
    """The reason for which the pipeline of a trace cannot be made here; empty where it can."""
    if header.subject != PIPELINE:
        return "a trace of a ring of your own, which `python -m harness replay --ring MODULE:FUNCTION` replays"
    try:
        kind = settings(header.hints).kind
    except UnknownHint as error:
        return str(error).removesuffix(": give --decoder") + ", `python -m harness replay` takes options for it"
    if kind.ahead_of_time:
        return f"executors of the kind {kind} run a file, which `python -m harness replay --engine PATH` names"
    return "" if kind in registry.live(device) else f"executors of the kind {kind} do not run on {device}"


def _maker(header: Header, device: str) -> MakeExecutor:
    made = settings(header.hints)
    return lambda rows: registry.executor(made.kind, made.made(device), rows, made.pin_rows, device)


def _of_others(captures: Path, own: Path) -> Iterator[TraceResult]:
    """The traces of other platforms, which are not read."""
    for folder in sorted(captures.glob(f"*/{FOLDER}")):
        blessed_on = folder.parent.name
        for path in _files(folder) if folder != own else ():
            if path.suffix == SUFFIX:
                why = f"blessed on {blessed_on}, and replayed there alone"
                yield TraceResult(path.stem, Verdict.NOT_GATED, blessed_on, path, detail=why)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
