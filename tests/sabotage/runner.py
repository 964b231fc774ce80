"""Plants one defect at a time in a copy of the project and sees whether the test that claims to notice it goes red.

The rules that keep it honest:

- every named test is green first, in an unchanged copy;
- a defect is an exact replacement of a text that occurs once, and it changes the code, not just its comments;
- each defect has a fresh process, which must import the copy;
- only pytest's exit code 1 with the named test failed in its report is caught;
- the file is put back and its hash checked before the next defect;
- whatever else happens (no such test, a test that errors, a crash, a time-out) is an error, and an error is no success.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from harness.engine import atomic
from tests.sabotage.forks import CI_LIKE

REPORT = "SABOTAGE_REPORT"
_PARSER = Lock()
"""The environment variable that tells `tests.sabotage.reporter` where to write."""

SECONDS = 300
NO_SUCH_TEST = 4
"""Pytest's exit code for a wrong command line, such as an id of no test."""


@dataclass(frozen=True)
class Defect:
    """A change that must turn a test red.

    Attributes:
        name: in a few words, what goes wrong.
        file: path in the project.
        old: text that occurs in it exactly once.
        new: what takes its place.
        node: pytest's id of the test that must fail; without its parameters, any of its cases.
        switch: the optimization that it breaks, where it breaks one.
        says: what the failing test must say, where that matters.
    """

    name: str
    file: str
    old: str
    new: str
    node: str
    switch: str | None = None
    says: str = ""


class DefectVerdict(StrEnum):
    """What became of a defect; only `caught` passes."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    ERROR = "error"


@dataclass(frozen=True)
class Result:
    """One defect's verdict; `detail` says what happened instead of being caught, or which test said what."""

    name: str
    file: str
    node: str
    switch: str | None
    verdict: DefectVerdict
    detail: str


@dataclass(frozen=True)
class Ran:
    """A pytest process: its exit code, the outcome of each test by id, what failing tests said, where harness was."""

    code: int
    outcomes: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    output: str = ""

    def of(self, node: str) -> list[str]:
        """The outcomes of a test, of all its cases where the id has no parameters."""
        return [outcome for ran, outcome in self.outcomes.items() if ran == node or ran.startswith(f"{node}[")]

    def said(self, node: str) -> str:
        """What the failing cases of a test said."""
        return "\n".join(w for ran, w in self.words.items() if ran == node or ran.startswith(f"{node}["))


class Planted(ValueError):
    """A defect that cannot be planted as it is described."""


def sabotage(
    root: Path,
    defects: Sequence[Defect],
    *,
    jobs: int = 2,
    advance: Callable[[Result], None] = lambda _result: None,
) -> list[Result]:
    """Plant every defect in a copy of the project at `root`; a result for each, in order.

    Args:
        root: the project, a git checkout; it is only read.
        defects: what to plant.
        jobs: how many copies are worked on at once.
        advance: called with each result as it comes.
    """
    with copied(root, jobs) as copies:
        ready: SimpleQueue[Path] = SimpleQueue()
        for copy in copies:
            ready.put(copy)
        baseline = _shared_baseline(copies, sorted({defect.node for defect in defects}))

        def work(defect: Defect) -> Result:
            copy = ready.get()
            try:
                result = judged(copy, defect, baseline)
            finally:
                ready.put(copy)
            advance(result)
            return result

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(work, defects))


def judged(copy: Path, defect: Defect, baseline: Ran) -> Result:
    """Plant one defect in `copy`, run its test, take it out again."""
    wrong = _wrong_with_baseline(copy, defect, baseline)
    if wrong:
        return _result(defect, DefectVerdict.ERROR, wrong)
    try:
        with planted(copy, defect):
            return _verdict(copy, defect, run_pytest(copy, [defect.node]))
    except Planted as error:
        return _result(defect, DefectVerdict.ERROR, str(error))


@contextmanager
def planted(copy: Path, defect: Defect) -> Iterator[None]:
    """The defect is in `copy` inside, and is not afterwards.

    Raises:
        Planted: the text is not there exactly once, or the change is one of comments, or no Python.
    """
    path = copy / defect.file
    if not path.is_file():
        raise Planted(f"there is no {defect.file}")
    before = path.read_bytes()
    path.write_text(changed(before.decode(), defect))
    try:
        yield
    finally:
        path.write_bytes(before)
    if hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(before).digest():
        raise Planted(f"{defect.file} could not be put back")


def changed(source: str, defect: Defect) -> str:
    """The source with the defect in it; see `planted`."""
    count = source.count(defect.old)
    if count != 1:
        raise Planted(f"its text occurs {count} times in {defect.file}, not once")
    made = source.replace(defect.old, defect.new)
    try:
        same = code(source) == code(made)
    except SyntaxError as error:
        raise Planted(f"it makes no Python of {defect.file}: {error}") from error
    if same:
        raise Planted(f"it changes comments or docstrings of {defect.file} and no code")
    return made


def code(source: str) -> str:
    """What Python makes of a source, without comments and docstrings."""
    # Python 3.11's parser counts its recursion in one place for all threads: two at once raise SystemError at random.
    with _PARSER:
        tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            first = body[0].value
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                body[0] = ast.Pass()
    return ast.dump(tree)


