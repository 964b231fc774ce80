"""Which tests run which line: recorded once, test file by test file, in the same forks that mutants run in."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.engine import atomic
from tests.sabotage.forks import Ended

SECONDS = 3600.0
"""Time limit of one test file's recording, in seconds."""

BATCH = 20.0
"""Tests run together for about so many seconds, those of most promise first."""

MOST = 300.0
"""So many seconds of tests are asked of a mutant beside its module's own and the proofs; it survives what is left."""

PROOFS = tuple(f"tests/parity/proofs/test_{name}.py" for name in ("oracle", "switches", "laws", "machine"))
"""Asked last: what takes longest, and claims most."""

Lines = tuple[int, int] | None
"""First and last line; None for what runs when the module is imported."""


@dataclass
class Reach:
    """Tests by line.

    Attributes:
        quick: ask a mutant its module's own tests, one batch of others, and no proof.
        imports: test files by the module that they import.
        seconds: how long each test takes unmutated, in seconds and while its lines are recorded; passed tests alone.
        lines: tests by module and line, ids of tests that passed.
        not_passed: ids of the others, and files that could not be run, with what became of them; they judge no mutant.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    quick: bool = False
    imports: dict[str, set[str]] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    not_passed: dict[str, str] = field(default_factory=dict)

    def add(self, recorded: Mapping[str, Any]) -> None:
        """Add the record of a test file, as `document` gives it."""
        tests, outcomes, seconds = recorded["tests"], recorded["outcomes"], recorded["seconds"]
        for test, outcome, took in zip(tests, outcomes, seconds, strict=True):
            if outcome == "passed":
                self.seconds[test] = took
            else:
                self.not_passed[test] = outcome
        for module, by_line in recorded["lines"].items():
            known = self.lines.setdefault(module, {})
            for line, places in by_line.items():
                known.setdefault(int(line), set()).update(tests[i] for i in places if outcomes[i] == "passed")

    def of(self, module: str, lines: Lines) -> set[str]:
        """The tests that run one of the lines.

        What the module's import runs is reached by every test that runs a line of the module or whose file imports it.
        What tests share, such as a fixture or an import, runs for the first of them. So all tests of a file reach the
        lines where one of them alone runs the lines, or where the file is the module's own.
        """
        known = self.lines.get(module, {})
        if lines is None:
            files = self.imports.get(module, set())
            known = {**known, 0: {test for test in self.seconds if test.split("::")[0] in files}}
        wanted = known.keys() if lines is None else range(lines[0], lines[1] + 1)
        reached = set().union(*(known.get(line, set()) for line in wanted))
        runs = Counter(test.split("::")[0] for test in reached)
        whole = {file for file, count in runs.items() if count == 1 or file == own_tests(module)}
        return reached | {test for test in self.seconds if test.split("::")[0] in whole}

    def batches(self, module: str, tests: Iterable[str]) -> list[list[str]]:
        """Tests in the order in which they are asked: the module's own, then those of the quickest files."""
        by_file: dict[str, list[str]] = {}
        for test in sorted(tests):
            by_file.setdefault(test.split("::")[0], []).append(test)
        cost = {file: sum(self.seconds[test] for test in each) for file, each in by_file.items()}
        own = by_file.pop(own_tests(module), [])
        proofs = [by_file.pop(file) for file in PROOFS if file in by_file]
        others: list[list[str]] = []
        batch, spent = BATCH, 0.0
        for file in sorted(by_file, key=lambda each: cost[each]):
            spent += cost[file]
            if spent > (BATCH if self.quick else MOST):
                break
            if batch + cost[file] > BATCH:
                others.append([])
                batch = 0.0
            others[-1] += by_file[file]
            batch += cost[file]
        return [*([own] if own else []), *others, *([] if self.quick else proofs)]


def own_tests(module: str) -> str:
    """The test file that mirrors a module: `harness/engine/solver.py` has `tests/engine/test_solver.py`."""
    path = Path(module)
    return str(Path("tests", *path.parts[1:-1], f"test_{path.name}"))


