"""Small records and pipelines that the engine's tests share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from harness.engine import Condition, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise

T, D, E = 6, 4, 8


def fixed(seed: int, frames: int = T, width: int = D) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def condition(seed: int = 1, tokens: int = 3, **fields: Any) -> Condition:
    return Condition(fixed(seed, tokens, E), **fields)


def request(seed: int = 1, frames: int = T, tokens: int = 5, **fields: Any) -> Request:
    return Request(
        **{
            "conditions": [condition(seed, tokens)],
            "context_latents": fixed(7, frames, 2 * D),
            "seed": seed,
            "id": f"r{seed}",
            **fields,
        }
    )


def pipeline(depth: int = 2, steps: int = 3, executor: Any = None, **fields: Any) -> StreamPipeline:
    return StreamPipeline(
        executor or EagerExecutor(AffineDecoder()), PipelineConfig(depth=depth, steps=steps, **fields)
    )
