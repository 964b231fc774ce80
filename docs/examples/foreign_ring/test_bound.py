"""The proof of a decoder that rounds a row differently in a batch of another size."""

import torch
from lanes import LANES, WIDTH, Net
from test_lanes import EVENTS, Adapter

from harness.parity.proofs.bounds import measured


def measure():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(96, WIDTH, generator=draw), torch.rand(96, WIDTH, generator=draw), torch.ones(96)
    return measured(Net(rough=True), rows, most=2 * LANES)


def test_only_the_decoder_differs_and_within_twice_what_was_measured(blessed, lockstep):
    blessed("decode-bound", lambda: measure().tree())
    plain, fast = Adapter(rough=True), Adapter(rough=True, fused=True)
    lockstep(plain, fast, EVENTS, bounds={"decode": measure().free.times(2)})
