"""Cost rails: exact costs of a steady ring, counted on the CPU and gated without a margin.

A rail is one workload with its switches. The costs are sums over a whole period of the ring, in which every place is
taken, moved through all steps and emptied again; every kind of tick is therefore counted. Counts do not depend on the
processor. Counts may depend on the version of torch and are kept by version.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.checkout import PACKAGE
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.results import Stats
from harness.engine.switches import SWITCHES, Switches
from harness.files import documents
from harness.files.schema import Natural
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import ReplayFailed
from harness.parity.baselines.captures import CAPTURES
from harness.parity.baselines.refusals import BlessRefused, alone, refuse_unless_explicit
from harness.rails.costs.counters import HostReads, Operators
from harness.rails.costs.counts import Counts, Row, in_order, measured, table, version
from harness.rails.costs.workload import KINDS, STREAMS, Ring, StreamRing, Workload, curves_touched

COSTS = "costs.json"
DEPTHS = (1, 4, 8)


@dataclass(frozen=True)
class _Costs:
    """A file of blessed costs: counts by version of torch, rail and name."""

    torch: dict[str, dict[str, dict[str, Natural]]]
    reason: str = ""


def rails() -> dict[str, Workload]:
    """List every rail by name.

    Each kind of ring at each depth; the mixed ring at depth 4 with each switch off; each kind of stream at depth 4.
    """
    unfused = Switches(fused_cfg=False)
    found: dict[str, Workload] = {}
    for depth in DEPTHS:
        found |= {f"{kind}/{depth}": Workload(kind, depth) for kind in KINDS}
        found[f"cfg_full, two passes/{depth}"] = Workload("cfg_full", depth, switches=unfused)
        found[f"dcw/{depth}"] = Workload("plain", depth, dcw=True)
    for switch in SWITCHES:
        found[f"mixed, {switch} off/4"] = Workload("mixed", 4, switches=Switches().turned_off(switch))
    return found | {f"stream {kind}/4": Workload(kind, 4, streamed=True) for kind in STREAMS}


def count(workload: Workload) -> Counts:
    """Count the costs of one period of a workload, after a warm-up that fills the ring and the caches.

    For a ring, ticks are counted and submissions are not. For a stream, whole ticks are counted, in which the stream
    makes and submits its requests. Operators of the decoder are not counted.
    """
    operators, reads, ran = Operators(), HostReads(), Counter[str]()
    decoder = AffineDecoder(16)

    def outside(**inputs: Tensor) -> Tensor:
        # Counted where the decoder runs: the pipeline's statistics count the planned runs.
        ran.update(runs=1, rows=len(inputs["hidden_states"]))
        with operators.paused():
            return decoder(**inputs)

    touched: Counter[str] = Counter()
    executor = EagerExecutor(outside, max_rows=16)
    ring = StreamRing(workload, decoder, executor) if workload.streamed else Ring(workload, executor)
    ring.warm_up()
    before = ring.pipeline.stats()
    ran.clear()
    for _ in range(workload.period):
        ring.feed()
        with curves_touched(touched), reads, operators:
            ring.advance()
    after = ring.pipeline.stats()
    return {
        "ticks": workload.period,
        "admitted": after.admitted - before.admitted,
        "decoder_runs": ran["runs"],
        "decoder_rows": ran["rows"],
        "rebuilds": _rebuilds(workload, before, after),
        "curves": touched["curves"],
        **measured(operators, reads),
    }


def _rebuilds(workload: Workload, before: Stats, after: Stats) -> int:
    """Number of times that conditions were padded and stacked; without the cache one for each run."""
    if workload.switches.cached_conditioning:
        return after.conditioning.misses - before.conditioning.misses
    return after.decoder_runs - before.decoder_runs


def growth(counted: Mapping[str, Counts]) -> dict[str, tuple[float, float]]:
    """Fit the operators of a tick outside the decoder by `a + b*depth`; return `(a, b)` for every kind of ring.

    The line goes through the counts of the smallest and the largest depth; the depths between may lie off the line.
    """
    found = {}
    for name in {rail.rsplit("/", 1)[0] for rail in counted if f"{rail.rsplit('/', 1)[0]}/{DEPTHS[0]}" in counted}:
        first, last = (counted[f"{name}/{depth}"] for depth in (DEPTHS[0], DEPTHS[-1]))
        low, high = first["operators"] / first["ticks"], last["operators"] / last["ticks"]
        slope = (high - low) / (DEPTHS[-1] - DEPTHS[0])
        found[name] = (low - slope * DEPTHS[0], slope)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class CostReport:
    """Report of all cost rails: every count that is blessed or was counted now.

    Attributes:
        rows: one row for each count of each rail, in the order of the rails.
        file: file of the blessed counts.
        torch: version of torch with which the rails were counted.
        gated: the file has counts for that version.
    """

    rows: tuple[Row, ...]
    file: Path
    torch: str
    gated: bool

    @property
    def passes(self) -> bool:
        """Say whether the rails were compared and every count equals the blessed one."""
        return self.gated and bool(self.rows) and all(row.same for row in self.rows)

    def wrong(self) -> list[Row]:
        """List the rows that differ; none where nothing is gated."""
        return [row for row in self.rows if not row.same] if self.gated else []

    def moved(self) -> dict[str, list[str]]:
        """List the counts that differ, each with the rails in which it differs."""
        found: dict[str, list[str]] = {}
        for row in self.wrong():
            found.setdefault(row.name, []).append(row.rail)
        return found

    def summary(self) -> str:
        """Summarize the report in one line."""
        rails = len({row.rail for row in self.rows})
        if not self.gated:
            return f"{rails} cost rails: not gated, {self.file} has no costs for torch {self.torch}"
        moved = ", ".join(f"{name} in {len(where)}" for name, where in self.moved().items())
        return f"{rails} cost rails, {len(self.rows)} counts: {f'different: {moved}' if moved else 'all as blessed'}"

    def document(self) -> list[dict[str, Any]]:
        """Return the rows as plain JSON values, each with its verdict."""
        return [
            {**asdict(row), "verdict": "not_gated" if not self.gated else "exact" if row.same else "moved"}
            for row in self.rows
        ]


def check(captures: Path = CAPTURES, advance: Callable[[str], None] = lambda _name: None) -> CostReport:
    """Count every rail and compare the counts with the blessed ones.

    Args:
        captures: folder with one folder for each platform.
        advance: called with the name of each rail before the rail is counted.

    Raises:
        CapturesError: the file of blessed counts exists and cannot be used.
    """
    file = path(captures)
    blessed = read(file).get(version(), {})
    now = counted(advance)
    rows = [row for rail in in_order(now, blessed) for row in table(rail, blessed.get(rail, {}), now.get(rail, {}))]
    return CostReport(tuple(rows), file, version(), bool(blessed))


@alone
def bless(
    reason: str, captures: Path = CAPTURES, fresh: Callable[[], Mapping[str, Counts]] | None = None
) -> CostReport:
    """Count every rail and make the counts the blessed costs of this version of torch.

    Args:
        reason: reason of the change, kept with the counts.
        captures: folder with one folder for each platform.
        fresh: function that counts again in a fresh process; None is `counted_afresh`.

    Returns:
        The counts of now against those that were blessed before.

    Raises:
        BlessRefused: under continuous integration, without a reason, with uncommitted captures, outside a checkout, or
            where a second count, in this or in a fresh process, differs.
    """
    refuse_unless_explicit(reason, captures)
    found = check(captures)
    now = _nested(found.rows)
    if counted() != now:
        raise BlessRefused("the costs are not reproducible: a second count in this process differs")
    if (fresh or counted_afresh)() != now:
        raise BlessRefused("the costs are not reproducible: a count in a fresh process differs")
    if not found.passes:
        file = captures / platform.name() / COSTS
        known = read(file)
        store.write_document(file, {"torch": {**known, version(): now}, "reason": reason})
    return found


def counted(advance: Callable[[str], None] = lambda _name: None) -> dict[str, Counts]:
    """Count the costs of every rail with one torch thread."""
    found = {}
    with platform.one_thread():
        for name, workload in rails().items():
            advance(name)
            found[name] = count(workload)
    return found


def path(captures: Path = CAPTURES) -> Path:
    """File of the costs to compare with: this platform's, else the reference platform's, else any other platform's."""
    own, reference = (captures / name / COSTS for name in (platform.name(), platform.reference_platform()))
    others = sorted(captures.glob(f"*/{COSTS}"))
    found = [file for file in (own, reference) if file.is_file()] + others
    return found[0] if found else own


def read(file: Path) -> dict[str, dict[str, Counts]]:
    """Read the blessed counts by version of torch and rail; empty where there is no file.

    Raises:
        CapturesError: the file exists and cannot be used.
    """
    try:
        return store.fitted(_Costs, store.read_document(file), file).torch
    except store.ManifestMissing:
        return {}


def counted_afresh() -> dict[str, Counts]:
    """Count the costs of every rail in a new interpreter.

    Raises:
        ReplayFailed: the interpreter exited with an error.
    """
    command = [sys.executable, "-m", "harness", "_costs"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReplayFailed(f"harness _costs exited with {done.returncode}:\n{done.stderr.strip()}")
    return dict(documents.parse(done.stdout, "harness _costs"))


def _nested(rows: Sequence[Row]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for row in rows:
        if row.now is not None:
            found.setdefault(row.rail, {})[row.name] = row.now
    return found
