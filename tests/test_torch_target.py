"""`make test-torch` runs the tests of everything that needs nothing of the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.extras import MODULES
from tests.makefile import without_make

ROOT = Path(__file__).resolve().parent.parent
# The tests of the plugin, of what its fixtures run, and of the reader of files below them.
ROOMS = (
    "tests/plugin", "tests/traps", "tests/parity", "tests/files", "tests/examples",
    "tests/rails/costs", "tests/rails/bench", "tests/rails/compare/test_statistics.py",
)  # fmt: skip
# Imports each module in an interpreter in which the packages of the extras are not found; prints those that cannot be.
IMPORT_WITHOUT_EXTRAS = """
import importlib, json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

names, missing = json.load(sys.stdin)
sys.meta_path.insert(0, NotInstalled())
needs = []
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in missing:
            raise
        needs.append(name)
json.dump(needs, sys.stdout)
"""
NOT_INSTALLED = [*MODULES, "onnx", "onnxruntime", "onnxscript", "jinja2", "PIL", "matplotlib", "filelock"]


def listed(variable: str) -> set[str]:
    """The test files that a variable of the Makefile names, one by one or by folder."""
    command = ["make", "-s", "--no-print-directory", f"--eval=print: ; @echo $({variable})", "print"]
    words = subprocess.run(
        command, cwd=ROOT, env=without_make(), capture_output=True, text=True, check=True
    ).stdout.split()
    return {file for word in words for file in _files(word)}


def _files(word: str) -> Iterator[str]:
    path = ROOT / word
    assert path.exists(), word
    found = path.rglob("test_*.py") if path.is_dir() else [path]
    yield from (each.relative_to(ROOT).as_posix() for each in found)


@pytest.fixture(scope="module")
def without_extras() -> set[str]:
    """The test files of the plugin's rooms that can be imported where no extra is installed."""
    files = sorted(file for room in ROOMS for file in _files(room))
    names = [file.removesuffix(".py").replace("/", ".") for file in files]
    command = [sys.executable, "-c", IMPORT_WITHOUT_EXTRAS]
    asked = json.dumps([names, NOT_INSTALLED])
    ran = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    needs = json.loads(ran.stdout)
    return {file for file, name in zip(files, names, strict=True) if name not in needs}


def test_every_test_file_that_needs_no_extra_runs_with_other_torches(without_extras: set[str]) -> None:
    assert without_extras - listed("TORCH_TESTS") == set()


def test_a_test_file_that_needs_an_extra_is_left_out_by_name(without_extras: set[str]) -> None:
    assert listed("TORCH_TESTS") - without_extras == listed("TORCH_LEFT_OUT")
