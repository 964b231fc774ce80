"""`python -m tests.sabotage.mutants`: mutates the package and counts the mutants that its tests notice.

A mutant is planted in a copy of the project and met by the tests that run its line, in a fork of a process that has
imported torch and nothing of this project. The rules that keep it honest:

- a test judges mutants only where it has passed in such a fork without any;
- a mutant that no test reaches, or that was not run, survives;
- a time-out kills only beyond ten times what the same tests take without a mutant, and is listed;
- a mutant with which pytest itself ends otherwise is `broken`: it is listed and left out of the score;
- the tests that killed are run once more without a mutant at the end, and where one fails, its kills do not count.

What survives stands in survivors.json with its reason. No maintained tool does this: mutmut mutates functions alone,
not the records that this package is made of; cosmic-ray starts an interpreter for every mutant, which takes seconds to
import torch, and knows nothing of the lines that tests run.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import py_compile
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.engine import atomic
from harness.parity.baselines.platform import ROOT
from tests.sabotage import reach as reaching
from tests.sabotage.forks import Ended, Forks
from tests.sabotage.mutation import mutants
from tests.sabotage.reach import Lines, Reach
from tests.sabotage.runner import copied

SURVIVORS = Path(__file__).with_name("survivors.json")
SAMPLE = Path(__file__).with_name("sample.json")
KEPT = ROOT / "build/mutants"
SEED = 20261126
SHARES = {"engine": 200, "parity": 200, "rails": 100, "rest": 100}
"""How many mutants of each part a sample has; `rest` is the plugin, the commands and what is beside the packages."""

LEAST = {"engine": 0.95, "parity": 0.9, "rails": 0.9, "rest": 0.9}
ATTEMPTS = 10.0
"""A time-out kills beyond so many times what the tests take without a mutant."""

START = 30.0
"""What a fork may take beside its tests, in seconds, on a busy machine."""


class Fate(StrEnum):
    """What became of a mutant; `killed` and `timed_out` count as noticed, `broken` is left out of the score."""

    KILLED = "killed"
    TIMED_OUT = "timed_out"
    SURVIVED = "survived"
    UNREACHED = "unreached"
    NOT_RUN = "not_run"
    BROKEN = "broken"


T = TypeVar("T")
R = TypeVar("R")

NOTICED = (Fate.KILLED, Fate.TIMED_OUT)


@dataclass(frozen=True)
class Case:
    """A change of the project.

    Attributes:
        name: the mutant's name in the whole project: module, function and change.
        kind: the operator that made it.
        module: path of the module that it counts for.
        sources: whole changed source by path.
        places: paths and lines by which the tests are chosen that meet it.
    """

    name: str
    kind: str
    module: str
    sources: Mapping[str, str]
    places: Sequence[tuple[str, Lines]]


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        name: the mutant.
        kind: its operator.
        module: path of its module.
        fate: what became of it.
        killer: id of the test that failed, empty where none did.
        tests: how many tests reach it.
        seconds: how long it took, in seconds.
    """

    name: str
    kind: str
    module: str
    fate: Fate
    killer: str = ""
    tests: int = 0
    seconds: float = field(default=0.0, compare=False)


def cases(root: Path = ROOT) -> list[Case]:
    """Every mutant of the package."""
    made = []
    for path in sorted((root / "harness").rglob("*.py")):
        module = str(path.relative_to(root))
        short = module.removeprefix("harness/").removesuffix(".py").replace("/", ".")
        for mutant in mutants(path.read_text()):
            name = f"{short}.{mutant.name}"
            made.append(Case(name, mutant.kind, module, {module: mutant.source}, [(module, mutant.lines)]))
    return made


def part(module: str) -> str:
    """The part of the package that a module belongs to, as in `SHARES`."""
    parts = Path(module).parts
    return parts[1] if len(parts) > 2 and parts[1] in SHARES else "rest"


