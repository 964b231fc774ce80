from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Condition, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import assert_identical

T, D, E = 40, 4, 8


def fixed(seed: int, frames: int, width: int) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def finished(executor: Any, mode: str, **fields: Any) -> dict[str, Tensor]:
    config = PipelineConfig(depth=2, steps=4, **fields)
    with StreamPipeline(executor, config) as pipeline:
        for seed in (1, 2):
            guidance = Guidance(3.0, (Condition(fixed(9, 3, E)),), mode)
            pipeline.submit(Request((Condition(fixed(seed, 5, E)),), fixed(7, T, 2 * D), seed, guidance=guidance))
        return {str(f.id): f.latent for f in pipeline.drain()}


def transposed(**inputs: Tensor) -> Tensor:
    return AffineDecoder()(**inputs).transpose(1, 2).contiguous().transpose(1, 2)


class OneBuffer:
    """Returns a view of one buffer, poisoned before each run, as a captured graph does."""

    takes_mask = True

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.eager = EagerExecutor(AffineDecoder(), max_rows)
        self.buffer = torch.empty(max_rows, T, D)

    def run(self, batch: Batch) -> Tensor:
        self.buffer.fill_(float("nan"))
        self.buffer[: batch.rows] = self.eager.run(batch)
        return self.buffer[: batch.rows]

    def close(self) -> None:
        self.eager.close()


@pytest.mark.parametrize("mode", ["full", "initialize", "self"])
def test_bits_do_not_depend_on_the_layout_a_decoder_returns(mode: str) -> None:
    assert_identical(
        finished(EagerExecutor(transposed), mode), finished(EagerExecutor(AffineDecoder()), mode), "latents"
    )


@pytest.mark.parametrize("max_rows", [2, 3, 8])
@pytest.mark.parametrize("mode", ["full", "initialize"])
def test_a_buffer_that_every_run_overwrites_gives_the_same_bits(mode: str, max_rows: int) -> None:
    expected = finished(EagerExecutor(AffineDecoder(), 8), mode)
    assert_identical(finished(OneBuffer(max_rows), mode), expected, "latents")
