"""What a steady ring costs, in exact integers: counted on the CPU, gated without any margin.

A rail is one workload and the switches it runs with. Its costs are sums over a whole period of the ring, in which every
place is taken, moved through all its steps and emptied again; so no tick is left out as untypical. Counts do not depend
on the processor, but they may on torch's version, by which they are kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.checkout import PACKAGE
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.results import Stats
from harness.engine.switches import SWITCHES, Switches
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import BlessRefused, ReplayFailed, refuse_unless_explicit
from harness.parity.baselines.captures import CAPTURES
from harness.rails.costs.counters import HostReads, Operators, curves_touched
from harness.rails.costs.workload import KINDS, STREAMS, Ring, StreamRing, Workload

COSTS = "costs.json"
DEPTHS = (1, 4, 8)
OPERATOR = "operator "
"""Before an operator's own name, in the name of its count."""

Counts = dict[str, int]


@dataclass(frozen=True)
class Row:
    """One count of one rail: what is blessed and what is now; None where it is not there."""

    rail: str
    name: str
    blessed: int | None
    now: int | None

    @property
    def same(self) -> bool:
        """Whether it is what it was."""
        return self.blessed == self.now


def rails() -> dict[str, Workload]:
    """Every rail by name.

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
    """What one period of a workload costs, after the ring is full and everything that is made once was made.

    Of a ring the ticks are counted, and what is submitted between them is not; of a stream its ticks as a whole, in
    which it makes requests and submits them.
    """
    operators, reads, ran = Operators(), HostReads(), Counter[str]()
    decoder = AffineDecoder(16)

    def outside(**inputs: Tensor) -> Tensor:
        # Counted where they run: the pipeline's own figures say what was planned.
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


def measured(operators: Operators, reads: HostReads) -> Counts:
    """What two counters saw, as named counts; every operator has one of its own."""
    return {
        "host_reads": sum(reads.seen.values()),
        "allocations": operators.allocations,
        "copies": operators.copies,
        "operators": sum(operators.names.values()),
        **{f"{OPERATOR}{name}": number for name, number in sorted(operators.names.items())},
    }


def _rebuilds(workload: Workload, before: Stats, after: Stats) -> int:
    """How often conditions were padded and stacked: at every run without the cache."""
    if workload.switches.cached_conditioning:
        return after.conditioning.misses - before.conditioning.misses
    return after.decoder_runs - before.decoder_runs


def growth(counted: Mapping[str, Counts]) -> dict[str, tuple[float, float]]:
    """Operators outside the decoder a tick, as `a + b*depth`, for every kind of ring: `a` and `b`.

    From the smallest and the largest depth; whether the ones between lie on the line is for the reader of the counts.
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
    """Every count that is blessed or was counted.

    Attributes:
        rows: one a rail and count, in the order of the rails.
        file: where the blessed ones are.
        torch: the version that was counted with.
        gated: whether anything is blessed for that version.
    """

    rows: tuple[Row, ...]
    file: Path
    torch: str
    gated: bool

    @property
    def passes(self) -> bool:
        """Whether everything was compared, and nothing differs in either direction."""
        return self.gated and bool(self.rows) and all(row.same for row in self.rows)

    def wrong(self) -> list[Row]:
        """The rows that differ."""
        return [row for row in self.rows if not row.same] if self.gated else []

    def moved(self) -> dict[str, list[str]]:
        """The counts that differ, and for each the rails in which it does."""
        found: dict[str, list[str]] = {}
        for row in self.wrong():
            found.setdefault(row.name, []).append(row.rail)
        return found

    def summary(self) -> str:
        """In one line."""
        rails = len({row.rail for row in self.rows})
        if not self.gated:
            return f"{rails} cost rails: not gated, {self.file} has no costs for torch {self.torch}"
        moved = ", ".join(f"{name} in {len(where)}" for name, where in self.moved().items())
        return f"{rails} cost rails, {len(self.rows)} counts: {f'different: {moved}' if moved else 'all as blessed'}"

    def document(self) -> list[dict[str, Any]]:
        """The rows as plain JSON values, with what each is worth."""
        return [
            {**asdict(row), "verdict": "not_gated" if not self.gated else "exact" if row.same else "moved"}
            for row in self.rows
        ]