def test_files(root: Path) -> list[str]:
    """Every test file but those that judge this very tool, the largest first."""
    files = [path for path in sorted((root / "tests").rglob("test_*.py")) if "sabotage" not in path.parts]
    return [str(path.relative_to(root)) for path in sorted(files, key=lambda path: -path.stat().st_size)]


def document(ended: Ended) -> dict[str, Any]:
    """A record as plain JSON values; lines name tests by their places in the list."""
    places = {test: place for place, test in enumerate(ended.found)}
    lines = {
        module: {line: [places[test] for test in tests] for line, tests in by_line.items() if tests}
        for module, by_line in ended.lines.items()
    }
    return {
        "tests": ended.found,
        "outcomes": [ended.outcomes.get(test, "did not run") for test in ended.found],
        "seconds": [round(ended.seconds.get(test, 0.0), 4) for test in ended.found],
        "lines": {module: by_line for module, by_line in lines.items() if by_line},
    }


def record(
    root: Path,
    kept: Path,
    run: Callable[[Sequence[str]], Iterator[tuple[str, Ended]]],
    advance: Callable[[str], None] = lambda _file: None,
) -> Reach:
    """Record every test file that has no record yet, or that has changed, or whose tests ran a module that has changed.

    Args:
        root: the project.
        kept: folder of records; made where it is missing.
        run: runs test files and gives each with how it ended.
        advance: called with each file as its record comes.
    """
    kept.mkdir(parents=True, exist_ok=True)
    sources = {str(path.relative_to(root)): _digest(path.read_bytes()) for path in (root / "harness").rglob("*.py")}
    helpers = _helpers(root)
    own = {file: _digest(helpers, (root / file).read_bytes()) for file in test_files(root)}
    paths = {file: kept / f"{_digest(file.encode())}.json" for file in own}
    known = {file: held for file, path in paths.items() if (held := _held(path, own[file], sources)) is not None}
    for file, ended in run([file for file in paths if file not in known]):
        if ended.code not in (0, 1, 5):
            unread = f"could not be run: pytest's exit code was {ended.code}, the process's {ended.status}"
            ended = replace(ended, found=[file], outcomes={file: unread})
        known[file] = document(ended)
        touched = {module: sources[module] for module in known[file]["lines"]}
        atomic.write(paths[file], json.dumps({**known[file], "own": own[file], "touched": touched}).encode())
        advance(file)
    reach = Reach(imports=importers(root))
    for file in paths:
        reach.add(known[file])
    return reach


def _held(path: Path, own: str, sources: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of this test file; None where there is none, or it or a module that its tests ran has changed."""
    if not path.is_file():
        return None
    recorded: dict[str, Any] = json.loads(path.read_text())
    return recorded if recorded["own"] == own and recorded["touched"].items() <= sources.items() else None


def importers(root: Path) -> dict[str, set[str]]:
    """Test files by the module of `harness` that they import, by any of the ways to write that."""
    texts = {file: (root / file).read_text() for file in test_files(root)}
    made = {}
    for path in (root / "harness").rglob("*.py"):
        module = str(path.relative_to(root))
        dotted = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        parent, _, name = dotted.rpartition(".")
        way = re.compile(rf"\b{re.escape(dotted)}\b|^from {re.escape(parent)} import .*\b{name}\b", re.MULTILINE)
        made[module] = {file for file, text in texts.items() if way.search(text)}
    return made


def _helpers(root: Path) -> bytes:
    """Digest of what the tests share."""
    helpers = [path for path in (root / "tests").rglob("*.py") if not path.name.startswith("test_")]
    paths = sorted(path for path in [*helpers, root / "conftest.py"] if "sabotage" not in path.parts)
    return _digest(*(str(path.relative_to(root)).encode() + path.read_bytes() for path in paths)).encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:24]
