"""What a decoder computes ahead from its encoder states, for executors of recorded runs; see `Decoder`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.engine.errors import RecordingFailed
from harness.engine.executors.base import Batch
from harness.engine.executors.recorded import Pool, Recorder, Recording

Embed: TypeAlias = Callable[[Tensor], Tensor]
"""Function of encoder states `[N, L, E]` that returns what the decoder takes in their place, `[N, L, W]`."""


def embedding(decoder: Any) -> Embed | None:
    """The method `condition` of a decoder that keeps conditions, whatever the caller's modes are; else None."""
    if not getattr(decoder, "keeps_condition", False):
        return None

    def embed(states: Tensor) -> Tensor:
        # As a decoder's call itself: what the caller's context is must change no bit.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            made: Tensor = decoder.condition(states)
        return made

    return embed


def embedded(given: Batch, embed: Embed | None) -> Batch:
    """The batch that the decoder is called with: the same, with the encoder states embedded where they are."""
    return given if embed is None else replace(given, encoder_hidden_states=embed(given.encoder_hidden_states))


def record_embedding(
    recorder: Recorder, pool: Pool, given: Batch, inputs: Batch, embed: Embed | None
) -> Recording | None:
    """Record how the encoder states of `inputs` are made from those of `given`; None where they are the same.

    Raises:
        RecordingFailed: a replay makes other bits than `embed` itself.
    """
    if embed is None:
        return None
    target = inputs.encoder_hidden_states
    with recorder.refuse_waits():
        expected = embed(given.encoder_hidden_states)

    def call() -> None:
        target.copy_(embed(given.encoder_hidden_states))

    recording = recorder.record(call, pool)
    target.fill_(torch.nan)
    recording.replay()
    if not torch.equal(target.view(torch.uint8), expected.contiguous().view(torch.uint8)):
        recording.reset()
        raise RecordingFailed("a replay embeds encoder states in other bits than the decoder itself")
    return recording
