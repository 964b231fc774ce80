"""Dangerous decoders on a GPU: a result is filled late by another stream, and the host waits for nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from harness.parity.compare import identical
from harness.parity.danger import Deferred, PinnedRows, Poisoned, SharedOutput
from harness.parity.proofs import generic
from tests.parity.test_danger import TICKS, Keeps, ReadsEarly, Ring, decoder


def on_gpu(ring: Ring) -> Ring:
    ring.x, ring.last = ring.x.cuda(), ring.last.cuda()
    return ring


def test_a_deferred_result_is_nan_for_a_reader_that_does_not_wait_and_whole_for_one_that_does() -> None:
    deferred, x = Deferred(decoder), torch.ones(1000, device="cuda")
    late = deferred(x)
    early = late.clone()
    deferred.wait()
    whole = late.clone()
    assert bool(torch.isnan(early).all())
    assert identical(whole, decoder(x))


def test_the_host_does_not_wait_for_a_deferred_result() -> None:
    deferred, x = Deferred(decoder), torch.ones(1000, device="cuda")
    deferred(x)
    torch.cuda.synchronize()
    started = time.perf_counter()
    deferred._on_gpu([(torch.empty_like(x), x)])
    deferred.wait()
    told = time.perf_counter() - started
    torch.cuda.synchronize()
    assert told < 0.5 * (time.perf_counter() - started)


@pytest.mark.parametrize("dangerous", [SharedOutput, Poisoned, Deferred, lambda call: PinnedRows(call, rows=8)])
def test_a_right_ring_is_the_same_on_a_dangerous_decoder(dangerous: Any) -> None:
    assert generic.run(on_gpu(Ring(decoder)), on_gpu(Ring(dangerous(decoder))), TICKS).tensors == 4


@pytest.mark.parametrize(("dangerous", "ring"), [(SharedOutput, Keeps), (Poisoned, Keeps), (Deferred, ReadsEarly)])
def test_a_wrong_ring_is_not(dangerous: Any, ring: Any) -> None:
    with pytest.raises(generic.EnginesParted):
        generic.run(on_gpu(ring(decoder)), on_gpu(ring(dangerous(decoder))), TICKS)
