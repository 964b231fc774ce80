"""Whole requests against a loop made of diffusers alone: its transformer, scheduler and guidance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from torch import Tensor

from harness.engine import Condition, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AceStepDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.platform import one_thread

STEPS, SCALE, MOMENTUM, THRESHOLD = 8, 3.0, -0.75, 2.5
BOUND = 2e-5
"""Of the latent's rms. Padding with a mask, batched rows and the scheduler's own rounding moved it by 2.8e-7 to 7.6e-7;
the weakest defect below moves it by 0.39."""


@pytest.fixture(autouse=True, name="decoder")
def _decoder() -> Iterator[AceStepDecoder]:
    with one_thread():
        yield AceStepDecoder.preset("tiny", 0)


def states(seed: int, tokens: int) -> Tensor:
    return torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(seed))


def context(frames: int) -> Tensor:
    return torch.randn(1, frames, 16, generator=torch.Generator().manual_seed(frames))


def per_channel(v: Tensor) -> Tensor:
    """Channels as the batch: diffusers takes its norms over everything but the batch, the engine over frames."""
    return v[0].T


def by_diffusers(
    decoder: AceStepDecoder, seed: int, frames: int, positive: Tensor, negative: Tensor | None, scale: float = SCALE
) -> Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 0.0, STEPS + 1)[:-1].numpy())
    x = torch.randn(1, 8, frames, generator=torch.Generator().manual_seed(seed)).transpose(1, 2)
    average = MomentumBuffer(MOMENTUM)

    def velocity(text: Tensor, t: Tensor) -> Tensor:
        return decoder.transformer(x, t, t, text, context(frames), return_dict=False)[0]

    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        v = velocity(positive, sigma.reshape(1))
        if negative is not None:
            pair = per_channel(v), per_channel(velocity(negative, sigma.reshape(1)))
            guided = normalized_guidance(*pair, scale - 1.0, average, 0.0, THRESHOLD, use_original_formulation=True)
            v = guided.T[None]
        x = scheduler.step(v, timestep, x, return_dict=False)[0]
    return x


def by_the_engine(decoder: AceStepDecoder, requests: list[Request]) -> list[Tensor]:
    with StreamPipeline(EagerExecutor(decoder), PipelineConfig(depth=3, steps=STEPS)) as pipeline:
        for request in requests:
            pipeline.submit(request)
        return [finished.latent for finished in pipeline.drain()]


def request(seed: int, frames: int, positive: Tensor, negative: Tensor | None) -> Request:
    guidance = None if negative is None else Guidance(SCALE, [Condition(negative)])
    return Request([Condition(positive)], context(frames), seed, guidance=guidance)


def distance(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.square().mean().sqrt())


@pytest.mark.parametrize("frames", [16, 21])
def test_plain_and_guided_requests_end_where_diffusers_loop_ends(decoder: AceStepDecoder, frames: int) -> None:
    texts = [(states(1, 12), None), (states(2, 5), states(3, 3)), (states(4, 9), states(5, 11))]
    made = by_the_engine(decoder, [request(seed, frames, *pair) for seed, pair in enumerate(texts)])
    with torch.no_grad():
        expected = [by_diffusers(decoder, seed, frames, *pair) for seed, pair in enumerate(texts)]
    assert [distance(a, b) < BOUND for a, b in zip(made, expected, strict=True)] == [True] * 3


@pytest.mark.parametrize("defect", ["unguided", "swapped", "scale not less one", "another seed"])
def test_the_bound_tells_a_defect_from_rounding(decoder: AceStepDecoder, defect: str) -> None:
    positive, negative = states(2, 5), states(3, 3)
    (made,) = by_the_engine(decoder, [request(7, 16, positive, negative)])
    with torch.no_grad():
        wrong = {
            "unguided": lambda: by_diffusers(decoder, 7, 16, positive, None),
            "swapped": lambda: by_diffusers(decoder, 7, 16, negative, positive),
            "scale not less one": lambda: by_diffusers(decoder, 7, 16, positive, negative, SCALE + 1.0),
            "another seed": lambda: by_diffusers(decoder, 8, 16, positive, negative),
        }[defect]()
    assert distance(made, wrong) > 100 * BOUND
