"""The comparison of two revisions by a command of the caller's: its outputs first, then its metrics.

The command runs from its start to its end in the folder of a revision, in the order A B B A A B B A. A run's value of
a metric is the median of the run's samples. Four runs A B B A are a quad of `harness.rails.compare.statistics`. Every
quad counts: a run is longer than the changes of a machine that a control workload would show. The first run of each
side warms up the machine's caches and counts for the outputs alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.files import FileRefused
from harness.parity.baselines import platform
from harness.rails.compare import printed, statistics
from harness.rails.compare.outputs import changes
from harness.rails.compare.printed import Printed
from harness.rails.compare.processes import ALIKE
from harness.rails.compare.statistics import Judged, Round, Side, TimeVerdict
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree, top_of, trees

QUADS, MOST_QUADS = 8, 24
"""Quads before the first verdict, and those after which there may be none."""

_TAIL = 4000
"""Most bytes of a failed run's standard error in a message."""

Advance = Callable[[str], None]
DECIDED = (TimeVerdict.FASTER, TimeVerdict.SLOWER)


@dataclass(frozen=True)
class Asked:
    """Options of a comparison.

    Attributes:
        command: the program and its arguments.
        quads: number of quads before the first verdict, at least 2.
        most: number of quads after which a metric may be inconclusive.
    """

    command: tuple[str, ...]
    quads: int = QUADS
    most: int = MOST_QUADS


@dataclass(frozen=True)
class Outputs:
    """Comparison of the digests that both sides print.

    Attributes:
        moved: outputs whose digests differ, also from one run of B to another.
        only_base: outputs that only A prints, so the comparison does not pass.
        only_head: outputs that only B prints.
        same: number of outputs with equal digests in all runs.
    """

    moved: tuple[str, ...]
    only_base: tuple[str, ...]
    only_head: tuple[str, ...]
    same: int

    @property
    def passes(self) -> bool:
        """True if B prints every output of A with the same digest."""
        return not self.moved and not self.only_base

    def lines(self) -> list[str]:
        """The comparison in words, changed outputs first."""
        found = changes(self.moved, self.only_base, self.only_head)
        none = not (self.moved or self.only_base or self.only_head or self.same)
        count = f"{self.same} output{'s' * (self.same != 1)} with equal digests"
        return [*found, "no output was compared: the command prints none" if none else count]


