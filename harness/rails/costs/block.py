"""Exact costs of a block of code, compared with the blessed counts of the block's name.

    captures/<platform>/costs/<name>.json    counts by version of torch, and the reason

Counts do not depend on the processor, so a platform without counts is compared with another platform's counts. Counts
may depend on the version of torch and are kept by version: for a version without counts nothing is gated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType

from harness.engine.errors import InvalidInput
from harness.parity.baselines import store
from harness.parity.baselines.blessed import Place, Rewritten
from harness.parity.compare import NothingCompared
from harness.rails.costs.calls import CALLS, Calls
from harness.rails.costs.counters import HostReads, Operators
from harness.rails.costs.counts import HOST_READS, Counts, Row, by_version, measured, table, version
from harness.rails.costs.lines import Lines

COSTS = "costs"
SUFFIX = ".json"


class CostsMoved(AssertionError):
    """The costs of a block differ from the blessed ones.

    Attributes:
        rows: the counts that differ.
    """

    def __init__(self, name: str, file: Path, rows: list[Row], lines: Sequence[str] = ()) -> None:
        """Name the file and every count that differs, then the `lines` of code that read."""
        said = [f"{name}: costs differ from those blessed in {file} for torch {version()}:"]
        said += [f"{row.name}: blessed {row.blessed}, now {row.now}" for row in rows]
        super().__init__("\n  ".join([*said, *lines]))
        self.rows = rows


class Block:
    """Counter of operators, allocations, copies and host reads inside a `with` block, in the block's own thread.

    Args:
        without: targets that are left out, by name: what runs inside a call of one is not counted, the call is. See
            `calls` for what is a target.
        count: targets whose calls are counted beside what runs inside them, by name.

    Raises:
        InvalidInput: a name that is empty, not printable or given twice, or a target that cannot be met.
    """

    def __init__(self, without: Mapping[str, object] = {}, count: Mapping[str, object] = {}) -> None:  # noqa: B006 - read only
        for name in (*without, *count):
            if not name or not name.isprintable() or (name in without and name in count):
                raise InvalidInput("name of a target", repr(name), "printable, and only once")
        self._operators, self._reads, self._calls = Operators(), HostReads(), Calls()
        self._without, self._count = dict(without), dict(count)
        self._thread: int | None = None
        self._stack = ExitStack()

    @property
    def counts(self) -> Counts:
        """Counts of the block so far: those of `counts.measured`, and one for each target."""
        calls = {f"{CALLS}{name}": number for name, number in sorted(self._calls.numbers.items())}
        return {**measured(self._operators, self._reads), **calls}

    @property
    def lines(self) -> Lines:
        """Number of host reads so far, by the line of code that reads and the name of the read."""
        return self._reads.lines

    @property
    def uncalled(self) -> list[str]:
        """Names of the targets that were to be left out and that nothing has called."""
        return [name for name in self._without if not self._calls.numbers[name]]

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave out what runs inside a `with` block; a block in another thread than the counted one changes nothing."""
        if threading.get_ident() != self._thread:
            yield
            return
        with self._operators.paused(), self._reads.paused():
            yield

    def __enter__(self) -> Block:
        """Start counting."""
        self._thread = threading.get_ident()
        with ExitStack() as started:
            for name, target in self._without.items():
                started.enter_context(self._calls.of(name, target, self.outside))
            for name, target in self._count.items():
                started.enter_context(self._calls.of(name, target, nullcontext))
            started.enter_context(self._reads)
            started.enter_context(self._operators)
            self._stack = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._stack.close()


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


def check(name: str, counts: Counts, place: Place, lines: Lines | None = None) -> str:
    """Compare counts with the blessed counts of a name; more and fewer are both a difference.

    Args:
        name: name of the rail.
        counts: the counts of its block.
        place: where the blessed counts are.
        lines: the host reads by line of code, which the message names where their number differs.

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
        moved = any(row.name == HOST_READS for row in rows)
        raise CostsMoved(name, path, rows, _in_words(lines or {}, place.project) if moved else ())
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


def refuse_uncalled(name: str, block: Block) -> None:
    """Check that every target that was to be left out was called.

    Raises:
        NothingCompared: a target was not called, so that the block's counts may hold what was to be left out.
    """
    if block.uncalled:
        never = ", ".join(block.uncalled)
        raise NothingCompared(f"{name}: nothing called {never} inside the block, so nothing was left out")


def _refuse_nothing(name: str, counts: Counts) -> None:
    called = any(number for each, number in counts.items() if each.startswith(CALLS))
    if not counts["operators"] and not counts[HOST_READS] and not called:
        raise NothingCompared(f"{name}: no operator ran inside the block, in the block's own thread")


def _in_words(lines: Lines, root: Path) -> list[str]:
    """Say where the host reads, the first line of code first."""
    found = sorted(lines.items(), key=lambda each: each[0])
    told = [f"  {line.shown(root)}: {name}{f', {n} times' * (n > 1)}" for (line, name), n in found]
    return ["host reads now, by line of code:", *told] if told else []