def run_pytest(copy: Path, nodes: Sequence[str]) -> Ran:
    """Run tests by id in a fresh process in `copy`."""
    with tempfile.TemporaryDirectory(prefix="sabotage-report-") as folder:
        report = Path(folder) / "report.json"
        paths = [str(copy), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **CI_LIKE, REPORT: str(report), "PYTHONPATH": os.pathsep.join(paths)}
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:cov",
            "-p",
            "no:benchmark",
            "-p",
            "tests.sabotage.reporter",
            "--no-header",
            "--tb=short",
        ]
        command = [sys.executable, "-m", "pytest", *options, *nodes]
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return Ran(-1, output=f"it took more than {SECONDS} s")
        written = json.loads(report.read_text()) if report.is_file() else {}
        return Ran(done.returncode, **written, output=(done.stdout + done.stderr)[-2000:])


@contextmanager
def copied(root: Path, count: int) -> Iterator[list[Path]]:
    """Copies of the project as it is in the working tree, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        copies = [Path(folder).resolve() / str(number) for number in range(count)]
        for copy in copies:
            for name in filter(None, listed.stdout.split("\0")):
                if (root / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(root / name, copy / name)
        yield copies


def _shared_baseline(copies: Sequence[Path], nodes: Sequence[str]) -> Ran:
    """Every named test without any defect, each in one of the copies."""
    shares = [(copy, nodes[number :: len(copies)]) for number, copy in enumerate(copies[: len(nodes)])]
    with ThreadPoolExecutor(len(shares) or 1) as pool:
        parts = list(pool.map(lambda share: _baseline(*share), shares))
    if not parts:
        return Ran(0)
    outcomes = {test: outcome for part in parts for test, outcome in part.outcomes.items()}
    return replace(max(parts, key=lambda part: part.code), outcomes=outcomes)


def _baseline(copy: Path, nodes: Sequence[str]) -> Ran:
    """Every named test without any defect; one that is not there must not hide the others."""
    together = run_pytest(copy, nodes)
    if together.code != NO_SUCH_TEST:
        return together
    alone = [run_pytest(copy, [node]) for node in nodes]
    outcomes = {test: outcome for ran in alone for test, outcome in ran.outcomes.items()}
    return replace(max(alone, key=lambda ran: len(ran.outcomes)), code=NO_SUCH_TEST, outcomes=outcomes)


def _wrong_with_baseline(copy: Path, defect: Defect, baseline: Ran) -> str:
    """Why the defect's test is no test to rely on; empty where it is."""
    outcomes = baseline.of(defect.node)
    if not outcomes:
        return f"there is no test {defect.node} (pytest's exit code was {baseline.code}): {baseline.output[-300:]}"
    if set(outcomes) != {"passed"}:
        return f"{defect.node} is {', '.join(sorted(set(outcomes)))} without any defect"
    if not Path(baseline.package).is_relative_to(copy.parent):
        return f"the tests imported harness from {baseline.package}, which is no copy"
    return ""


def _verdict(copy: Path, defect: Defect, ran: Ran) -> Result:
    outcomes = ran.of(defect.node)
    if ran.code == 0 and set(outcomes) == {"passed"}:
        return _result(defect, DefectVerdict.SURVIVED, f"{defect.node} stays green")
    if ran.code != 1 or "failed" not in outcomes:
        detail = f"pytest's exit code was {ran.code}, its outcomes {outcomes}: {ran.output[-300:]}"
        return _result(defect, DefectVerdict.ERROR, detail)
    if not Path(ran.package).is_relative_to(copy):
        return _result(defect, DefectVerdict.ERROR, f"the test imported harness from {ran.package}")
    said = ran.said(defect.node)
    if defect.says not in said:
        return _result(defect, DefectVerdict.ERROR, f"it does not say {defect.says!r} but {said[-300:]}")
    return _result(defect, DefectVerdict.CAUGHT, _first_words(said))


def _first_words(said: str) -> str:
    """The first line of the error itself; where hypothesis failed, its example comes before that."""
    lines = [line[4:].strip() for line in said.splitlines() if line.startswith("E   ")]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Parted|Refused|Compared): |assert ", line)]
    return errors[0] if errors else "failed"


def _result(defect: Defect, verdict: DefectVerdict, detail: str) -> Result:
    return Result(defect.name, defect.file, defect.node, defect.switch, verdict, detail)


def shard(defects: Sequence[Defect], revision: str, parts: int) -> list[Defect]:
    """The defects of one of `parts` shards, the one that `revision`, a hexadecimal number, picks."""
    return list(defects)[int(revision, 16) % parts :: parts]


def revision(root: Path) -> str:
    """The commit's hash: it is the same for a run that is repeated, and moves on with the project."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def document(results: Sequence[Result]) -> dict[str, object]:
    """Results as plain JSON values."""
    counts = {str(verdict): sum(result.verdict is verdict for result in results) for verdict in DefectVerdict}
    return {"defects": [asdict(result) for result in results], "summary": counts}


def write(path: Path, results: Sequence[Result]) -> None:
    """Write results as JSON."""
    atomic.write(path, (json.dumps(document(results), indent=2) + "\n").encode())
