"""Two revisions compared: whether they make the same bits, and then which takes less time.

Outputs come first: each tree replays the battery in a fresh process. Then rounds: a fresh process of each tree, both
alive at once, that take turns of a few ticks in the order A B B A (`harness.rails.compare.paced`). One process after
the other would be minutes apart, and a shared machine changes by more than what is looked for within seconds; one
process for both would share caches, allocator and loaded code between two revisions.

Rounds are added until they decide (`harness.rails.compare.statistics`), up to a cap. A verdict of faster or slower must
recur in a second draw, of other processes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.parity.baselines import contract, platform
from harness.rails.compare import control, paced, statistics
from harness.rails.compare.processes import lane, started, take_turns
from harness.rails.compare.statistics import Array, Judged, Round, Side, Verdict
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree, trees

ROUNDS = 2
MOST_ROUNDS = 12
WINDOW = ("--decoder", "affine", "--warmup", "30", "--ticks", "600")
"""Options of `bench` that stand before those that are asked for; the affine decoder, because the ring is compared."""

FEWEST_TURNS = 4

SLOWDOWNS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
"""What `calibrate` tries."""

CONTROL = Path(control.__file__)
BENCH = "the latents of bench"

Advance = Callable[[str], None]


def _silent(_what: str) -> None:
    return None


@dataclass(frozen=True)
class Asked:
    """What is to be timed, and how long.

    Attributes:
        options: of `bench`, as they stand on a command line.
        rounds: before the first verdict.
        most: where rounds end, decided or not.
        slowdown: by which every tick of B is made slower, as a share; 0 is as it is.
        control: file with the control workload.

    Raises:
        CannotCompare: options whose window cannot be parted into turns.
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
        """Every option of `bench`."""
        return (*WINDOW, *self.options)

    @property
    def device(self) -> str:
        """Where `bench` runs."""
        return paced.value_of(self.command, "--device", "cpu")

    @property
    def window(self) -> paced.Window:
        """What it measures."""
        return paced.Window.of(self.command)


@dataclass(frozen=True)
class Outputs:
    """What both sides make.

    Attributes:
        moved: scenarios whose finished latents or states differ, and `BENCH` where its latents do.
        only_base: scenarios that B lacks; that they are the same cannot be said.
        only_head: scenarios that A lacks; nothing is lost by them.
        same: how many are byte for byte the same.
    """

    moved: tuple[str, ...]
    only_base: tuple[str, ...]
    only_head: tuple[str, ...]
    same: int

    @property
    def passes(self) -> bool:
        """Whether something was compared, and everything that A makes B makes too."""
        return bool(self.same) and not self.moved and not self.only_base

    def lines(self) -> list[str]:
        """In words, what moved first."""
        found = [f"outputs MOVED: {', '.join(self.moved)}"] if self.moved else []
        found += [f"outputs not compared, B lacks them: {', '.join(self.only_base)}"] if self.only_base else []
        found += [f"outputs not compared, A lacks them: {', '.join(self.only_head)}"] if self.only_head else []
        return [*found, f"outputs of {self.same} scenarios are byte for byte the same"]


@dataclass(frozen=True)
class Process:
    """One run of `bench`.

    Attributes:
        side: its turns.
        ticks: ms of every tick of these turns.
        outputs: digest of its latents.
    """

    side: Side
    ticks: tuple[float, ...]
    outputs: str

    def summary(self) -> dict[str, float]:
        """Quartile, median and percentiles of its ticks, and the median of its control workload, in ms."""
        shares = {"p25": 25, "median": 50, "p95": 95, "p99": 99}
        found = {name: float(np.percentile(self.ticks, share)) for name, share in shares.items()}
        return {**found, "ticks": len(self.ticks), "control": float(np.median(self.side.control))}


@dataclass(frozen=True)
class Draw:
    """So many rounds, and what they say together."""

    rounds: tuple[tuple[Process, Process], ...]
    judged: Judged

    def ms(self, side: int) -> dict[str, float]:
        """The medians, over the processes of one side, of what each has in its summary."""
        summaries = [one[side].summary() for one in self.rounds]
        return {name: float(np.median([summary[name] for summary in summaries])) for name in summaries[0]}

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        processes = [{"base": base.summary(), "head": head.summary()} for base, head in self.rounds]
        return {**asdict(self.judged), "rounds": processes, "base": self.ms(0), "head": self.ms(1)}