@dataclass(frozen=True)
class Metric:
    """Comparison of one metric.

    Attributes:
        name: the metric.
        base: median over the runs of A.
        head: median over the runs of B.
        draws: one draw, or two if the first one says faster or slower.
    """

    name: str
    base: float
    head: float
    draws: tuple[Judged, ...]

    @property
    def verdict(self) -> TimeVerdict:
        """The common verdict of the draws, else inconclusive."""
        found = {judged.verdict for judged in self.draws}
        return found.pop() if len(found) == 1 else TimeVerdict.INCONCLUSIVE

    def summary(self) -> str:
        """The verdict in one line."""
        judged, first = self.draws[-1], self.draws[0]
        if first.verdict is not judged.verdict:
            return f"{self.name}: {self.verdict}: {first.verdict} did not recur in a second draw"
        if judged.why:
            return f"{self.name}: {self.verdict}: {judged.why}"
        ratio = judged.ratio
        recurred = ", in both of two draws" if len(self.draws) > 1 else ""
        return (
            f"{self.name}: {self.verdict}: B is {ratio.value:.3f} of A, {ratio.low:.3f} to {ratio.high:.3f}{recurred}; "
            f"'same' means within {judged.limit:.1%}"
        )

    def document(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        kept = ("verdict", "why", "ratio", "limit", "quads")
        draws = [{name: asdict(judged)[name] for name in kept} for judged in self.draws]
        return {"verdict": self.verdict, "base": self.base, "head": self.head, "draws": draws}


@dataclass(frozen=True)
class Compared:
    """Result of a comparison.

    Attributes:
        base: the revision A.
        head: the revision B.
        asked: the options.
        outputs: the comparison of the outputs.
        metrics: the comparison of each metric.
    """

    base: Revision
    head: Revision
    asked: Asked
    outputs: Outputs
    metrics: tuple[Metric, ...]

    @property
    def verdict(self) -> TimeVerdict:
        """Slower if a metric is, else inconclusive if one is, else the verdict of all, else faster."""
        found = {metric.verdict for metric in self.metrics}
        order = (TimeVerdict.SLOWER, TimeVerdict.INCONCLUSIVE, TimeVerdict.FASTER, TimeVerdict.SAME)
        return next(verdict for verdict in order if verdict in found)

    def summary(self) -> str:
        """The verdict and the metrics that give it, in one line."""
        return f"{self.verdict}: {', '.join(each.name for each in self.metrics if each.verdict is self.verdict)}"

    def document(self) -> dict[str, Any]:
        """The result and the platform as JSON values."""
        with platform.one_thread():
            where = {"name": platform.name("cpu"), "fingerprint": platform.of_device("cpu")}
        return {
            "outputs": {**asdict(self.outputs), "passes": self.outputs.passes},
            "verdict": self.verdict,
            "base": asdict(self.base),
            "head": asdict(self.head),
            "command": list(self.asked.command),
            "metrics": {each.name: each.document() for each in self.metrics},
            "platform": where,
        }


class _Runs:
    """All runs of both sides: their digests, and those of the present draw that count."""

    def __init__(self, sides: tuple[Tree, Tree], asked: Asked, advance: Advance) -> None:
        self._sides, self._asked, self._advance = sides, asked, advance
        self.digests: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
        self.metrics: list[str] = []
        self.metrics = self._names()
        self.values: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in self.metrics}

    def draw(self) -> dict[str, Judged]:
        """Add quads until every metric has a verdict, or until there are `most`."""
        values: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in self.metrics}
        for quad in range(1, self._asked.most + 1):
            self._advance(f"quad {quad}")
            for side in (0, 1, 1, 0):
                for name, samples in self._run(side).metrics.items():
                    values[name][side].append(float(np.median(samples)))
                    self.values[name][side].append(values[name][side][-1])
            if quad >= self._asked.quads:
                found = {name: _judged(both, self._asked.quads) for name, both in values.items()}
                if all(judged.verdict is not TimeVerdict.INCONCLUSIVE for judged in found.values()):
                    break
        return found

    def outputs(self) -> Outputs:
        """Compare the digests of all runs.

        Raises:
            CannotCompare: A itself prints different digests of an output from run to run.
        """
        base, head = self.digests
        unsteady = [name for name, found in base.items() if len(found) > 1]
        if unsteady:
            named = ", ".join(unsteady)
            raise CannotCompare(f"{self._sides[0].revision} makes another {named} from run to run: nothing to compare")
        both = [name for name in base if name in head]
        moved = tuple(name for name in both if base[name] != head[name])
        only = [tuple(name for name in one if name not in other) for one, other in ((base, head), (head, base))]
        return Outputs(moved, only[0], only[1], len(both) - len(moved))

    def _names(self) -> list[str]:
        """Run each side once; return the metrics, which have to be the same."""
        self._advance("outputs")
        base, head = (self._run(side).metrics for side in (0, 1))
        for missing, side in ((base.keys() - head.keys(), 1), (head.keys() - base.keys(), 0)):
            if missing:
                raise CannotCompare(f"{self._sides[side].revision} prints no {', '.join(sorted(missing))}")
        return list(base)

    def _run(self, side: int) -> Printed:
        tree, known = self._sides[side], self.metrics
        try:
            found = printed.parsed(_output(self._asked.command, tree), f"the output of {tree.revision}")
        except FileRefused as error:
            raise CannotCompare(str(error)) from error
        if known and found.metrics.keys() != set(known):
            raise CannotCompare(f"{tree.revision} prints other metrics from run to run: {', '.join(found.metrics)}")
        for name, digest in found.outputs.items():
            self.digests[side].setdefault(name, set()).add(digest)
        return found