def check(captures: Path = CAPTURES, advance: Callable[[str], None] = lambda _name: None) -> CostReport:
    """Count every rail and compare it with what is blessed.

    Args:
        captures: the folder that holds one folder a platform.
        advance: called with the name of each rail before it is counted.

    Raises:
        CapturesError: the file is there and cannot be used.
    """
    file = path(captures)
    blessed = read(file).get(version(), {})
    now = counted(advance)
    rows = [row for rail in _in_order(now, blessed) for row in table(rail, blessed.get(rail, {}), now.get(rail, {}))]
    return CostReport(tuple(rows), file, version(), bool(blessed))


def table(rail: str, blessed: Counts, now: Counts) -> list[Row]:
    """One rail's rows: every count that either side has."""
    return [Row(rail, name, blessed.get(name), now.get(name)) for name in _in_order(now, blessed)]


def bless(
    reason: str, captures: Path = CAPTURES, fresh: Callable[[], Mapping[str, Counts]] | None = None
) -> CostReport:
    """Make what is counted now the blessed costs of this version of torch.

    Returns:
        What was counted, against what was blessed before.

    Raises:
        BlessRefused: under continuous integration, without a reason, with uncommitted captures or no checkout, or where
            a second count, or one in a fresh process, says something else.
    """
    refuse_unless_explicit(reason, captures)
    found = check(captures)
    now = _nested(found.rows)
    if counted() != now:
        raise BlessRefused("the costs are not reproducible: counted again in this process they differ")
    if (fresh or counted_afresh)() != now:
        raise BlessRefused("the costs are not reproducible: a fresh process counts others")
    if not found.passes:
        file = captures / platform.name() / COSTS
        known = read(file)
        store.write_document(file, {"torch": {**known, version(): now}, "reason": reason})
    return found


def counted(advance: Callable[[str], None] = lambda _name: None) -> dict[str, Counts]:
    """The costs of every rail, with one thread."""
    found = {}
    with platform.one_thread():
        for name, workload in rails().items():
            advance(name)
            found[name] = count(workload)
    return found


def path(captures: Path = CAPTURES) -> Path:
    """The costs to compare with: this platform's, else the reference platform's, else the only ones there are."""
    own, reference = (captures / name / COSTS for name in (platform.name(), platform.reference_platform()))
    others = sorted(captures.glob(f"*/{COSTS}"))
    found = [file for file in (own, reference) if file.is_file()] + others
    return found[0] if found else own


def read(file: Path) -> dict[str, dict[str, Counts]]:
    """Blessed counts by version of torch and rail; empty where there is no file.

    Raises:
        CapturesError: it is there and cannot be used.
    """
    if not file.is_file():
        return {}
    return dict(store.read_document(file)["torch"])


def version() -> str:
    """Torch's, without the build."""
    return str(torch.__version__).split("+")[0]


def counted_afresh() -> dict[str, Counts]:
    """The costs of every rail, counted in a new interpreter.

    Raises:
        ReplayFailed: it failed.
    """
    command = [sys.executable, "-m", "harness", "_costs"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReplayFailed(f"harness _costs exited with {done.returncode}:\n{done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def replacement(row: Row) -> str:
    """What a person would write into the file by hand, if `bless --costs` did not."""
    return "no such count any more" if row.now is None else f"{json.dumps(row.name)}: {row.now}"


def _in_order(*names: Iterable[str]) -> Sequence[str]:
    """Every name once, in the order in which they first come."""
    return list(dict.fromkeys(name for each in names for name in each))


def _nested(rows: Sequence[Row]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for row in rows:
        if row.now is not None:
            found.setdefault(row.rail, {})[row.name] = row.now
    return found
