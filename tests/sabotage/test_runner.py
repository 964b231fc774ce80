"""The rules of sabotage, each tried on a toy project: what is not caught is never called so."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sabotage import runner
from tests.sabotage.runner import Defect, DefectVerdict, Result, document, sabotage, shard, write

MODULE = '''"""A toy."""


def double(x: int) -> int:
    """Twice as much."""
    # Not a shift: x may be a float.
    return x + x


def triple(x: int) -> int:
    """Three times as much."""
    return x + double(x)
'''
TESTS = """
import pytest
from harness import toy

LATE = toy.double(1)

@pytest.fixture
def doubled():
    assert toy.double(3) == 6
    return toy.double(3)

def test_double(): assert toy.double(2) == 4, "two and two make four"
@pytest.mark.parametrize("x", [0, 2])
def test_triple(x): assert toy.triple(x) == 3 * x
def test_with_fixture(doubled): assert doubled
def test_already_red(): assert False
def test_skipped(): pytest.skip("not here")
"""
FILE, NODE = "harness/toy.py", "tests/test_toy.py"


def defect(name: str, old: str = "return x + x", new: str = "return x + 1", node: str = "test_double", **more: str):
    return Defect(name, more.pop("file", FILE), old, new, f"{NODE}::{node}", **more)


CASES: dict[str, tuple[Defect, DefectVerdict, str]] = {
    each[0].name: each
    for each in [
        (defect("caught"), DefectVerdict.CAUGHT, "two and two make four"),
        (defect("caught by its words", says="make four"), DefectVerdict.CAUGHT, ""),
        (defect("caught by one case of several", node="test_triple"), DefectVerdict.CAUGHT, ""),
        (defect("caught by a case by name", node="test_triple[2]"), DefectVerdict.CAUGHT, ""),
        (defect("survived", new="return 2 * x"), DefectVerdict.SURVIVED, "stays green"),
        (defect("survived by a case", new="return 3 * x // 2", node="test_triple[0]"), DefectVerdict.SURVIVED, ""),
        (defect("comment only", "# Not a shift", "# Never a shift"), DefectVerdict.ERROR, "comments or docstrings"),
        (defect("docstring only", "Twice", "Two times"), DefectVerdict.ERROR, "comments or docstrings"),
        (defect("blanks only", "return x + x", "return x  +  x"), DefectVerdict.ERROR, "comments or docstrings"),
        (defect("wrong node", node="test_quadruple"), DefectVerdict.ERROR, "there is no test"),
        (defect("wrong case", node="test_triple[7]"), DefectVerdict.ERROR, "there is no test"),
        (defect("no text", "return x - x"), DefectVerdict.ERROR, "occurs 0 times"),
        (defect("text twice", "return x", "return y"), DefectVerdict.ERROR, "occurs 2 times"),
        (defect("no Python", new="return x +"), DefectVerdict.ERROR, "makes no Python"),
        (defect("no file", file="harness/nothing.py"), DefectVerdict.ERROR, "there is no harness/nothing.py"),
        (defect("red without it", node="test_already_red"), DefectVerdict.ERROR, "is failed without any defect"),
        (defect("skipped", node="test_skipped"), DefectVerdict.ERROR, "is skipped without any defect"),
        (defect("other words", says="make five"), DefectVerdict.ERROR, "does not say 'make five'"),
        (defect("breaks the collection", new="raise MemoryError"), DefectVerdict.ERROR, "exit code was 4"),
        (defect("breaks a fixture", new="return 2 * (x < 3)", node="test_with_fixture"), DefectVerdict.ERROR, "error"),
    ]
}  # fmt: skip


def files(root: Path) -> dict[str, str]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(name="project", scope="module")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a project with blanks")
    for name, text in {"harness/__init__.py": "", FILE: MODULE, NODE: TESTS, "tests/__init__.py": ""}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    reporter = Path(__file__).with_name("reporter.py")
    (root / "tests/sabotage").mkdir()
    (root / "tests/sabotage/__init__.py").touch()
    shutil.copy(reporter, root / "tests/sabotage/reporter.py")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


@pytest.fixture(name="results", scope="module")
def _results(project: Path) -> dict[str, Result]:
    before = files(project)
    # Apart, because an id of no test has pytest start once for each of the others.
    wrong = [case[0] for case in CASES.values() if case[0].name.startswith("wrong")]
    results = sabotage(project, wrong) + sabotage(project, [c[0] for c in CASES.values() if c[0] not in wrong])
    assert files(project) == before
    return {result.name: result for result in results}


@pytest.mark.sabotage
@pytest.mark.parametrize("name", CASES)
def test_only_a_failed_test_that_was_green_is_caught(results: dict[str, Result], name: str) -> None:
    _, verdict, words = CASES[name]
    assert (results[name].verdict, words in results[name].detail) == (verdict, True), results[name].detail


def test_the_json_lists_each_defect_with_its_verdict(results: dict[str, Result], tmp_path: Path) -> None:
    write(tmp_path / "deep" / "r.json", list(results.values()))
    read = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert read == json.loads(json.dumps(document(list(results.values()))))
    assert {d["name"]: d["verdict"] for d in read["defects"]} == {name: case[1] for name, case in CASES.items()}
    assert read["summary"] == {"caught": 4, "survived": 2, "error": len(CASES) - 6}


def test_the_shards_are_all_defects_and_the_revision_picks_one() -> None:
    defects = [defect(str(number)) for number in range(10)]
    shards = [shard(defects, f"{number:x}", 3) for number in range(3)]
    assert sorted(d.name for each in shards for d in each) == sorted(d.name for d in defects)
    assert shard(defects, "ff" * 20, 3) == shards[int("ff" * 20, 16) % 3]


def test_two_threads_may_read_sources_at_once() -> None:
    """A thread may be changed within a parse, where the garbage collector calls back."""

    def give_way(_phase: str, _info: dict[str, int]) -> None:
        time.sleep(1e-4)

    source = Path(runner.__file__).read_text()
    gc.callbacks.append(give_way)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(runner.code, [source] * 100))) == 1
    finally:
        gc.callbacks.remove(give_way)
