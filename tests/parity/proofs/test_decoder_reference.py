"""The decoder in float64: the model of diffusers, without its roundings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import AceStepDecoder
from harness.engine.executors import Shape
from harness.parity.proofs.decoder_reference import ReferenceDecoder, euler

CPU = torch.device("cpu")


def given(rows: int = 2, frames: int = 27, tokens: int = 7) -> dict[str, Tensor]:
    return Shape(frames, tokens, 8, 32).example(rows, CPU).tensors()


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("rows", "frames", "tokens"), [(2, 27, 7), (1, 1, 1), (4, 64, 9)])
def test_it_is_the_model_of_diffusers(rows: int, frames: int, tokens: int) -> None:
    decoder, inputs = AceStepDecoder.preset("tiny"), given(rows, frames, tokens)
    expected = ReferenceDecoder(decoder)(**inputs)
    assert expected.dtype == torch.float64 and expected.shape == inputs["hidden_states"].shape
    # The sinusoids of diffusers are float32, of angles up to 1000.
    assert 1e-8 < error(decoder(**inputs), expected) < 5e-6
    assert error(decoder.double()(**inputs), expected) < 5e-6


def test_its_weights_are_those_of_the_decoder_s_dtype() -> None:
    decoder, inputs = AceStepDecoder.preset("tiny"), given()
    wide = ReferenceDecoder(decoder)(**inputs)
    rounded = ReferenceDecoder(decoder.to(torch.bfloat16))
    assert error(rounded(**inputs), wide) > 1e-3
    assert error(decoder.to(torch.float32)(**inputs), rounded(**inputs)) < 5e-6


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_every_input_moves_it(name: str) -> None:
    reference, inputs = ReferenceDecoder(AceStepDecoder.preset("tiny")), given()
    assert error(reference(**inputs | {name: inputs[name] * 0.5}), reference(**inputs)) > 0.01


def test_a_loop_of_steps_moves_along_the_velocity() -> None:
    inputs = given()
    latents = list(
        euler(lambda **given: given["hidden_states"] * given["timestep"][:, None, None], inputs, [1, 0.5, 0])
    )
    assert torch.allclose(latents[0], inputs["hidden_states"].double() * 0.5)
    assert torch.allclose(latents[1], inputs["hidden_states"].double() * 0.5 * 0.75)
