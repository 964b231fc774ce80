"""The comparison of two revisions: first the bits of their outputs, then the times of their ticks.

For the outputs, each tree replays the battery in a fresh process.

Times are taken in rounds. A round starts a fresh process of each tree; the two processes take turns of a few ticks in
the order A B B A (`harness.rails.compare.paced`). Processes that run one after the other would be minutes apart, while
the speed of a shared machine changes within seconds by more than the difference to detect. A single process for both
revisions would share caches, allocator and loaded code.

Rounds are added until there is a verdict (`harness.rails.compare.statistics`), up to a limit. A verdict of faster or
slower must recur in a second draw, with new processes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.files import FileRefused, documents
from harness.files.schema import fit
from harness.parity.baselines import platform
from harness.rails.compare import control, paced, statistics
from harness.rails.compare.outputs import changes
from harness.rails.compare.processes import lane, started, take_turns
from harness.rails.compare.statistics import Array, Judged, Round, Side, TimeVerdict
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree, trees

ROUNDS = 2
MOST_ROUNDS = 12
WINDOW = ("--decoder", "affine", "--warmup", "30", "--ticks", "600")
"""Default options of `bench`, before the user's options. The affine decoder is fast, so the ring dominates the time."""

FEWEST_TURNS = 4

SLOWDOWNS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
"""The slowdowns that `calibrate` tests, as shares of a tick's time."""

CONTROL = Path(control.__file__)
BENCH = "the latents of bench"

Advance = Callable[[str], None]


def _silent(_what: str) -> None:
    return None


@dataclass(frozen=True)
class Asked:
    """The options of a comparison.

    Attributes:
        options: the user's options of `bench`, as on a command line.
        rounds: the number of rounds before the first verdict.
        most: the largest number of rounds, after which the verdict may be inconclusive.
        slowdown: the slowdown of every tick of B, as a share of its time; 0 is none.
        control: the file with the control workload.

    Raises:
        CannotCompare: `--ticks` or `--warmup` is no whole number, or there are too few ticks for `FEWEST_TURNS` turns.
    """

    options: tuple[str, ...] = ()
    rounds: int = ROUNDS
    most: int = MOST_ROUNDS
    slowdown: float = 0.0
    control: Path = field(default_factory=lambda: CONTROL)

    def __post_init__(self) -> None:
        """Check the window."""
        try:
            turns = self.window.turns
        except ValueError as error:
            raise CannotCompare(f"--ticks and --warmup: expected whole numbers, got {error}") from error
        if turns < FEWEST_TURNS:
            raise CannotCompare(f"--ticks: expected at least {FEWEST_TURNS * paced.TURN}, for {FEWEST_TURNS} turns")

    @property
    def command(self) -> tuple[str, ...]:
        """All options of `bench`, the defaults first."""
        return (*WINDOW, *self.options)

    @property
    def device(self) -> str:
        """The device of `bench`, such as `cpu`."""
        return paced.value_of(self.command, "--device", "cpu")

    @property
    def window(self) -> paced.Window:
        """The ticks that `bench` measures."""
        return paced.Window.of(self.command)


@dataclass(frozen=True)
class Outputs:
    """The comparison of the outputs of both sides.

    Attributes:
        moved: the scenarios whose finished latents or states differ; `BENCH` if the latents of `bench` differ.
        only_base: the scenarios that only A has. B may have changed them, so the comparison does not pass.
        only_head: the scenarios that only B has.
        same: the number of scenarios that are byte for byte the same.
    """

    moved: tuple[str, ...]
    only_base: tuple[str, ...]
    only_head: tuple[str, ...]
    same: int

    @property
    def passes(self) -> bool:
        """Return True if at least one scenario was compared and B makes all outputs of A, byte for byte."""
        return bool(self.same) and not self.moved and not self.only_base

    def lines(self) -> list[str]:
        """The comparison in words, changed outputs first."""
        found = changes(self.moved, self.only_base, self.only_head)
        return [*found, f"outputs of {self.same} scenarios are byte for byte the same"]


@dataclass(frozen=True)
class Process:
    """One run of `bench`.

    Attributes:
        side: the turns, as medians of their ticks.
        ticks: the time of every tick of these turns in ms.
        outputs: the digest of the finished latents.
    """

    side: Side
    ticks: tuple[float, ...]
    outputs: str

    def summary(self) -> dict[str, float]:
        """Percentiles of the ticks and the median of the control workload, in ms, and the number of ticks."""
        shares = {"p25": 25, "median": 50, "p95": 95, "p99": 99}
        found = {name: float(np.percentile(self.ticks, share)) for name, share in shares.items()}
        return {**found, "ticks": len(self.ticks), "control": float(np.median(self.side.control))}


