from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine import Condition, Guidance, InvalidInput, PipelineConfig
from harness.engine.geometry import Geometry, fix
from tests.engine.builders import D, E, T, condition, fixed, request


def fixed_by(tokens: int = 5, takes_mask: bool = True, **fields: Any) -> Geometry:
    return fix(request(tokens=tokens), PipelineConfig(**fields), takes_mask=takes_mask)


@pytest.mark.parametrize(("tokens", "length"), [(1, 64), (64, 64), (65, 128)])
def test_the_encoder_length_is_rounded_up(tokens: int, length: int) -> None:
    assert fixed_by(tokens).encoder_length == length


def test_the_longest_negative_counts_too() -> None:
    guided = request(guidance=Guidance(2.0, [condition(2, 70)]))
    assert fix(guided, PipelineConfig(), takes_mask=True).encoder_length == 128


def test_a_configured_length_is_taken_as_it_is() -> None:
    assert fixed_by(encoder_length=9).encoder_length == 9


def test_without_a_mask_the_length_is_the_first_condition_s_own() -> None:
    assert fixed_by(takes_mask=False).encoder_length == 5
    assert fixed_by(takes_mask=False).equal_lengths
    assert fixed_by(takes_mask=False, padding="zeros").encoder_length == 64
    assert not fixed_by(takes_mask=False, padding="zeros").equal_lengths


BAD: dict[str, Any] = {
    "context_latents": request(context_latents=fixed(7, T, 2 * D).double()),
    "context_latents ": request(context_latents=fixed(7, T, 2 * D + 2)),
    "conditions[0].encoder_hidden_states": request(conditions=[Condition(torch.ones(1, 3, E + 1))]),
    "conditions[0].encoder_hidden_states ": request(conditions=[Condition(torch.ones(1, 3, E).half())]),
    "conditions[1].encoder_hidden_states": request(conditions=[condition(), condition(2, 65)]),
    "guidance.negatives[0].encoder_hidden_states": request(guidance=Guidance(2.0, [condition(2, 65)])),
}


@pytest.mark.parametrize("field", BAD)
def test_a_request_that_does_not_fit_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidInput, match="expected") as refused:
        fixed_by().check(BAD[field])
    assert refused.value.field == field.strip()


def test_frames_may_differ_from_the_first_request_s() -> None:
    fixed_by().check(request(frames=T + 1))
