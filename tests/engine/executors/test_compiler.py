"""torch's compiler from outside: when it is imported, where it keeps code, and what is counted of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.engine.executors import compiler
from harness.engine.executors.compiler import FOLDERS, Graphs, kept_in

ROOT = Path(__file__).resolve().parents[3]
# What torch's compiler imports warns of itself; `compiled` leaves such warnings out as well.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    compiler.forget()
    yield
    compiler.forget()


def doubled(x: Tensor) -> Tensor:
    return x * 2 + 1


def test_executors_are_imported_without_torch_s_compiler_and_without_diffusers() -> None:
    shown = (
        "import sys, harness.engine.executors, harness.engine\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'diffusers', 'sympy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_the_variables_name_the_folder_inside_the_block_alone(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    with pytest.raises(KeyError, match="inside"), kept_in(tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
        assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "triton")
        os.environ.pop("TRITON_CACHE_DIR")
        raise KeyError("inside")
    assert [os.environ.get(name) for name in FOLDERS] == [before, before]


def test_a_graph_is_compiled_once_and_then_loaded_from_its_folder_alone(tmp_path: Path) -> None:
    found = []
    for folder in ("first", "first", "second"):
        compiler.forget()
        graphs = Graphs()
        with kept_in(tmp_path / folder), graphs.counting():
            made = torch.compile(doubled, fullgraph=True)(torch.ones(5))
        assert made.tolist() == [3.0] * 5
        found.append((graphs.compiled, graphs.loaded))
    assert found == [(1, 0), (0, 1), (1, 0)]


def test_a_graph_is_counted_as_compiled_where_the_compiler_keeps_nothing(tmp_path: Path) -> None:
    graphs = Graphs()
    with kept_in(tmp_path), graphs.counting(), torch._inductor.config.patch(fx_graph_cache=False):
        torch.compile(doubled, fullgraph=True)(torch.ones(5))
    assert (graphs.compiled, graphs.loaded) == (1, 0)


def test_what_was_compiled_before_the_block_is_not_counted() -> None:
    made, graphs = torch.compile(doubled, fullgraph=True, backend="eager"), Graphs()
    made(torch.ones(5))
    with graphs.counting():
        made(torch.ones(5))
    assert graphs == Graphs(0, 0)


def test_an_error_in_the_block_does_not_lose_the_count() -> None:
    graphs = Graphs()
    with pytest.raises(KeyError, match="inside"), graphs.counting():
        torch.compile(doubled, fullgraph=True, backend="eager")(torch.ones(5))
        raise KeyError("inside")
    assert graphs == Graphs(1, 0)
