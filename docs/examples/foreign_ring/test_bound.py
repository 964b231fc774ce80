"""The proof of a decoder that rounds a row differently in a batch of another size."""

import torch
from lanes import WIDTH, Net
from test_lanes import EVENTS, Adapter

from harness.parity.proofs.bounds import measured


def decoder_rows():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(6, WIDTH, generator=draw), torch.rand(6, WIDTH, generator=draw), torch.ones(6)


def test_only_the_decoder_differs_and_within_what_was_measured(blessed, lockstep):
    bounds = measured(Net(rough=True), decoder_rows())
    blessed("decode-bound", lambda: measured(Net(rough=True), decoder_rows()).tree())
    plain, fast = Adapter(rough=True), Adapter(rough=True, fused=True)
    lockstep(plain, fast, EVENTS, bounds={"decode": bounds.free})