def compare(base: str, head: str | None, asked: Asked, where: Path, advance: Advance) -> Compared:
    """Compare two revisions by a command.

    Args:
        base: the revision A: a git revision, else a folder.
        head: the revision B, as `base`; None is the working tree with its uncommitted files.
        asked: the options.
        where: a folder in the checkout.
        advance: called with the name of the next step.

    Raises:
        CannotCompare: a revision cannot be checked out; the command cannot be started, exits with another code than 0,
            prints anything but what `printed` describes, or prints other metrics in one run than in another.
    """
    _refuse_own_files(asked.command, where)
    program = _program(asked.command[0], where)
    with trees(base, head, where, package="") as sides:
        runs = _Runs(sides, replace(asked, command=(program, *asked.command[1:])), advance)
        draws = [runs.draw()]
        if any(judged.verdict in DECIDED for judged in draws[0].values()):
            draws.append(runs.draw())
        metrics = tuple(_metric(name, runs.values[name], draws) for name in runs.metrics)
        return Compared(sides[0].revision, sides[1].revision, asked, runs.outputs(), metrics)


def _metric(name: str, values: tuple[list[float], list[float]], draws: Sequence[Mapping[str, Judged]]) -> Metric:
    judged = [draw[name] for draw in draws]
    recurring = judged if judged[0].verdict in DECIDED else judged[:1]
    return Metric(name, float(np.median(values[0])), float(np.median(values[1])), tuple(recurring))


def _judged(values: tuple[list[float], list[float]], fewest: int) -> Judged:
    # A control workload that always takes the same time matches every quad.
    base, head = (Side(tuple(found), (1.0,) * len(found)) for found in values)
    return statistics.judge([Round(base, head)], fewest, absolute=0.0)


def _output(command: Sequence[str], tree: Tree) -> bytes:
    """Run a command in a tree and return its standard output, of which it may print a byte more than the limit."""
    named = f"{shlex.join(command)} of {tree.revision}"
    with tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command,
                cwd=tree.folder,
                env=_environment(tree.folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotCompare(f"{named} cannot be started: {error}") from error
        with process:
            try:
                out = process.stdout.read(printed.LIMIT + 1) if process.stdout else b""
                if len(out) <= printed.LIMIT and process.wait() != 0:
                    raise CannotCompare(f"{named} exited with {process.returncode}:\n{_tail(err)}")
            finally:
                # The command's own processes end with it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return out


def _environment(folder: Path) -> dict[str, str]:
    """The environment with the tree's packages first on Python's path, and this interpreter first among programs."""
    python = [str(folder), *([str(folder / "src")] if (folder / "src").is_dir() else [])]
    path = os.pathsep.join(filter(None, [*python, os.environ.get("PYTHONPATH", "")]))
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PYTHONPATH": path, "PATH": programs, **ALIKE}


def _program(named: str, where: Path) -> str:
    """The program; one that only the caller's folder holds, such as that of a virtual environment, by its full path."""
    if os.sep not in named or os.path.isabs(named) or not (where / named).is_file():
        return shutil.which(named, path=_environment(where)["PATH"]) or named
    top = top_of(where)
    return named if top is not None and _tracked(named, where) else os.path.abspath(where / named)


def _tracked(named: str, where: Path) -> bool:
    listed = subprocess.run(["git", "ls-files", "--error-unmatch", named], cwd=where, capture_output=True, check=False)
    return listed.returncode == 0


def _refuse_own_files(command: Sequence[str], where: Path) -> None:
    """Check that no argument names a file of the checkout by its full path: both sides would run that one file.

    Raises:
        CannotCompare: an argument does.
    """
    top = top_of(where)
    for word in command[1:]:
        path = Path(word)
        if top is not None and path.is_absolute() and path.exists() and path.resolve().is_relative_to(top):
            inside = path.resolve().relative_to(top)
            raise CannotCompare(f"{word} is the same file for both revisions: name {inside}, which each has")


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return file.read().decode(errors="replace").strip()
