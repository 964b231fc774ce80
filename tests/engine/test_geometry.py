from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine import Condition, Guidance, InvalidInput, PipelineConfig
from harness.engine.errors import NeedsMask, OutsideProfile
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


TOKENS = (
    "3 tokens, expected 5 tokens: the executor takes no mask and would attend the padding "
    "(PipelineConfig(padding='zeros') allows it)"
)
MASKED = condition(2, 5, encoder_mask=torch.ones(1, 5))
WORDS: list[tuple[dict[str, Any], type[InvalidInput], str]] = [
    ({"conditions": [condition(2)]}, NeedsMask, f"conditions[0].encoder_hidden_states: got {TOKENS}"),
    (
        {"guidance": Guidance(2.0, [condition(2, 5), condition(2)])},
        NeedsMask,
        f"guidance.negatives[1].encoder_hidden_states: got {TOKENS}",
    ),
    (
        {"conditions": [condition(1, 5), MASKED]},
        NeedsMask,
        "conditions[1].encoder_mask: got a mask, expected None: the executor takes no mask",
    ),
    (
        {"guidance": Guidance(2.0, [MASKED])},
        NeedsMask,
        "guidance.negatives[0].encoder_mask: got a mask, expected None: the executor takes no mask",
    ),
    (
        {"conditions": [condition(2, 6)]},
        InvalidInput,
        "conditions[0].encoder_hidden_states: got 6 tokens, expected at most encoder_length = 5, fixed for the "
        "pipeline's life",
    ),
    (
        {"conditions": [Condition(torch.ones(1, 5, E + 1))]},
        InvalidInput,
        "conditions[0].encoder_hidden_states: got torch.float32 tensor of shape [1, 5, 9] on cpu, expected "
        "torch.float32 of width 8, as the pipeline's first request has",
    ),
    (
        {"context_latents": torch.ones(1, T, 2 * D + 2)},
        InvalidInput,
        "context_latents: got torch.float32 tensor of shape [1, 6, 10] on cpu, expected "
        "torch.float32 of 8 channels, as the pipeline's first request has",
    ),
]


@pytest.mark.parametrize(("fields", "kind", "words"), WORDS, ids=range(len(WORDS)))
def test_an_executor_without_a_mask_refuses_in_these_words(
    fields: dict[str, Any], kind: type[InvalidInput], words: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        fixed_by(takes_mask=False).check(request(**fields))
    assert (type(refused.value), str(refused.value)) == (kind, words)
    assert isinstance(refused.value, OutsideProfile) is (kind is NeedsMask)


@pytest.mark.parametrize(("takes_mask", "padding"), [(True, "mask"), (True, "zeros"), (False, "zeros")])
def test_unequal_lengths_and_masks_are_taken_unless_padding_would_be_attended_unasked(
    takes_mask: bool, padding: str
) -> None:
    fixed_by(5, takes_mask, padding=padding).check(request(conditions=[condition(2), MASKED]))


def test_a_geometry_is_that_of_the_first_request() -> None:
    first = request(
        conditions=[Condition(fixed(1, 3, E).half()), Condition(fixed(2, 70, E).half())],
        context_latents=fixed(7, T, 2 * D).bfloat16(),
        guidance=Guidance(2.0, [Condition(fixed(1, 9, E).half())]),
    )
    here = torch.device("cpu")
    for takes_mask, configured, length in ((True, None, 128), (False, None, 70), (True, 99, 99), (False, 99, 99)):
        made = fix(first, PipelineConfig(encoder_length=configured), takes_mask=takes_mask)
        assert made == Geometry(length, E, torch.float16, D, torch.bfloat16, here, not takes_mask)


def test_a_request_on_another_device_is_refused_with_both_devices() -> None:
    made = request()
    object.__setattr__(made, "context_latents", made.context_latents.to("meta"))
    with pytest.raises(InvalidInput) as refused:
        fixed_by().check(made)
    assert str(refused.value) == "context_latents: got a tensor on meta, expected cpu, the ring's device"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("which", ["conditions", "guidance.negatives"])
@pytest.mark.parametrize("mode", ["full", "self"])
def test_every_condition_and_every_negative_is_checked_in_every_mode(which: str, place: int, mode: str) -> None:
    rows = {
        "conditions": [condition(n, 5) for n in range(3)],
        "guidance.negatives": [condition(n, 5) for n in range(3)],
    }
    rows[which][place] = condition(9, 65)
    guidance = Guidance(2.0, rows["guidance.negatives"], mode)
    with pytest.raises(InvalidInput, match=r"got 65 tokens, expected at most encoder_length = 64,") as refused:
        fixed_by().check(request(conditions=rows["conditions"], guidance=guidance))
    assert refused.value.field == f"{which}[{place}].encoder_hidden_states"


@pytest.mark.parametrize("mode", ["full", "initialize", "self"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_longest_of_all_conditions_fixes_the_length_wherever_it_stands(place: int, mode: str) -> None:
    rows = [condition(n, 5) for n in range(3)]
    rows[place] = condition(9, 70)
    for fields in ({"conditions": rows}, {"guidance": Guidance(2.0, rows, mode)}):
        for takes_mask, length in ((True, 128), (False, 70)):
            assert fix(request(**fields), PipelineConfig(), takes_mask=takes_mask).encoder_length == length
