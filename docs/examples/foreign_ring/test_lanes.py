"""The proofs of `lanes.py`: the adapter, and one test for each fixture."""

import pytest
import torch
from lanes import DICE, Lanes

from harness.parity.proofs.played import played

EVENTS = ["rain", None, "wind", None, "dusk", *[None] * 3, "snow", "rain", *[None] * 4, "fog", *[None] * 5]
OPTIONS = {"plain": {}, "fused": {"fused": True}, "cached": {"cached": True}, "lazy": {"lazy": True}}


class Adapter:
    """`Lanes` with the methods that the harness asks for: an event is a prompt, or None for a tick."""

    def __init__(self, **options):
        torch.manual_seed(0)
        DICE.seed(7)
        self.lanes = Lanes(**options)

    @property
    def ticks(self):
        return self.lanes.count

    def step(self, event):
        return self.lanes.advance() if event is None else self.lanes.feed(event)

    def state(self):
        at, queued = torch.tensor(self.lanes.at), torch.tensor(len(self.lanes.queue))
        return {"x": self.lanes.x, "mean": self.lanes.mean, "at": at, "queued": queued}

    def observe(self, callback):
        self.lanes.tap = callback

    def generators(self):
        return [DICE]


def test_the_plain_ring_makes_the_blessed_bytes(blessed):
    blessed("stream", lambda: played(Adapter(), EVENTS))


@pytest.mark.parametrize("option", ["fused", "cached", "lazy"])
def test_an_optimization_changes_no_bit(lockstep, option):
    lockstep(Adapter(), Adapter(**OPTIONS[option]), EVENTS)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_tick_costs_what_it_did(cost_rail, option):
    ring = Adapter(**OPTIONS[option])
    for event in EVENTS[:7]:
        ring.step(event)
    with cost_rail(f"tick-{option}"):
        ring.step(None)
