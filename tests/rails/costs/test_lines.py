"""A read is laid to the line that makes it, whatever lies between the line and the counter."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.rails.costs.block import Block
from harness.rails.costs.lines import Line, line_outside

X, SCALAR = torch.ones(3), torch.tensor(2.0)

READS: dict[str, Callable[[], Any]] = {
    "item": lambda: SCALAR.item(),
    "cpu": lambda: X.cpu(),
    "bool": lambda: bool(SCALAR),
    "numpy": lambda: np.from_dlpack(X),
    "repr": lambda: repr(X),
    "where": lambda: torch.where(X > 0),
    "arange": lambda: torch.arange(SCALAR),
    "save": lambda: torch.save(X, io.BytesIO()),
    "a mask": lambda: X[X > 0],
    "a copy of a tree": lambda: [each.tolist() for each in copy.deepcopy([X])],
}


@pytest.mark.parametrize("name", READS)
def test_a_read_has_the_line_of_code_that_makes_it(name: str) -> None:
    with Block() as block:
        READS[name]()
    ((line, _), number), *rest = block.lines.items()
    code = READS[name].__code__
    assert (line.file, line.number, number, rest) == (__file__, code.co_firstlineno, 1, [])
    assert "<lambda>" in line.function


@pytest.mark.parametrize(("file", "own"), [("site-packages/engine/tick.py", True), ("json/encoder.py", False)])
def test_a_package_beside_the_standard_library_has_lines_and_the_library_itself_has_none(file: str, own: bool) -> None:
    path = os.path.join(os.path.dirname(os.__file__), file)
    made: dict[str, Any] = {}
    exec(compile("def read(ask):\n    return ask()\n", path, "exec"), made)
    found = made["read"](line_outside)
    assert (found == Line(path, 2, "read"), found.file == __file__) == (own, not own)


def test_every_read_has_a_line_and_equal_ones_are_counted() -> None:
    with Block() as block:
        for _ in range(3):
            SCALAR.item()
        bool(SCALAR)
    assert sorted(block.lines.values()) == [1, 3]
    assert sum(block.lines.values()) == block.counts["host_reads"] == 4


def test_a_line_is_shown_from_the_root_where_it_lies_inside() -> None:
    line = Line("/project/ring/tick.py", 7, "Ring.tick")
    assert line.shown(Path("/project")) == "ring/tick.py:7 in Ring.tick"
    assert line.shown(Path("/other")) == "/project/ring/tick.py:7 in Ring.tick"
    assert Line("", 0, "").shown(Path("/other")) == "no line of Python"
    assert line_outside().function == "test_a_line_is_shown_from_the_root_where_it_lies_inside"
