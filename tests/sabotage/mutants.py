"""`python -m tests.sabotage.mutants`: mutates the pure numerics and counts the mutants that their tests notice.

A mutant runs in a fork of a process that has imported torch and nothing of this project, and sees its mutated module in
place of the true one. It is killed where the module's tests fail, and survives where they pass. What survives stands in
survivors.json with the reason why it changes no result; a survivor without a reason, or a reason without a survivor, is
a failure, whatever the score.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tests.sabotage.mutation import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("schedule", "noise", "guidance", "blend", "solver", "wavelet")
SURVIVORS = Path(__file__).with_name("survivors.json")
LEAST = 0.9
SECONDS = 120
PASSED, FAILED, CRASHED = 40, 41, 42
"""A fork's exit codes: none that Python or pytest gives by itself."""


class Fate(StrEnum):
    """What became of a mutant: `killed` or `survived`; `broken` where it cannot even be imported, and is no mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"


@dataclass(frozen=True)
class Case:
    """A mutant of a module of `harness.engine`."""

    module: str
    mutant: Mutant

    @property
    def name(self) -> str:
        """The mutant's name in the whole project."""
        return f"{self.module}.{self.mutant.name}"


@dataclass(frozen=True)
class Outcome:
    """One mutant's fate, and where it survived why that is right; empty where nobody says."""

    name: str
    fate: Fate
    reason: str = ""


def cases(modules: Sequence[str] = MODULES) -> list[Case]:
    """Every mutant of the named modules."""
    sources = {module: (ROOT / f"harness/engine/{module}.py").read_text() for module in modules}
    return [Case(module, mutant) for module, source in sources.items() for mutant in mutants(source)]


def reasons(path: Path = SURVIVORS) -> dict[str, str]:
    """Why each known survivor changes no result."""
    return dict(json.loads(path.read_text()))


