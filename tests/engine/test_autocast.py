"""A pipeline makes the same bits whatever autocast, default dtype or default device its caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.decoders.base import Decoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.engine.request import Condition
from harness.engine.wavelet import reconstruction_error
from harness.parity.compare import assert_identical


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CALLERS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": float64,
    "device": lambda: torch.device("meta"),
}


def fixed(seed: int, frames: int, width: int) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def latents(decoder: Decoder, channels: int, width: int) -> dict[object, Tensor]:
    p = StreamPipeline(EagerExecutor(decoder), PipelineConfig(depth=2, steps=2, encoder_length=8, dcw=DCW()))
    one, other = (Condition(fixed(seed, 5, width)) for seed in (1, 2))
    for seed in range(2):
        p.submit(Request([one], fixed(3, 8, 2 * channels), seed, guidance=Guidance(2.0, [other]), id=seed))
    return {each.id: each.latent for each in p.drain()}


@pytest.mark.parametrize("caller", CALLERS)
def test_a_tick_inside_a_caller_s_setting_makes_the_bits_that_it_makes_without(caller: str) -> None:
    tiny = AceStepDecoder.preset("tiny", seed=0)
    for decoder, channels, width in ((AffineDecoder(11), 5, 11), (tiny, tiny.channels, tiny.encoder_dim)):
        # Widths of no other test: what the affine decoder caches is made inside the setting, and serves outside it.
        with CALLERS[caller]():
            inside = latents(decoder, channels, width)
        assert_identical(inside, latents(decoder, channels, width), caller)


def test_a_wavelet_is_judged_as_it_is_without_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reconstruction_error.__wrapped__("haar")
    assert inside == reconstruction_error.__wrapped__("haar") < 1e-6