@dataclass(frozen=True)
class Draw:
    """Several rounds and their common verdict.

    Attributes:
        rounds: the processes of A and B of each round.
        judged: the verdict and its figures.
    """

    rounds: tuple[tuple[Process, Process], ...]
    judged: Judged

    def ms(self, side: int) -> dict[str, float]:
        """Medians, over the processes of one side (0 is A, 1 is B), of the values of `Process.summary`."""
        summaries = [one[side].summary() for one in self.rounds]
        return {name: float(np.median([summary[name] for summary in summaries])) for name in summaries[0]}

    def document(self) -> dict[str, Any]:
        """The draw as JSON values."""
        processes = [{"base": base.summary(), "head": head.summary()} for base, head in self.rounds]
        return {**asdict(self.judged), "rounds": processes, "base": self.ms(0), "head": self.ms(1)}


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        base: the revision A.
        head: the revision B.
        asked: the options.
        outputs: the comparison of the outputs.
        draws: one draw, or two if the first verdict is faster or slower.
    """

    base: Revision
    head: Revision
    asked: Asked
    outputs: Outputs
    draws: tuple[Draw, ...]

    @property
    def verdict(self) -> TimeVerdict:
        """The verdict on the times alone: the common verdict of all draws, else inconclusive."""
        found = {draw.judged.verdict for draw in self.draws}
        return found.pop() if len(found) == 1 else TimeVerdict.INCONCLUSIVE

    @property
    def why(self) -> str:
        """The reason for the verdict; empty if the ratio and its limit explain the verdict."""
        verdicts = [str(draw.judged.verdict) for draw in self.draws]
        if len(set(verdicts)) > 1:
            return f"{verdicts[0]} did not recur in a second draw, which says {verdicts[1]}"
        return self.draws[-1].judged.why

    def summary(self) -> str:
        """The verdict in one line."""
        judged = self.draws[-1].judged
        if self.why:
            return f"{self.verdict}: {self.why}"
        takes = f"B takes {judged.ratio.value:.3f} of A's time, {judged.ratio.low:.3f} to {judged.ratio.high:.3f}"
        recurred = ", in both of two draws" if len(self.draws) > 1 else ""
        return f"{self.verdict}: {takes}{recurred}; 'same' means within {judged.limit:.1%}"

    def document(self) -> dict[str, Any]:
        """The result, its limits and the platform as JSON values."""
        with platform.one_thread():
            device = self.asked.device
            where = {"name": platform.name(device), "fingerprint": platform.of_device(device)}
        return {
            "outputs": {**asdict(self.outputs), "passes": self.outputs.passes},
            "verdict": self.verdict,
            "why": self.why,
            "base": asdict(self.base),
            "head": asdict(self.head),
            "bench": list(self.asked.options),
            "slowdown": self.asked.slowdown,
            "draws": [draw.document() for draw in self.draws],
            "limits": {
                "margin": statistics.MARGIN,
                "absolute_ms": statistics.ABSOLUTE_MS,
                "confidence": statistics.CONFIDENCE,
            },
            "platform": where,
        }


def compare(base: str, head: str | None, asked: Asked, where: Path, advance: Advance = _silent) -> Comparison:
    """Compare two revisions.

    Args:
        base: the revision A: a git revision, else a folder.
        head: the revision B, as `base`; None is the current working tree with its uncommitted files.
        asked: the options.
        where: a folder in the checkout.
        advance: called with the name of the next step.

    Raises:
        CannotCompare: a revision cannot be checked out, or one of its processes failed.
    """
    with trees(base, head, where) as (a, b):
        advance("outputs")
        return _timed(a, b, outputs(a, b), asked, advance)


def calibrate(base: str | None, asked: Asked, where: Path, advance: Advance = _silent) -> dict[float, Comparison]:
    """Compare a revision with a slower copy of itself, to find the smallest slowdown that is detected.

    The search over `SLOWDOWNS` is a bisection: if a slowdown is not detected, all smaller ones count as not detected.

    Args:
        base: the git revision, or a folder; None is the working tree.
        asked: the options.
        where: a folder in the checkout.
        advance: called with the name of the next step.

    Returns:
        The comparisons by slowdown, the smallest slowdown first.

    Raises:
        CannotCompare: the revision cannot be checked out, a process failed, or `bench` runs on a device other than the
            CPU, on which a busy wait of the host has no effect.
    """
    if not asked.device.startswith("cpu"):
        raise CannotCompare(f"the host cannot slow down ticks of {asked.device}: calibrate with --device cpu")
    found: dict[float, Comparison] = {}
    with trees(base, base, where) as (a, b):
        advance("outputs")
        made = outputs(a, b)
        low, high = 0, len(SLOWDOWNS)
        while low < high:
            middle = (low + high) // 2
            slowdown = SLOWDOWNS[middle]
            found[slowdown] = _timed(a, b, made, replace(asked, slowdown=slowdown), advance)
            if found[slowdown].verdict is TimeVerdict.SLOWER:
                high = middle
            else:
                low = middle + 1
    return dict(sorted(found.items()))


def smallest_caught(tried: Mapping[float, Comparison]) -> float | None:
    """The smallest slowdown that was detected; None if none was."""
    return min((share for share, one in tried.items() if one.verdict is TimeVerdict.SLOWER), default=None)


def _timed(a: Tree, b: Tree, made: Outputs, asked: Asked, advance: Advance) -> Comparison:
    draws = [draw(a, b, asked, advance)]
    if draws[0].judged.verdict in (TimeVerdict.FASTER, TimeVerdict.SLOWER):
        draws.append(draw(a, b, asked, advance))
    latents = [{one[side].outputs for each in draws for one in each.rounds} for side in (0, 1)]
    if latents[0] != latents[1] or len(latents[0]) != 1:
        made = replace(made, moved=(*made.moved, BENCH))
    return Comparison(a.revision, b.revision, asked, made, tuple(draws))


def outputs(a: Tree, b: Tree) -> Outputs:
    """Replay the battery in both trees and compare the digests.

    Raises:
        CannotCompare: a replay failed.
    """
    command = ["-m", "harness", "_digests"]
    with started("_digests", command, a, {}) as first, started("_digests", command, b, {}) as second:
        base, head = (_parsed(child.output(), tree) for child, tree in ((first, a), (second, b)))
    both = [name for name in base if name in head]
    moved = tuple(name for name in both if base[name] != head[name])
    only_base = tuple(name for name in base if name not in head)
    return Outputs(moved, only_base, tuple(name for name in head if name not in base), len(both) - len(moved))


def _parsed(printed: str, tree: Tree) -> dict[str, Any]:
    try:
        found: dict[str, Any] = fit(
            dict[str, Any], documents.parse(printed, f"_digests of {tree.revision}"), tree.folder
        )
    except FileRefused as error:
        raise CannotCompare(str(error)) from error
    return found


def draw(a: Tree, b: Tree, asked: Asked, advance: Advance = _silent) -> Draw:
    """Run rounds until the verdict is not inconclusive, or until there are `asked.most` rounds.

    Raises:
        CannotCompare: a process failed.
    """
    found: list[tuple[Process, Process]] = []
    while True:
        advance(f"round {len(found) + 1}")
        # The side that begins alternates, because its first turn runs on a cold machine.
        begins = len(found) % 2
        found.append(_round(a, b, asked, begins))
        if len(found) >= asked.rounds:
            judged = statistics.judge([Round(x.side, y.side, i % 2 == 0) for i, (x, y) in enumerate(found)])
            if judged.verdict is not TimeVerdict.INCONCLUSIVE or len(found) >= asked.most:
                return Draw(tuple(found), judged)


def _round(a: Tree, b: Tree, asked: Asked, begins: int) -> tuple[Process, Process]:
    with tempfile.TemporaryDirectory(prefix="harness-round-") as place, ExitStack() as stack:
        reports = Path(place) / "a", Path(place) / "b"
        both = [
            stack.enter_context(lane(tree, asked.command, asked.control, report, slowdown))
            for tree, report, slowdown in ((a, reports[0], 0.0), (b, reports[1], asked.slowdown))
        ]
        take_turns(both[begins], both[1 - begins], asked.window.turns)
        return _process(a, asked, reports[0]), _process(b, asked, reports[1])


def _process(tree: Tree, asked: Asked, report: Path) -> Process:
    """Read the reports of a run of `bench`.

    Raises:
        CannotCompare: a report is missing or malformed.
    """
    try:
        found, beside = documents.load(report.with_suffix(".bench")), documents.load(report)
        turns = asked.window.turns
        samples = fit(list[float], found["samples"]["tick_ms"], report, ("samples", "tick_ms"))
        control, waited = (fit(list[float], beside[name], report, (name,)) for name in ("control_ms", "waited_ms"))
        ticks = by_turns(samples, waited, turns)
        side = Side(tuple(np.median(ticks, axis=1).tolist()), tuple(control[:turns]))
        return Process(side, tuple(ticks.ravel().tolist()), found["outputs"])
    except (ValueError, KeyError, TypeError) as error:  # FileRefused is a ValueError
        raise CannotCompare(f"the reports of bench of {tree.revision} cannot be read: {error!r}") from error


def by_turns(samples: Sequence[float], waited: Sequence[float], turns: int) -> Array:
    """Times of the ticks of a window in ms, `[turns, TURN]`; a turn's wait is subtracted from the turn's first tick.

    Args:
        samples: the measured times of the ticks in ms.
        waited: the duration of the stop before each turn in ms, which is part of the turn's first tick.
        turns: the number of turns.

    Raises:
        ValueError: there are too few ticks, or the wait exceeded its tick, so the stop was not inside that tick.
    """
    ticks = np.array(samples[: turns * paced.TURN]).reshape(turns, paced.TURN)
    ticks[:, 0] -= waited[:turns]
    if ticks.min() <= 0:
        raise ValueError("the wait for a turn exceeded its tick")
    return ticks