def run(chosen: Sequence[Case], jobs: int, advance: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
    """The fate of each mutant, in the order in which they come.

    Raises:
        RuntimeError: the unchanged module does not survive, so that a mutant's death would say nothing.
    """
    warm_up()
    for case, fate in _fates([unchanged(module) for module in sorted({case.module for case in chosen})], jobs):
        if fate is not Fate.SURVIVED:
            raise RuntimeError(f"the tests of {case.module} do not pass in a fork with the module as it is: {fate}")
    known = reasons()
    for case, fate in _fates(chosen, jobs):
        advance()
        yield Outcome(case.name, fate, known.get(case.name, "") if fate is Fate.SURVIVED else "")


def _fates(chosen: Sequence[Case], jobs: int) -> Iterator[tuple[Case, Fate]]:
    waiting, running = list(chosen), dict[int, Case]()
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop(0)
            running[_fork(case)] = case
        pid, status = os.wait()
        yield running.pop(pid), _fate(status)


def unchanged(module: str) -> Case:
    """The module as it is, in a mutant's place."""
    return Case(module, Mutant("unchanged", (ROOT / f"harness/engine/{module}.py").read_text()))


def warm_up() -> None:
    """Import what every mutant's tests need, and nothing that holds on to a module under test."""
    for name in ("torch", "numpy", "hypothesis", "ptwt", "pywt", "diffusers"):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    held = [name for name in sys.modules if name.split(".")[0] == "harness"]
    if held:
        raise RuntimeError(f"{held[0]} is imported already: a mutant would not take its place")


def score(outcomes: Sequence[Outcome]) -> float:
    """The share of mutants that were killed, those that are broken left out."""
    counts = Counter(outcome.fate for outcome in outcomes)
    return counts[Fate.KILLED] / max(counts[Fate.KILLED] + counts[Fate.SURVIVED], 1)


def complaints(outcomes: Sequence[Outcome], known: dict[str, str], existing: Sequence[str]) -> list[str]:
    """What is wrong with the outcome, in words; empty where nothing is.

    Args:
        outcomes: of the mutants that ran.
        known: reasons by name.
        existing: names of all mutants there are; the score is judged where all of them ran.
    """
    survived = {outcome.name for outcome in outcomes if outcome.fate is Fate.SURVIVED}
    ran = {outcome.name for outcome in outcomes}
    found = [f"survived without a reason: {name}" for name in sorted(survived - known.keys())]
    found += [f"has a reason and was killed: {name}" for name in sorted(known.keys() & ran - survived)]
    found += [f"has a reason and is no mutant: {name}" for name in sorted(known.keys() - set(existing))]
    if ran >= set(existing) and score(outcomes) < LEAST:
        found.append(f"the score is {score(outcomes):.1%}, below {LEAST:.0%}")
    return found


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source. It is a plugin of pytest too, to be asked before pytest's own finder is."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def pytest_configure(self) -> None:
        """Pytest rewrites the assertions of packages that bring a plugin, so it would load the true module."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, f"<mutant of {self._name}>", "exec"), module.__dict__)


def _fork(case: Case) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(SECONDS)
    code = CRASHED
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = _tested(case)
    finally:
        os._exit(code)


class _Failures:
    """Counts the tests that failed when they were called."""

    def __init__(self) -> None:
        self.count = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.count += report.when == "call" and report.failed


def _tested(case: Case) -> int:
    """How the module's tests end with the mutant in its place: `PASSED`, `FAILED` or `CRASHED`."""
    os.environ["HARNESS_HYPOTHESIS_PROFILE"] = "sabotage"
    os.chdir(ROOT)
    mutated = _Mutated(f"harness.engine.{case.module}", case.mutant.source)
    pytest = importlib.import_module("pytest")
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:benchmark", "-o", "addopts="]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins, which are imported already
    failures = _Failures()
    code = int(pytest.main([*options, f"tests/engine/test_{case.module}.py"], plugins=[mutated, failures]))
    if code == 0:
        return PASSED
    return FAILED if code == 1 and failures.count else CRASHED


def _fate(status: int) -> Fate:
    """A mutant that never ends is ended by its alarm, and that is a death too."""
    fates = {PASSED: Fate.SURVIVED, FAILED: Fate.KILLED, -signal.SIGALRM: Fate.KILLED}
    return fates.get(os.waitstatus_to_exitcode(status), Fate.BROKEN)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write it here too.")
@click.option("--module", "modules", multiple=True, type=click.Choice(MODULES), help="Only this module.")
@click.option(
    "--shard", default="0/1", metavar="N/PARTS", show_default=True, help="Only every PARTS-th, from the N-th."
)
@click.option("--jobs", default=2, show_default=True, help="How many at once.")
def main(json_path: Path | None, modules: tuple[str, ...], shard: str, jobs: int) -> None:
    """Mutate the pure numerics; exits with 0 where the score suffices and every survivor has its reason."""
    first, parts = map(int, shard.split("/"))
    if json_path is not None:
        json_path.touch()  # where it cannot be written, that is said before an hour's work
    everything, chosen = cases(), cases(modules or MODULES)[first::parts]
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("mutants", total=len(chosen))
        outcomes = list(run(chosen, jobs, lambda: progress.advance(task)))
    wrong = complaints(outcomes, reasons(), [case.name for case in everything])
    counts = Counter(outcome.fate for outcome in outcomes)
    if json_path is not None:
        summary = {"score": score(outcomes), **{str(fate): counts[fate] for fate in Fate}}
        listed = [asdict(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.name)]
        json_path.write_text(json.dumps({"mutants": listed, "summary": summary}, indent=1) + "\n")
    table = Table("survivor", "why it changes no result")
    for outcome in outcomes:
        if outcome.fate is Fate.SURVIVED:
            table.add_row(Text(outcome.name, overflow="fold"), Text(outcome.reason, overflow="fold"))
    console.print(table)
    for line in wrong:
        click.echo(line)
    click.echo(f"{score(outcomes):.1%}: " + ", ".join(f"{counts[fate]} {fate}" for fate in Fate))
    sys.exit(1 if wrong or not outcomes else 0)


if __name__ == "__main__":
    main()
