"""The transcription is worth something only while it shares nothing with what it checks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOREIGN = {"__future__", "collections", "dataclasses", "hashlib", "hypothesis", "numpy", "pywt", "torch"}
OWN = "tests.transcription"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names.add(node.module or "")
        elif isinstance(node, ast.Name):
            assert node.id not in {"__import__", "importlib", "exec", "eval"}, f"a hidden import through {node.id}"
    return names


@pytest.mark.parametrize("name", ["__init__.py", "numerics64.py"])
def test_the_transcription_imports_nothing_of_the_engine(name: str) -> None:
    for module in imported(HERE / name):
        assert module.startswith(OWN) or module.split(".")[0] in FOREIGN, module


def test_the_formulas_are_written_without_torch() -> None:
    assert "torch" not in imported(HERE / "numerics64.py")
