"""The state that a request enters the ring with."""

from __future__ import annotations

import pytest
import torch

from harness.engine import Condition, LatentMask, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.engine.slot import admit, initial_state
from harness.parity.compare import assert_identical
from harness.parity.proofs import oracle


@pytest.mark.parametrize("denoise", [1.0, 1.5, 2.0])
def test_from_a_denoise_of_1_on_a_request_starts_from_the_very_bits_of_its_noise(denoise: float) -> None:
    condition = Condition(torch.ones(1, 3, 8))
    request = Request([condition], torch.zeros(1, 6, 8), seed=0, denoise=denoise, source=torch.ones(1, 6, 4))
    # Any mixture with the source, even one of a share of 0, would make a positive zero of it.
    drawn = torch.full((1, 6, 4), -0.0)
    assert_identical(initial_state(request, drawn, 1.0), drawn)


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**63 + 7, 2**64 - 1])
def test_every_noise_of_a_request_is_of_its_whole_seed(seed: int) -> None:
    made = Request(
        [Condition(torch.ones(1, 3, 4))],
        torch.zeros(1, 6, 4),
        seed=seed,
        latent_mask=LatentMask(0.5, torch.ones(1, 6, 2)),
        noise_injection=0.5,
    )
    first = admit("a", made, (1.0, 0.0), 0, masked=True)
    assert first.mask_noise is not None
    assert_identical(first.mask_noise, noise(seed, Purpose.MASK, 0, (1, 6, 2)))
    config = PipelineConfig(depth=1, steps=4, solver="sde")
    with StreamPipeline(EagerExecutor(AffineDecoder(4)), config) as pipeline:
        pipeline.submit(made)
        (finished,) = pipeline.drain()
    assert_identical(finished.latent, oracle.run(EagerExecutor(AffineDecoder(4)), made, config, 64))


@pytest.mark.parametrize("shift", [3.0, 0.35, 0.1])
@pytest.mark.parametrize("denoise", [1.0, 1.5])
def test_a_source_enters_no_full_run_wherever_rounding_puts_its_first_time(shift: float, denoise: float) -> None:
    config, latents = PipelineConfig(depth=1, steps=4, shift=shift), []
    for level in (1000.0, -1000.0):
        made = Request(
            [Condition(torch.ones(1, 3, 4))],
            torch.zeros(1, 6, 4),
            seed=1,
            denoise=denoise,
            source=torch.full((1, 6, 2), level),
        )
        with StreamPipeline(EagerExecutor(AffineDecoder(4)), config) as pipeline:
            pipeline.submit(made)
            latents.append(pipeline.drain()[0].latent)
        latents.append(oracle.run(EagerExecutor(AffineDecoder(4)), made, config, 64))
    for latent in latents[1:]:
        assert_identical(latent, latents[0])
