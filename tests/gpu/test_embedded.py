"""Conditions that recorded runs embed ahead, on a real GPU: their bits, and what a new one costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from harness.engine.decoders.accelerated import AcceleratedDecoder
from harness.engine.decoders.decoder_switches import PLAIN
from harness.engine.executors import Batch, CudaGraphExecutor
from harness.engine.executors.embedded import embedded, embedding
from harness.parity.compare import assert_identical
from harness.rails.bench.steady import launched
from tests.gpu.test_graphs import CUDA, SHAPE, made, tiny, velocity
from tests.gpu.waits import waiting_is_an_error


def keeping(dtype: torch.dtype = torch.bfloat16) -> AcceleratedDecoder:
    return AcceleratedDecoder(tiny(dtype), PLAIN.turned_on("kept_condition"))


def again(batch: Batch, **changed: Tensor) -> Batch:
    """The batch with hidden states of its own, as in the next tick."""
    return replace(batch, hidden_states=batch.hidden_states * 0.5, **changed)


def unrecorded(decoder: AcceleratedDecoder, batch: Batch) -> Tensor:
    with torch.no_grad():
        return decoder(**embedded(batch, embedding(decoder)).tensors()).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_an_embedding_that_is_replayed_has_the_bits_of_the_decoder_s_own(rows: int, dtype: torch.dtype) -> None:
    decoder = keeping(dtype)
    executor = made(decoder, SHAPE, row_buckets=(rows,))
    batch = SHAPE.example(rows, CUDA)
    for factor in (1.0, -3.0, 0.25):
        given = again(batch, encoder_hidden_states=batch.encoder_hidden_states * factor)
        assert_identical(velocity(executor, SHAPE, rows, given), unrecorded(decoder, given), f"times {factor}")


def launches(executor: CudaGraphExecutor, batch: Batch) -> int:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
        with waiting_is_an_error():
            executor.run(batch)
        torch.cuda.synchronize()
    return launched(profiled).total()


def test_a_new_condition_costs_a_copy_and_a_replay() -> None:
    executor = made(keeping(), SHAPE, pin_rows=4)
    batch = SHAPE.example(4, CUDA)
    executor.run(batch)
    steady = launches(executor, again(batch))
    assert launches(executor, again(batch, encoder_hidden_states=batch.encoder_hidden_states + 1)) == steady + 2


@pytest.mark.parametrize("moved", [False, True])
def test_after_an_update_conditions_are_those_of_the_new_weights(moved: bool) -> None:
    decoder = keeping()
    executor = made(decoder, SHAPE, pin_rows=2)
    batch = SHAPE.example(2, CUDA)
    before = velocity(executor, SHAPE, 2, batch)
    weight = decoder.transformer.condition_embedder.weight

    def change() -> None:
        if moved:
            weight.data = weight.data * 2.0
        else:
            weight.data.mul_(2.0)

    executor.update(change)
    after = velocity(executor, SHAPE, 2, batch)
    assert not torch.equal(before, after)
    assert_identical(after, unrecorded(decoder, batch), "moved" if moved else "in place")
