"""A capture that holds a number which is not finite has no bound, so nothing that differs from it is within one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from harness.parity.baselines import store
from harness.parity.baselines.blessed import OutOfBound, _elsewhere
from harness.parity.baselines.verdicts import Verdict, within_bound
from harness.parity.compare import tree_differences

NOT_FINITE = [math.inf, -math.inf, math.nan]


def holding(number: float, size: int = 4) -> Tensor:
    made = torch.ones(size)
    made[0] = number
    return made


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("moved", [2.0**-23, 99.0])
@pytest.mark.parametrize("k", [0.0, 8.0])
def test_what_differs_beside_a_number_that_is_not_finite_has_moved(number: float, moved: float, k: float) -> None:
    blessed = holding(number)
    found = within_bound("s", {"r": blessed + torch.tensor([0.0, moved, 0.0, 0.0])}, {"r": blessed}, k)
    assert (found.verdict, found.max_abs, found.bound) == (Verdict.MOVED, None, None)
    assert found.detail.startswith("r: its capture is not finite, so no bound exists; ")
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("first", ["a", "b"])
def test_a_tensor_within_its_bound_does_not_speak_for_one_that_has_none(number: float, first: str) -> None:
    names = (first, "b" if first == "a" else "a")
    blessed = {name: torch.ones(4) if name == "a" else holding(number) for name in names}
    moved = {"a": 2.0**-23, "b": 99.0}
    now = {name: blessed[name] + torch.tensor([0.0, moved[name], 0.0, 0.0]) for name in names}
    assert within_bound("s", now, blessed, 8.0).verdict is Verdict.MOVED
    only = {**blessed, "a": now["a"]}
    assert within_bound("s", only, blessed, 8.0).verdict is Verdict.TOLERANCE, "the other one is as it was"


@pytest.mark.parametrize("number", NOT_FINITE)
def test_what_is_the_same_is_exact_whatever_it_holds(number: float) -> None:
    blessed = {"r": holding(number)}
    assert within_bound("s", {"r": holding(number)}, blessed, 8.0).verdict is Verdict.EXACT


@pytest.mark.parametrize("number", NOT_FINITE)
def test_a_tree_that_differs_from_such_a_capture_is_told_that_no_bound_would_let_it_pass(number: float) -> None:
    blessed = {"r": holding(number)}
    now = {"r": holding(number) + torch.tensor([0.0, 1.0, 0.0, 0.0])}
    entry = store.entry("tree", blessed, (), 0.0, "why")
    with pytest.raises(OutOfBound, match="it has no tolerance k, no bound would let it pass. r: its capture is not"):
        _elsewhere("tree", now, blessed, entry, ("cpu",), tree_differences(now, blessed))
    with pytest.raises(OutOfBound, match="beyond k = 8, r: its capture is not finite"):
        _elsewhere("tree", now, blessed, replace(entry, k=8.0), ("cpu",), tree_differences(now, blessed))
    assert _elsewhere("tree", blessed, blessed, entry, ("cpu",), []).verdict is Verdict.EXACT
