"""What one slot's step keeps, and which state it starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Guidance, LatentMask, PipelineConfig, StreamPipeline
from harness.engine.advance import Combined
from harness.engine.decoders import AffineDecoder
from harness.engine.execute import Stage
from harness.engine.executors import EagerExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.slot import Slot
from harness.parity.compare import assert_identical, difference
from tests.engine.builders import D, T, condition, fixed, pipeline, request


def one_tick(seen: list[str], **fields: Any) -> Slot:
    """A slot after its first step; `seen` gets the names of the tensors of the stage `combine`."""

    def observe(stage: Stage, _index: int, name: str, _tensor: Tensor) -> None:
        seen.extend([name] if stage is Stage.COMBINE else [])

    p = StreamPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(depth=1, steps=3), observe=observe)
    p.submit(request(**fields))
    p.tick()
    (slot,) = p.slots
    assert slot is not None
    return slot


def test_tensors_are_every_field_that_is_not_none() -> None:
    velocity, average, kept = (fixed(seed) for seed in (1, 2, 3))
    assert list(Combined(velocity, None, None).tensors()) == ["velocity"]
    made = Combined(velocity, average, kept).tensors()
    assert_identical(made, {"velocity": velocity, "average": average, "kept_negative": kept})


@pytest.mark.parametrize("mode", GuidanceMode)
def test_only_the_mode_initialize_keeps_the_negative_velocity(mode: GuidanceMode) -> None:
    seen: list[str] = []
    slot = one_tick(seen, guidance=Guidance(3.0, [condition(9)], mode))
    keeps = ["kept_negative"] if mode is GuidanceMode.INITIALIZE else []
    assert seen == ["velocity", "average", *keeps]
    assert list(slot.state()) == ["x", "average", *keeps]


def test_a_neutral_mask_changes_nothing() -> None:
    neutral, half = (LatentMask(torch.full((T,), value), fixed(3, T, D)) for value in (1.0, 0.5))
    latents = []
    for mask in (None, neutral, half):
        p = pipeline()
        p.submit(request(latent_mask=mask))
        latents += [f.latent for f in p.drain()]
    assert_identical(latents[1], latents[0])
    assert difference(latents[2], latents[0]) is not None
