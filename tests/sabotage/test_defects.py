"""The list of defects as such, and the part of it that this commit is held to."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from harness.engine.switches import SWITCHES
from harness.parity.baselines.platform import ROOT
from tests.sabotage.defects import DEFECTS, NOTORIOUS
from tests.sabotage.gpu_defects import ON_GPU
from tests.sabotage.runner import Defect, DefectVerdict, changed, revision, sabotage, shard

PARTS = 32
"""One of so many shards a run; `make sabotage` plants them all."""


def test_there_are_thirty_and_three_for_each_switch_and_every_notorious_one() -> None:
    assert len(DEFECTS) >= 30
    assert len({defect.name for defect in (*DEFECTS, *ON_GPU)}) == len(DEFECTS) + len(ON_GPU)
    assert len(ON_GPU) >= 8
    counts = Counter(defect.switch for defect in DEFECTS)
    assert min(counts[switch] for switch in SWITCHES) >= 3
    assert set(NOTORIOUS) <= {defect.name for defect in DEFECTS}


@pytest.mark.parametrize("defect", [*DEFECTS, *ON_GPU], ids=lambda defect: defect.name)
def test_a_defect_can_be_planted_and_its_test_is_there(defect: Defect) -> None:
    changed((ROOT / defect.file).read_text(), defect)
    file, name = defect.node.split("[")[0].split("::")
    tree = ast.walk(ast.parse((ROOT / file).read_text()))
    assert name in [node.name for node in tree if isinstance(node, ast.FunctionDef)]


@pytest.mark.sabotage
def test_the_defects_that_this_commit_is_held_to_are_caught() -> None:
    chosen = shard(DEFECTS, revision(ROOT), PARTS)
    assert chosen
    results = sabotage(ROOT, chosen)
    assert [(r.name, r.verdict, r.detail) for r in results if r.verdict is not DefectVerdict.CAUGHT] == []
