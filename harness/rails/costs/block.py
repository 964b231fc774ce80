"""Exact costs of a block of code, compared with the blessed counts of the block's name.

    captures/<platform>/costs/<name>.json    counts by version of torch, and the reason

Counts do not depend on the processor, so a platform without counts is compared with another platform's counts. Counts
may depend on the version of torch and are kept by version: for a version without counts nothing is gated.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from harness.parity.baselines import store
from harness.parity.baselines.blessed import Place, Rewritten
from harness.parity.compare import NothingCompared
from harness.rails.costs.counters import HostReads, Operators
from harness.rails.costs.counts import Counts, Row, by_version, measured, table, version

COSTS = "costs"
SUFFIX = ".json"


class CostsMoved(AssertionError):
    """The costs of a block differ from the blessed ones.

    Attributes:
        rows: the counts that differ.
    """

    def __init__(self, name: str, file: Path, rows: list[Row]) -> None:
        """Name the file and every count that differs."""
        lines = [f"{name}: costs differ from those blessed in {file} for torch {version()}:"]
        lines += [f"{row.name}: blessed {row.blessed}, now {row.now}" for row in rows]
        super().__init__("\n  ".join(lines))
        self.rows = rows


class Block:
    """Counter of operators, allocations, copies and host reads inside a `with` block, in the block's own thread."""

    def __init__(self) -> None:
        self._operators, self._reads = Operators(), HostReads()

    @property
    def counts(self) -> Counts:
        """Counts of the block so far; see `counts.measured`."""
        return measured(self._operators, self._reads)

    def __enter__(self) -> Block:
        """Start counting."""
        self._reads.__enter__()
        self._operators.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._operators.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._reads.__exit__(kind, error, trace)


def folder(place: Place) -> Path:
    """Folder of costs to compare with: that of `Place.folder` where it exists, else any platform's."""
    found = place.folder(COSTS)
    others = [] if place.platform or found.is_dir() else sorted(place.captures.glob(f"*/{COSTS}"))
    return others[0] if others else found


def entries(place: Place) -> list[Path]:
    """Files in the folder of costs to compare with."""
    found = folder(place)
    return sorted(found.iterdir()) if found.is_dir() else []


def file(where: Path, name: str) -> Path:
    """File of one name's costs in a folder.

    Raises:
        InvalidInput: a name with other characters than letters, digits, `_`, `-` and `.`.
    """
    return where / (store.file_name(name).removesuffix(store.SUFFIX) + SUFFIX)


def check(name: str, counts: Counts, place: Place) -> str:
    """Compare counts with the blessed counts of a name; more and fewer are both a difference.

    Returns:
        The reason why the counts are not gated; empty where they were compared and are equal.

    Raises:
        CostsMoved: a count differs, or only one side has it.
        CaptureMissing: the name was never blessed.
        CaptureCorrupt: the file of the name cannot be used.
        NothingCompared: no operator ran and the host read no tensor.
        InvalidInput: a name with other characters than letters, digits, `_`, `-` and `.`.
    """
    _refuse_nothing(name, counts)
    __tracebackhide__ = True  # pytest then shows the line of the test
    path = file(folder(place), name)
    if not path.is_file():
        raise store.CaptureMissing(f"{path}: missing, {name} was never blessed")
    blessed = by_version(path)
    if version() not in blessed:
        return f"{path} has costs for torch {', '.join(sorted(blessed))}, this is {version()}"
    rows = [row for row in table(name, blessed[version()], counts) if not row.same]
    if rows:
        raise CostsMoved(name, path, rows)
    return ""


def bless(name: str, counts: Counts, place: Place, reason: str) -> Rewritten | None:
    """Make counts the blessed counts of a name for this version of torch.

    The caller checks once whether blessing is allowed, with `bless.refuse_unless_explicit`. Where only another platform
    has costs, the counts are written to that platform's folder: the costs of a project stay in one folder.

    Returns:
        The changes; None where nothing was written.

    Raises:
        BlessRefused: the place names a platform other than this machine's.
        NothingCompared: no operator ran and the host read no tensor.
        InvalidInput: a name with other characters than letters, digits, `_`, `-` and `.`.
    """
    _refuse_nothing(name, counts)
    place.to_bless(COSTS)
    path = file(folder(place), name)
    try:
        known, what = by_version(path), ""
    except store.CaptureMissing:
        known, what = {}, "new"
    except store.CaptureCorrupt:
        known, what = {}, "restored, its file was corrupt"
    rows = [row for row in table(name, known.get(version(), {}), counts) if not row.same]
    if not rows:
        return None
    if not what:
        moved = (f"{row.name} {row.blessed} -> {row.now}" for row in rows)
        what = "moved: " + ", ".join(moved) if version() in known else f"new for torch {version()}"
    store.write_document(path, {"torch": {**known, version(): counts}, "reason": reason})
    return Rewritten(f"{name} {what}")


def _refuse_nothing(name: str, counts: Counts) -> None:
    if not counts["operators"] and not counts["host_reads"]:
        raise NothingCompared(f"{name}: no operator ran inside the block, in the block's own thread")
