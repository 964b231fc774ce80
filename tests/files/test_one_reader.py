"""There is one reader: no other module opens a file to parse it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "harness"
READER = PACKAGE / "files"
PARSERS = {"json", "tomllib", "pickle", "yaml", "marshal", "shelve", "csv"}
LOADS = {"load", "loads", "read_text", "read_bytes", "fromfile", "memmap", "safe_open", "load_file", "from_file"}


def calls(source: str) -> Iterator[str]:
    """The names of calls that read a file or parse what was in one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in (*LOADS, "open"):
            yield node.func.id
        if isinstance(node.func, ast.Attribute):
            of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            kernel = of == "tl"  # Triton's load is of memory
            ours = of in ("documents", "tensors")
            if node.func.attr in LOADS and not kernel and not ours:
                yield node.func.attr
            if node.func.attr == "open" and of not in ("os", "reading"):
                yield "open"


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{each.name}" for each in node.names}
    return found


def others() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if READER not in path.parents)


@pytest.mark.parametrize("path", others(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_other_module_reads_a_file(path: Path) -> None:
    source = path.read_text()
    assert list(calls(source)) == []
    parsers = {each for each in imported(source) if each.split(".")[0] in PARSERS - {"json"}}
    assert parsers == set()
    assert "safetensors.safe_open" not in imported(source)


@pytest.mark.parametrize(
    "source",
    ["json.load(f)", "json.loads(s)", "path.read_text()", "open(p)", "Path(p).open()", "p.open('rb')", "onnx.load(p)",
     "safe_open(p)", "safetensors.load(b)", "torch.load(p)", "x.read_bytes()"],
)  # fmt: skip
def test_a_module_that_did_would_be_found(source: str) -> None:
    assert list(calls(source))