def sample(everything: Sequence[Case], shares: Mapping[str, int], seed: int) -> list[Case]:
    """So many mutants of each part, drawn with a seed: those whose names have the smallest digests.

    Where the sources change, the mutants of what changed leave or enter the sample, and the others stay in it.
    """
    drawn = []
    for name, count in shares.items():
        there = [case for case in everything if part(case.module) == name]
        drawn += sorted(there, key=lambda case: hashlib.sha256(f"{seed}/{case.name}".encode()).digest())[:count]
    return drawn


class Workshop:
    """Copies of the project, each with a process that forks; used as a context manager.

    Args:
        root: the project, a git checkout; it is only read.
        jobs: how many copies are worked on at once.
    """

    def __init__(self, root: Path, jobs: int) -> None:
        self._root, self._jobs = root, jobs
        self._ready: SimpleQueue[tuple[Path, Forks]] = SimpleQueue()

    @contextmanager
    def open(self) -> Iterator[Workshop]:
        """Make the copies; remove them at the end."""
        with copied(self._root, self._jobs) as copies:
            made = []
            for copy in copies:
                # By the source's digest: a changed file of the same size and second must not meet its old bytecode.
                compileall.compile_dir(
                    copy / "harness", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
                )
                made.append((copy, Forks(copy)))
                self._ready.put(made[-1])
            try:
                yield self
            finally:
                for _copy, forks in made:
                    forks.close()

    def record(self, files: Sequence[str]) -> Iterator[tuple[str, Ended]]:
        """Run test files without a mutant, and record the lines of each test."""

        def one(file: str) -> tuple[str, Ended]:
            with self._taken() as (_copy, forks):
                return file, forks.run([file], None, seconds=reaching.SECONDS, record=True)

        yield from self._each(one, files)

    def fates(
        self,
        chosen: Sequence[Case],
        reach: Reach,
        until: float = float("inf"),
        killers: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Outcome]:
        """The fate of each mutant, as it comes; what has not begun at the time `until` is not run.

        `killers` has tests that killed mutants of the same name earlier. Such a test is asked first, which saves time
        and decides nothing: where it passes now, the others are asked as of any mutant.
        """

        def one(case: Case) -> Outcome:
            if time.monotonic() > until:
                return Outcome(case.name, case.kind, case.module, Fate.NOT_RUN)
            with self._taken() as (copy, forks), _planted(copy, case.sources):
                return _fate(case, reach, forks, killers.get(case.name, ""))

        yield from self._each(one, chosen)

    def against(self, pairs: Sequence[tuple[Case, str]], reach: Reach) -> Iterator[Outcome]:
        """The fate of each mutant that meets one test alone, in order; its killer is empty where it survives."""

        def one(pair: tuple[Case, str]) -> Outcome:
            case, test = pair
            with self._taken() as (copy, forks), _planted(copy, case.sources):
                ended = _asked(forks, [test], reach)
            fate, killer = judged(ended, [test])
            return Outcome(case.name, case.kind, case.module, fate, killer, 1)

        yield from self._each(one, pairs)

    def passing(self, tests: Sequence[str], reach: Reach) -> set[str]:
        """Those of the tests that pass without a mutant now."""

        def one(file: str) -> set[str]:
            wanted = [test for test in tests if test.split("::")[0] == file]
            with self._taken() as (_copy, forks):
                ended = _asked(forks, wanted, reach)
            return {test for test, outcome in ended.outcomes.items() if outcome == "passed"}

        return set().union(*self._each(one, sorted({test.split("::")[0] for test in tests})))

    def _each(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        with ThreadPoolExecutor(self._jobs) as pool:
            for done in as_completed([pool.submit(work, item) for item in items]):
                yield done.result()

    @contextmanager
    def _taken(self) -> Iterator[tuple[Path, Forks]]:
        taken = self._ready.get()
        try:
            yield taken
        finally:
            self._ready.put(taken)


@contextmanager
def _planted(copy: Path, sources: Mapping[str, str]) -> Iterator[None]:
    """The changed sources stand in the copy inside, and the true ones afterwards."""
    before = {path: (copy / path).read_bytes() for path in sources}
    try:
        for path, source in sources.items():
            (copy / path).write_text(source)
        yield
    finally:
        for path, content in before.items():
            (copy / path).write_bytes(content)


def _asked(forks: Forks, tests: Sequence[str], reach: Reach) -> Ended:
    """Run tests in a fork, for at most `START` seconds and `ATTEMPTS` times what they take without a mutant."""
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    return forks.run(files, tests, seconds=START + ATTEMPTS * sum(reach.seconds[test] for test in tests))


def _fate(case: Case, reach: Reach, forks: Forks, killed_earlier: str) -> Outcome:
    """Ask batch after batch of the tests that reach a mutant, until one notices it; first what killed it earlier."""
    started = time.monotonic()
    tests: set[str] = set().union(*(reach.of(path, lines) for path, lines in case.places))
    fate, killer = Fate.SURVIVED if tests else Fate.UNREACHED, ""
    for batch in [*([[killed_earlier]] if killed_earlier in tests else []), *reach.batches(case.module, tests)]:
        fate, killer = judged(_asked(forks, batch, reach), batch)
        if fate is not Fate.SURVIVED:
            break
    return Outcome(case.name, case.kind, case.module, fate, killer, len(tests), round(time.monotonic() - started, 1))


def judged(ended: Ended, wanted: Sequence[str]) -> tuple[Fate, str]:
    """What a fork's end says of the mutant, and the test that failed."""
    if ended.timed_out:
        return Fate.TIMED_OUT, ""
    if ended.red:
        return Fate.KILLED, ended.red
    if ended.code == 0 and set(ended.outcomes) == set(wanted) and set(ended.outcomes.values()) == {"passed"}:
        return Fate.SURVIVED, ""
    return Fate.BROKEN, ""


def score(outcomes: Iterable[Outcome], equivalent: Container[str] = ()) -> float:
    """The share of mutants that were noticed; those that are broken or change nothing are left out. 0 of none."""
    counted = [
        outcome.fate in NOTICED
        for outcome in outcomes
        if outcome.fate is not Fate.BROKEN and outcome.name not in equivalent
    ]
    return sum(counted) / max(len(counted), 1)


@dataclass(frozen=True)
class Reasons:
    """Why each known survivor is not noticed, by name.

    Attributes:
        equivalent: mutants that change nothing that anybody can observe.
        survivors: the others.
    """

    equivalent: Mapping[str, str]
    survivors: Mapping[str, str]

    @property
    def all(self) -> dict[str, str]:
        """Every reason."""
        return {**self.equivalent, **self.survivors}


def reasons(path: Path = SURVIVORS) -> Reasons:
    """The reasons that are kept in the project."""
    return Reasons(**json.loads(path.read_text()))


def sampled(path: Path = SAMPLE) -> list[dict[str, Any]]:
    """The mutants of the sample that is kept in the project, whose kills were seen twice: fields of `Outcome`."""
    kept: list[dict[str, Any]] = json.loads(path.read_text())["mutants"]
    return kept


def complaints(outcomes: Sequence[Outcome], known: Reasons, existing: Iterable[str]) -> list[str]:
    """What is wrong with the outcome, in words; empty where nothing is.

    Args:
        outcomes: of the mutants that were chosen.
        known: the reasons.
        existing: names of all mutants there are.
    """
    survived = {outcome.name for outcome in outcomes if outcome.fate not in (*NOTICED, Fate.BROKEN)}
    ran = {outcome.name for outcome in outcomes}
    found = [f"survived without a reason: {name}" for name in sorted(survived - known.all.keys())]
    found += [f"has a reason and was noticed: {name}" for name in sorted(known.all.keys() & ran - survived)]
    found += [f"has a reason and is no mutant: {name}" for name in sorted(known.all.keys() - set(existing))]
    for name, least in LEAST.items():
        of_part = [outcome for outcome in outcomes if part(outcome.module) == name]
        if of_part and score(of_part, known.equivalent) < least:
            found.append(f"the score of {name} is {score(of_part, known.equivalent):.1%}, below {least:.0%}")
    return found


def honest(outcomes: Sequence[Outcome], passing: set[str]) -> list[Outcome]:
    """The outcomes, with the kills of tests that fail without a mutant too taken back: they survived."""
    return [
        replace(outcome, fate=Fate.SURVIVED)
        if outcome.fate is Fate.KILLED and outcome.killer not in passing
        else outcome
        for outcome in outcomes
    ]


class Journal:
    """Outcomes on disk, a line each, so that a run that was stopped goes on where it was.

    An outcome holds for a mutant of a source; where the source has changed, the mutant is run again.

    Args:
        path: the file; made with the first outcome.
        root: the project.
    """

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self._path, self._root = path, root

    def read(self, again: bool = False) -> dict[str, Outcome]:
        """Return the outcomes known by name; with `again`, those alone that were noticed."""
        known = {}
        for entry in self._entries():
            if entry.pop("source") == self._digest(entry["module"]):
                known[entry["name"]] = Outcome(**{**entry, "fate": Fate(entry["fate"])})
        return {name: outcome for name, outcome in known.items() if not again or outcome.fate in NOTICED}

    def killers(self) -> dict[str, str]:
        """Return the test that killed each mutant last, by the mutant's name; of sources that have changed too."""
        return {entry["name"]: entry["killer"] for entry in self._entries() if entry["killer"]}

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; one that was not run is not kept."""
        if outcome.fate is not Fate.NOT_RUN:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps({**asdict(outcome), "source": self._digest(outcome.module)}) + "\n")

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.is_file() else []

    def _digest(self, module: str) -> str:
        path = self._root / module
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def run(
    chosen: Sequence[Case],
    *,
    jobs: int,
    journal: Journal,
    again: bool = False,
    minutes: float = float("inf"),
    quick: bool = False,
    kept: Path = KEPT,
    say: Callable[[str], None] = lambda _line: None,
) -> list[Outcome]:
    """Record what tests reach, run the mutants that the journal does not know, and give every mutant's outcome.

    Args:
        chosen: the mutants.
        jobs: how many at once.
        journal: outcomes of earlier runs; the new ones are added.
        again: run those that survived earlier once more.
        minutes: no mutant is begun later than this, in minutes from now.
        quick: ask fewer tests, those of most promise; what survives is no verdict until it is run again without.
        kept: folder of the records of what tests reach.
        say: called with a line for every file recorded and every mutant run.
    """
    until = time.monotonic() + 60 * minutes
    known = journal.read(again)
    killers = {**{entry["name"]: entry["killer"] for entry in sampled()}, **journal.killers()}
    open_cases = [case for case in chosen if case.name not in known]
    with Workshop(ROOT, jobs).open() as workshop:
        reach = replace(reaching.record(ROOT, kept, workshop.record, say), quick=quick)
        for test, outcome in reach.not_passed.items():
            if outcome != "skipped":
                say(f"judges nothing, {outcome}: {test}")
        for number, outcome in enumerate(workshop.fates(open_cases, reach, until, killers), 1):
            journal.add(outcome)
            known[outcome.name] = outcome
            say(f"{number}/{len(open_cases)} {outcome.fate} {outcome.seconds:.0f} s {outcome.name}")
        outcomes = [known[case.name] for case in chosen]
        killing = sorted({outcome.killer for outcome in outcomes if outcome.killer} & reach.seconds.keys())
        return honest(outcomes, workshop.passing(killing, reach))


def modules_table(outcomes: Sequence[Outcome], known: Reasons) -> Table:
    """A row a part and a module: its score, the same with mutants that change nothing counted in, and the fates."""
    made = Table("module", "score", "with equivalent", *map(str, Fate))
    for module in [*SHARES, *sorted({outcome.module for outcome in outcomes})]:
        of_it = [outcome for outcome in outcomes if module in (outcome.module, part(outcome.module))]
        if of_it:
            counts = Counter(outcome.fate for outcome in of_it)
            scores = f"{score(of_it, known.equivalent):.1%}", f"{score(of_it):.1%}"
            made.add_row(module, *scores, *(str(counts[fate] or "") for fate in Fate))
    return made


def survivors_table(outcomes: Sequence[Outcome], known: Reasons) -> Table:
    """A row for every mutant that no test failed for: what became of it, and why."""
    made = Table("not killed", "fate", "reason")
    for outcome in outcomes:
        if outcome.fate is not Fate.KILLED:
            reason = Text(known.all.get(outcome.name, ""), overflow="fold")
            made.add_row(Text(outcome.name, overflow="fold"), outcome.fate, reason)
    return made


def document(outcomes: Sequence[Outcome], known: Reasons, seed: int | None) -> dict[str, object]:
    """Outcomes as plain JSON values, by name; without times, which differ from run to run."""
    listed = [asdict(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.name)]
    for entry in listed:
        del entry["seconds"], entry["tests"]
    counts = Counter(outcome.fate for outcome in outcomes)
    scores = {
        name: round(score(of), 4) for name in SHARES if (of := [each for each in outcomes if part(each.module) == name])
    }
    return {"seed": seed, "scores": scores, "counts": {str(fate): counts[fate] for fate in Fate}, "mutants": listed}


def _shares(text: str) -> dict[str, int]:
    """Read `engine=200,rails=100`."""
    made = {}
    for each in text.split(","):
        name, _, count = each.partition("=")
        if name not in SHARES or not count.isdigit():
            raise click.BadParameter(f"{each!r} is not one of {', '.join(SHARES)} with a number")
        made[name] = int(count)
    return made


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every mutant of the package instead of a sample.")
@click.option("--sample", "shares", default=",".join(f"{k}={v}" for k, v in SHARES.items()), show_default=True)
@click.option("--seed", default=SEED, show_default=True, help="Draws the sample.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="PATH",
    help="Every mutant of this module, such as harness/engine/solver.py.",
)
@click.option("--only", default="", metavar="TEXT", help="Of the chosen ones those whose name holds this.")
@click.option(
    "--shard", default="0/1", metavar="N/PARTS", show_default=True, help="Of those every PARTS-th, from the N-th."
)
@click.option("--minutes", default=45.0, show_default=True, help="Begin no mutant later than this; run again to go on.")
@click.option("--again", is_flag=True, help="Run those once more that survived earlier.")
@click.option("--quick", is_flag=True, help="Ask fewer tests; run again with --again for the survivors' verdicts.")
@click.option("--jobs", default=2, show_default=True, help="How many at once.")
@click.option("--kept", default=KEPT, type=click.Path(path_type=Path, file_okay=False), help="Folder of what is known.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the outcomes here.")
def main(  # noqa: PLR0913 - an argument an option
    everything: bool, shares: str, seed: int, modules: tuple[str, ...], only: str, shard: str, minutes: float,
    again: bool, quick: bool, jobs: int, kept: Path, json_path: Path | None,
) -> None:  # fmt: skip
    """Mutate the package; exits with 0 where the scores suffice and every survivor has its reason."""
    if json_path is not None:
        atomic.check_writable(json_path)
    there = cases()
    chosen = there if everything else [case for case in there if case.module in modules]
    if not everything and not modules:
        chosen = sample(there, _shares(shares), seed)
    first, parts = map(int, shard.split("/"))
    chosen = [case for case in chosen if only in case.name][first::parts]
    outcomes = run(
        chosen, jobs=jobs, journal=Journal(kept / "outcomes.jsonl"), again=again, quick=quick, minutes=minutes,
        kept=kept / "reach",
        say=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    known = reasons()
    wrong = complaints(outcomes, known, [case.name for case in there])
    if json_path is not None:
        written = document(outcomes, known, None if everything or modules else seed)
        atomic.write(json_path, (json.dumps(written, indent=1) + "\n").encode())
    console = Console()
    console.print(survivors_table(outcomes, known))
    console.print(modules_table(outcomes, known))
    for line in wrong:
        click.echo(line)
    counts = Counter(outcome.fate for outcome in outcomes)
    click.echo(
        f"{score(outcomes, known.equivalent):.1%} of {len(outcomes)}: "
        + ", ".join(f"{counts[fate]} {fate}" for fate in Fate)
    )
    sys.exit(1 if wrong or not outcomes else 0)


if __name__ == "__main__":
    main()