@dataclass(frozen=True)
class Comparison:
    """Two revisions compared.

    Attributes:
        base: A.
        head: B.
        asked: what was timed.
        outputs: what both make.
        draws: one, or two where the first said faster or slower.
    """

    base: Revision
    head: Revision
    asked: Asked
    outputs: Outputs
    draws: tuple[Draw, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the times alone: that of every draw."""
        found = {draw.judged.verdict for draw in self.draws}
        return found.pop() if len(found) == 1 else Verdict.INCONCLUSIVE

    @property
    def why(self) -> str:
        """In words, where the figures do not say it."""
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
        return f"{self.verdict}: {takes}{recurred}; the same is what is within {judged.limit:.1%}"

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        with platform.one_thread():
            device = self.asked.device
            where = {"name": platform.name(device), "fingerprint": contract.fingerprint(device)}
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
        base: A: a revision that git knows, else a folder.
        head: B: the same; None is the working tree as it is now, uncommitted changes and all.
        asked: what to time.
        where: a folder in the checkout.
        advance: called with what is done next.

    Raises:
        CannotCompare: a revision cannot be had, or a process of one failed.
    """
    with trees(base, head, where) as (a, b):
        advance("outputs")
        return _timed(a, b, outputs(a, b), asked, advance)


def calibrate(base: str | None, asked: Asked, where: Path, advance: Advance = _silent) -> dict[float, Comparison]:
    """Compare a revision with itself, made slower by shares of `SLOWDOWNS`, to find the smallest that is caught.

    It is found by bisection, so not every share is tried: one that is smaller than an uncaught one counts as uncaught.

    Args:
        base: the revision, or a folder; None is the working tree.
        asked: what to time.
        where: a folder in the checkout.
        advance: called with what is done next.

    Returns:
        What was tried, smallest share first.

    Raises:
        CannotCompare: the revision cannot be had, a process failed, or ticks are not of this CPU: the delay is a busy
            wait of the host, which a device would not notice.
    """
    if not asked.device.startswith("cpu"):
        raise CannotCompare(f"ticks of {asked.device} cannot be made slower by the host: calibrate on the cpu")
    found: dict[float, Comparison] = {}
    with trees(base, base, where) as (a, b):
        advance("outputs")
        made = outputs(a, b)
        low, high = 0, len(SLOWDOWNS)
        while low < high:
            middle = (low + high) // 2
            slowdown = SLOWDOWNS[middle]
            found[slowdown] = _timed(a, b, made, replace(asked, slowdown=slowdown), advance)
            if found[slowdown].verdict is Verdict.SLOWER:
                high = middle
            else:
                low = middle + 1
    return dict(sorted(found.items()))


def smallest_caught(tried: Mapping[float, Comparison]) -> float | None:
    """The smallest slowdown that was caught; None where none was."""
    return min((share for share, one in tried.items() if one.verdict is Verdict.SLOWER), default=None)


def _timed(a: Tree, b: Tree, made: Outputs, asked: Asked, advance: Advance) -> Comparison:
    draws = [draw(a, b, asked, advance)]
    if draws[0].judged.verdict in (Verdict.FASTER, Verdict.SLOWER):
        draws.append(draw(a, b, asked, advance))
    latents = [{one[side].outputs for each in draws for one in each.rounds} for side in (0, 1)]
    if latents[0] != latents[1] or len(latents[0]) != 1:
        made = replace(made, moved=(*made.moved, BENCH))
    return Comparison(a.revision, b.revision, asked, made, tuple(draws))


def outputs(a: Tree, b: Tree) -> Outputs:
    """Replay the battery in both trees, and compare.

    Raises:
        CannotCompare: one of them failed.
    """
    command = ["-m", "harness", "_digests"]
    with started("_digests", command, a, {}) as first, started("_digests", command, b, {}) as second:
        base, head = (json.loads(child.output()) for child in (first, second))
    both = [name for name in base if name in head]
    moved = tuple(name for name in both if base[name] != head[name])
    only_base = tuple(name for name in base if name not in head)
    return Outputs(moved, only_base, tuple(name for name in head if name not in base), len(both) - len(moved))


def draw(a: Tree, b: Tree, asked: Asked, advance: Advance = _silent) -> Draw:
    """Rounds until they decide, or until there are `asked.most`.

    Raises:
        CannotCompare: a process failed.
    """
    found: list[tuple[Process, Process]] = []
    while True:
        advance(f"round {len(found) + 1}")
        # Who begins alternates, so that the same side is not always the one that starts cold.
        begins = len(found) % 2
        found.append(_round(a, b, asked, begins))
        if len(found) >= asked.rounds:
            judged = statistics.judge([Round(x.side, y.side, i % 2 == 0) for i, (x, y) in enumerate(found)])
            if judged.verdict is not Verdict.INCONCLUSIVE or len(found) >= asked.most:
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
    """What a run of `bench` left behind.

    Raises:
        CannotCompare: not what a bench leaves behind.
    """
    try:
        found = json.loads(report.with_suffix(".bench").read_text())
        beside = json.loads(report.read_text())
        turns = asked.window.turns
        ticks = by_turns(found["samples"]["tick_ms"], beside["waited_ms"], turns)
        side = Side(tuple(np.median(ticks, axis=1).tolist()), tuple(beside["control_ms"][:turns]))
        return Process(side, tuple(ticks.ravel().tolist()), found["outputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotCompare(f"bench of {tree.revision} cannot be read: {error!r}") from error


def by_turns(samples: Sequence[float], waited: Sequence[float], turns: int) -> Array:
    """The ms of the ticks of a window, a row a turn, without what the first of each waited.

    Raises:
        ValueError: these are not as many ticks, or one waited longer than it took: then what was waited in is not what
            was measured.
    """
    ticks = np.array(samples[: turns * paced.TURN]).reshape(turns, paced.TURN)
    ticks[:, 0] -= waited[:turns]
    if ticks.min() <= 0:
        raise ValueError("a tick waited for its turn longer than it took")
    return ticks
