"""A ring that is played alone, as one tree with names that say tick, stage and slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.parity.compare import NotComparable, compare_trees
from harness.parity.proofs.played import played
from harness.parity.trees import leaves
from tests.parity.proofs.rings import Bare, Silent, Slots, nudged, untouched


def paths(tree: Any) -> list[str]:
    return [path for path, _ in leaves(tree)]


def test_paths_name_event_tick_stage_and_slot() -> None:
    names = paths(played(Slots(), [1.0, 2.0]))
    assert names[:3] == [f"event-0/tick-0/{each}/value" for each in ("gather/slot-0", "gather/slot-1", "decode/slot-0")]
    assert names[-5:] == [f"event-1/{each}" for each in (
        "output/out[0]", "output/out[1]", "state/x[0]", "state/x[1]", "state/hidden"
    )]  # fmt: skip


def test_the_first_difference_is_where_the_ring_went_wrong() -> None:
    moved = compare_trees(played(Slots(2, nudged("guidance", 1)), [1.0] * 4), played(Slots(), [1.0] * 4))
    assert moved[0].name == "event-2/tick-2/guidance/slot-1/value"


def test_a_tree_keeps_what_the_ring_held_then() -> None:
    ring, buffer = Silent(), torch.zeros(2)
    ring.step = lambda event: buffer.fill_(event)  # type: ignore[method-assign]
    tree = played(ring, [1.0, 2.0])
    assert [tree[f"event-{number}"]["output"].tolist() for number in (0, 1)] == [[1, 1], [2, 2]]


class Uncounted(Slots):
    def step(self, event: Any) -> Any:
        for _ in range(2):
            self.report("draw", None, "noise", torch.ones(1))


def test_what_has_no_slot_or_tick_and_what_is_reported_twice_has_a_name_too() -> None:
    ring = Uncounted()
    del ring.ticks
    names = paths(played(ring, [1.0]))
    assert names[:2] == ["event-0/stages/draw/noise", "event-0/stages/draw['noise#2']"]
    assert ring.report is untouched


def test_rings_that_are_played_one_after_another_draw_the_same_numbers() -> None:
    def noisy(_event: Any) -> Tensor:
        return torch.rand(3)

    assert compare_trees(played(noisy, [1] * 3), played(noisy, [1] * 3)) == []
    assert compare_trees(played(noisy, [1] * 3, isolate=False), played(noisy, [1] * 3, isolate=False)) != []


@dataclass
class Record:
    x: Tensor
    y: None = None


def test_records_numbers_arrays_and_none_are_kept_and_other_leaves_are_refused() -> None:
    tree = played(lambda event: Record(torch.ones(1)), [1])
    assert paths(tree) == ["event-0/output/x", "event-0/output/y", "event-0/state"]
    array = np.zeros(2)
    tree = played(lambda event: {"n": 1, "a": array}, [1])
    array += 1
    assert (tree["event-0"]["output"]["n"], tree["event-0"]["output"]["a"].tolist()) == (1, [0.0, 0.0])
    with pytest.raises(NotComparable, match=r"output/x\[0\] cannot be compared: expected a tensor, a NumPy array"):
        played(lambda event: {"x": [object()]}, [1])
    assert "state" in paths(played(Bare().step, [1.0]))[-1]
