from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.engine import (
    DCW,
    Condition,
    Finished,
    Guidance,
    GuidanceMode,
    InvalidInput,
    LatentMask,
    PipelineConfig,
    Request,
    StreamPipeline,
    X0Target,
    checks,
)
from harness.engine.curve import Curve, curve
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.request import normal, required
from harness.rails.costs.counters import HostReads
from tests.engine.builders import D, E, T, condition, request


def latent(frames: int = T) -> Tensor:
    return torch.ones(1, frames, D)


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("encoder_hidden_states", lambda: Condition(torch.ones(3, E))),
    ("encoder_hidden_states", lambda: Condition(torch.ones(1, 3, E, dtype=torch.int64))),
    ("encoder_hidden_states", lambda: Condition(torch.full((1, 3, E), float("nan")))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.ones(1, 4))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.full((1, 3), 0.5))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.zeros(1, 3))),
    ("temporal_weight", lambda: condition(temporal_weight=float("inf"))),
    ("step_range", lambda: condition(step_range=(0.5, 0.2))),
    ("step_range", lambda: condition(step_range=(0.0, 1.5))),
    ("step_range", lambda: condition(step_range=(0.1,))),
    ("step_range", lambda: condition(step_range=())),
    ("guidance.mode", lambda: Guidance(2.0, mode="half")),
    ("guidance.scale", lambda: Guidance(True)),
    ("guidance.norm_threshold", lambda: Guidance(2.0, norm_threshold=0.0)),
    ("guidance.negatives", lambda: request(guidance=Guidance(2.0))),
    ("guidance.negatives", lambda: request(guidance=Guidance(2.0, mode="initialize"))),
    ("guidance.scale", lambda: request(guidance=Guidance(torch.ones(T + 1), mode="self"))),
    ("x0_target.strength", lambda: X0Target(latent(), strength=0.5, curve=0.5)),
    ("x0_target.gate", lambda: X0Target(latent(), curve=0.5, gate=1.5)),
    ("x0_target.latent", lambda: request(x0_target=X0Target(latent(T + 1)))),
    ("latent_mask.mask", lambda: LatentMask(torch.ones(T + 1), latent())),
    ("latent_mask.mask", lambda: LatentMask(2.0, latent())),
    ("latent_mask.strength_at", lambda: LatentMask(1.0, latent(), 0.5)),
    ("conditions", lambda: request(conditions=[])),
    ("conditions", lambda: request(conditions=condition())),
    ("conditions[1]", lambda: request(conditions=[condition(), Condition(torch.ones(1, 3, E + 1))])),
    ("context_latents", lambda: request(context_latents=torch.ones(1, T, 5))),
    ("context_latents", lambda: request(context_latents=torch.ones(T, 2 * D))),
    ("seed", lambda: replace(request(), seed=-1)),
    ("seed", lambda: replace(request(), seed=2**64)),
    ("denoise", lambda: request(denoise=-0.1)),
    ("denoise", lambda: request(denoise=0.5)),
    ("denoise", lambda: request(denoise=float("nan"))),
    ("sde_curve", lambda: request(sde_curve=0.5)),
    ("initial_noise", lambda: request(initial_noise=0.5)),
    ("source", lambda: request(source=latent(T - 1))),
    ("source", lambda: request(source=torch.ones(1, T, D + 1))),
    ("velocity_scale", lambda: request(velocity_scale=torch.ones(T - 1))),
    ("noise_injection", lambda: request(noise_injection=torch.full((T,), float("nan")))),
    ("temporal_weight", lambda: condition(temporal_weight=-0.5)),
    ("step_range", lambda: condition(step_range=(False, True))),
    ("step_range", lambda: condition(step_range=(0.5, 0.5))),
    ("guidance.momentum", lambda: Guidance(2.0, momentum=float("nan"))),
    ("guidance.rescale", lambda: Guidance(2.0, rescale=torch.ones(2, T))),
    ("guidance.eta", lambda: Guidance(2.0, eta=True)),
    ("guidance.negatives[0]", lambda: Guidance(2.0, [torch.ones(1, 3, E)])),
    ("guidance.negatives[0]", lambda: request(guidance=Guidance(2.0, [Condition(torch.ones(1, 3, E + 1))]))),
    ("x0_target.curve", lambda: X0Target(latent(), curve=torch.ones(T + 1))),
    ("x0_target", lambda: request(x0_target=latent())),
    ("latent_mask.original", lambda: request(latent_mask=LatentMask(1.0, latent(T + 1)))),
    ("latent_mask.mask", lambda: LatentMask(-0.5, latent())),
    ("context_latents", lambda: request(context_latents=torch.full((1, T, 2 * D), float("inf")))),
    ("context_latents", lambda: request(context_latents=torch.ones(1, T, 2 * D, dtype=torch.int64))),
    ("conditions[1]", lambda: request(conditions=[condition(), Condition(torch.ones(1, 3, E).half())])),
    ("source", lambda: request(source=torch.full((1, T, D), float("nan")))),
    ("seed", lambda: replace(request(), seed=True)),
    ("seed", lambda: replace(request(), seed=1.0)),
    ("id", lambda: request(id=True)),
    ("denoise", lambda: request(denoise=True)),
    ("velocity_scale", lambda: request(velocity_scale=True)),
    ("velocity_scale", lambda: request(velocity_scale=torch.ones(1, T, 2))),
    ("temporal_weight", lambda: request(conditions=[condition(temporal_weight=torch.ones(T + 1))])),
]


@pytest.mark.parametrize(("field", "make"), BAD, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BAD)])
def test_bad_input_is_refused_by_name(field: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match="expected") as refused:
        make()
    assert field in refused.value.field
    assert str(refused.value).startswith(f"{refused.value.field}: got ")


def test_a_refusal_shows_the_shape_it_got_and_the_one_it_wanted() -> None:
    with pytest.raises(InvalidInput, match=r"shape \[1, 5, 4\] on cpu, expected .* shape \[1, 6, 4\]"):
        request(source=latent(T - 1))


def test_a_tensor_on_another_device_is_refused() -> None:
    with pytest.raises(InvalidInput, match="source: got a tensor on meta, expected a tensor on cpu"):
        checks.same_device("source", torch.ones(1, device="meta"), torch.device("cpu"))


@pytest.mark.parametrize("shape", [(), (1,), (T,), (1, T), (1, T, 1)])
def test_a_curve_is_taken_in_every_form(shape: tuple[int, ...]) -> None:
    values = request(velocity_scale=torch.full(shape, 0.5)).velocity_scale.values
    assert values.dtype == torch.float32
    assert values.ndim == 3
    assert values.unique().tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_masks_are_taken_in_bool_integer_and_float(dtype: torch.dtype) -> None:
    assert condition(encoder_mask=torch.tensor([[1, 0, 1]]).to(dtype)).encoder_mask.tolist() == [[True, False, True]]
    mask = LatentMask(torch.tensor([1, 0, 1, 0, 1, 0]).to(dtype), latent()).mask
    assert mask.values.flatten().tolist() == [1, 0, 1, 0, 1, 0]


def test_curves_masks_and_weights_are_copied() -> None:
    curve, mask, weight = torch.ones(T), torch.ones(1, 3), torch.ones(T)
    held = condition(encoder_mask=mask, temporal_weight=weight)
    made = request(
        conditions=[held],
        velocity_scale=curve,
        guidance=Guidance(curve, mode="self"),
        x0_target=X0Target(latent(), strength=curve),
        latent_mask=LatentMask(curve, latent()),
    )
    for given in (curve, mask, weight):
        given.fill_(0.0)
    kept = [made.velocity_scale, made.guidance.scale, made.x0_target.strength, made.latent_mask.mask]
    assert all(c.values.unique().tolist() == [1.0] for c in [*kept, held.temporal_weight])
    assert held.encoder_mask.all()


def test_states_context_and_source_are_not_copied() -> None:
    states, context, source = torch.ones(1, 3, E), torch.ones(1, T, 2 * D), latent()
    made = request(conditions=[Condition(states)], context_latents=context, source=source)
    assert made.conditions[0].encoder_hidden_states is states
    assert made.context_latents is context
    assert made.source is source


FULL = {
    "source": latent(),
    "guidance": Guidance(2.0, [condition(2)]),
    "velocity_scale": torch.linspace(0.5, 1, T),
    "x0_target": X0Target(latent(), strength=torch.linspace(0, 1, T)),
    "latent_mask": LatentMask(torch.arange(T) % 2, latent()),
}


def copied(made: Request) -> Request:
    return replace(copy.copy(made), seed=2)


def renewed(made: Request) -> Request:
    return replace(made, seed=2)


def made_anew(made: Request) -> Request:
    return Request(**{**{field.name: getattr(made, field.name) for field in fields(Request)}, "seed": 2})


@pytest.mark.parametrize("again", [renewed, copied, made_anew])
def test_a_request_of_tensors_that_were_checked_reads_none(again: Callable[[Request], Request]) -> None:
    made = request(**FULL)
    with HostReads() as reads:
        assert again(made).seed == 2
    assert reads.seen == {}


TENSORS: dict[str, Callable[[Request], Tensor]] = {
    "context_latents": lambda made: made.context_latents,
    "source": lambda made: made.source,
    "x0_target.latent": lambda made: made.x0_target.latent,
    "latent_mask.original": lambda made: made.latent_mask.original,
    "conditions[0].encoder_hidden_states": lambda made: made.conditions[0].encoder_hidden_states,
    "guidance.negatives[0].encoder_hidden_states": lambda made: made.negatives[0].encoder_hidden_states,
}


@pytest.mark.parametrize(("field", "of"), TENSORS.items(), ids=TENSORS)
def test_a_request_of_a_tensor_that_was_overwritten_since_is_refused(
    field: str, of: Callable[[Request], Tensor]
) -> None:
    made = copy.deepcopy(request(**FULL))
    renewed(made)
    of(made)[0, 1, 0] = float("nan")
    for again in (renewed, copied, made_anew):
        with pytest.raises(InvalidInput, match=r"nan at \(0, 1, 0\)") as refused:
            again(made)
        assert refused.value.field == field


def test_a_deep_copy_is_read_anew() -> None:
    made = request(**FULL)
    with HostReads() as reads:
        renewed(copy.deepcopy(made))
    assert sum(reads.seen.values()) == len(TENSORS)


def test_a_condition_of_an_inference_tensor_is_read_where_it_is_made_and_no_more() -> None:
    with torch.inference_mode():
        prompt = condition()
    with HostReads() as reads:
        made = Request([prompt], torch.ones(1, T, 2 * D), seed=1)
    assert sum(reads.seen.values()) == 1  # the context
    with HostReads() as reads:
        renewed(made)
    assert reads.seen == {}


@pytest.mark.parametrize(("step", "expected"), [(0, False), (2, True), (5, True), (6, False)])
def test_a_condition_is_active_from_its_start_up_to_its_end(step: int, expected: bool) -> None:
    assert condition(step_range=(0.25, 0.75)).is_active(step, 8) is expected


RECORDS = [
    (condition(), "encoder_mask"),
    (Guidance(2.0), "scale"),
    (X0Target(latent()), "gate"),
    (LatentMask(1.0, latent()), "mask"),
    (request(), "seed"),
]


@pytest.mark.parametrize(("record", "field"), RECORDS, ids=[type(r).__name__ for r, _ in RECORDS])
def test_records_are_frozen(record: Any, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, None)


def test_a_list_of_conditions_or_a_step_range_may_be_changed_after_it_was_given() -> None:
    prompts, negatives, span = [condition(1), condition(2)], [condition(3), condition(4)], [0, 0.5]
    ranged = condition(5, step_range=span)
    made = request(conditions=prompts, guidance=Guidance(2.0, negatives))
    wanted = tuple(prompts), tuple(negatives)
    prompts.reverse()
    negatives.clear()
    span[1] = 1
    assert (made.conditions, made.negatives, made.guidance.negatives) == (*wanted, wanted[1])
    assert ranged.step_range == (0.0, 0.5)
    assert [type(bound) for bound in ranged.step_range] == [float, float]
    assert request(conditions=(condition(1),)).negatives == ()


def test_a_source_goes_before_the_original_of_a_mask_and_without_both_there_is_none() -> None:
    source, mask = latent(), LatentMask(0.5, latent())
    assert request().stand_in_source is None
    assert request(source=source).stand_in_source is source
    assert request(latent_mask=mask).stand_in_source is mask.original
    assert request(source=source, latent_mask=mask).stand_in_source is source


def test_a_request_says_its_sizes() -> None:
    made = request(context_latents=torch.ones(1, 9, 14, dtype=torch.float64))
    assert (made.frames, made.channels, made.device) == (9, 7, torch.device("cpu"))
    assert condition(tokens=4).length == 4


def test_negatives_of_every_mode_are_the_request_s_own_are_checked_and_count_for_the_length() -> None:
    short, long, wide = (Condition(torch.ones(1, tokens, width)) for tokens, width in ((5, 8), (70, 8), (5, 9)))
    for mode in GuidanceMode:
        made = Request([short], torch.zeros(1, 4, 8), seed=1, guidance=Guidance(2.0, [long], mode))
        assert made.negatives == (long,)
        with StreamPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(depth=1, steps=2)) as pipeline:
            pipeline.submit(made)
            assert pipeline.encoder_length == 128
        with pytest.raises(InvalidInput, match=r"guidance.negatives\[0\].*of width 8, as conditions\[0\] has"):
            Request([short], torch.zeros(1, 4, 8), seed=1, guidance=Guidance(2.0, [wide], mode))


NOT_BINARY = [-1.0, 0.5, 1.5, 1.0 + 2**-23, 2.0, 1e-45, -1e-45, float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("value", NOT_BINARY)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_mask_with_one_value_that_is_neither_0_nor_1_is_refused(value: float, place: int) -> None:
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    mask[0, place] = value
    for given in (mask, mask.double()):
        with pytest.raises(InvalidInput, match=r"got values other than 0 and 1, expected .* of shape \[1, 3\]$"):
            condition(encoder_mask=given)


def test_a_mask_of_another_kind_is_refused_and_a_zero_with_a_sign_is_a_zero() -> None:
    for given in (torch.tensor([[-1, 0, 1]]), torch.tensor([[255, 0, 1]], dtype=torch.uint8)):
        with pytest.raises(InvalidInput, match="values other than 0 and 1"):
            condition(encoder_mask=given)
    wrong: list[Any] = [torch.ones(1, 3, dtype=torch.complex64), torch.ones(3), torch.ones(1, 3, 1), [[1, 1, 1]], 1]
    for given in wrong:
        with pytest.raises(InvalidInput, match=r"expected a mask of 0 and 1 of shape \[1, 3\]$"):
            condition(encoder_mask=given)
    signed = condition(encoder_mask=torch.tensor([[-0.0, 0.0, 1.0]])).encoder_mask
    assert (signed.dtype, signed.tolist()) == (torch.bool, [[False, False, True]])


def test_a_step_range_has_two_ends() -> None:
    wrong: list[Any] = [(0.0, 0.5, 1.0), (0.0, 0.5, 0.25), [], [0.5], torch.tensor([0.0, 1.0]), {0.0, 1.0}, "01", 0.5]
    for given in wrong:
        with pytest.raises(InvalidInput, match=r"expected \(start, end\) with 0 <= start < end <= 1$") as refused:
            condition(step_range=given)
        assert refused.value.field == "condition.step_range"


@pytest.mark.parametrize("strength", [0, 0.0, -0.0, torch.zeros(T), torch.zeros(1, T, 1), -torch.zeros(T)], ids=str)
def test_a_curve_may_stand_beside_a_strength_of_0_in_any_form(strength: Any) -> None:
    made = X0Target(latent(), strength=strength, curve=torch.zeros(T), gate=1)
    assert made.strength.is_everywhere(0.0)
    assert made.curve.is_everywhere(0.0)


@pytest.mark.parametrize("place", range(T))
def test_a_strength_that_is_not_0_at_one_frame_excludes_a_curve(place: int) -> None:
    strength = torch.zeros(T)
    strength[place] = -1e-45
    with pytest.raises(InvalidInput, match="got a strength and a curve"):
        X0Target(latent(), strength=strength, curve=0.0)


def test_conditions_are_a_sequence_and_nothing_else_that_can_be_gone_through() -> None:
    one, two = condition(1), condition(2)
    wrong: list[Any] = [iter([one, two]), {one, two}, {one: two}, (each for each in (one, two)), torch.ones(1, 3, E)]
    for given in wrong:
        for make in (lambda given=given: request(conditions=given), lambda given=given: Guidance(2.0, given)):
            with pytest.raises(InvalidInput, match="expected a sequence of Conditions$"):
                make()


def test_choices_become_members_and_whole_numbers_floats() -> None:
    made = Guidance(2, mode="self", norm_threshold=3, eta=1)
    kept = request(denoise=1, guidance=made, x0_target=X0Target(latent(), curve=1, gate=0))
    assert made.mode is kept.guidance.mode is GuidanceMode.SELF
    numbers = [made.norm_threshold, made.eta, kept.denoise, kept.x0_target.gate]
    numbers += condition(step_range=(0, 1)).step_range
    numbers += [LatentMask(1, latent(), lambda step, total: step).strength_in_force(1, 3)]
    numbers += [LatentMask(1, latent()).strength_in_force(1, 3)]
    assert [(type(each), each) for each in numbers] == [(float, n) for n in (3, 1, 1, 0, 0, 1, 1, 1)]
    assert type(request(denoise=np.float64(1.5)).denoise) is float
    assert all(type(each) is Curve for each in (made.scale, made.momentum, kept.x0_target.curve))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("which", ["conditions", "guidance.negatives"])
@pytest.mark.parametrize("mode", ["full", "self"])
def test_every_condition_and_every_negative_is_checked_by_its_place(which: str, place: int, mode: str) -> None:
    bad = {
        "temporal_weight": condition(9, temporal_weight=torch.ones(T + 1)),
        "encoder_hidden_states": Condition(torch.ones(1, 3, E + 1)),
    }
    for field, each in bad.items():
        rows = {
            "conditions": [condition(n) for n in (1, 2, 3)],
            "guidance.negatives": [condition(n) for n in (4, 5, 6)],
        }
        rows[which][place] = each
        if (which, place, field) == ("conditions", 0, "encoder_hidden_states"):
            wanted = "conditions[1].encoder_hidden_states"  # the others have another width than the first
        else:
            wanted = f"{which}[{place}].{field}"
        with pytest.raises(InvalidInput) as refused:
            request(conditions=rows["conditions"], guidance=Guidance(2.0, rows["guidance.negatives"], mode))
        assert refused.value.field == wanted


def test_records_of_tensors_are_compared_and_hashed_by_identity() -> None:
    """So they can be kept in sets and as keys, and no comparison reads a tensor."""
    makes: list[Callable[[], Any]] = [
        condition,
        request,
        lambda: Guidance(2.0, mode="self"),
        lambda: X0Target(latent()),
        lambda: LatentMask(1.0, latent()),
        DCW,
        lambda: curve("f", 1.0),
        lambda: Finished("a", latent(), 1, 1, 1.0, 1),
    ]
    for make in makes:
        one, other = make(), make()
        assert one == one  # noqa: PLR0124 the law itself
        assert one != other
        assert len({one, other, one}) == 2


def test_what_is_read_of_a_record_that_was_not_checked_is_an_error() -> None:
    made = curve("f", 1.0)
    assert normal(made) is required(made) is made
    assert normal(None) is None
    for read, value, words in (
        (normal, 1.0, "a curve field was read before its record was checked"),
        (required, torch.ones(T), "a curve field was read before its record was checked"),
        (required, None, "a required curve field is None"),
    ):
        with pytest.raises(TypeError) as refused:
            read(value)
        assert str(refused.value) == words


FROM_SOMETHING: list[dict[str, Any]] = [
    {"denoise": math.nextafter(1.0, 0.0)},
    {"denoise": 0},
    {"denoise": 2.0, "sde_curve": 0.0},
    {"denoise": 2.0, "initial_noise": 0.0},
    {"sde_curve": torch.ones(T)},
    {"initial_noise": torch.ones(T)},
]


@pytest.mark.parametrize("fields", FROM_SOMETHING, ids=range(len(FROM_SOMETHING)))
def test_what_reads_a_source_needs_one_or_a_mask_whatever_its_value(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="without source or latent_mask, expected a source or a latent_mask to "):
        request(**fields)
    for given in ({"source": latent()}, {"latent_mask": LatentMask(1.0, latent())}):
        assert request(**fields, **given).frames == T


@pytest.mark.parametrize("denoise", [1.0, 1, math.nextafter(1.0, 2.0), 2.5, 1e300])
def test_from_a_denoise_of_1_on_nothing_is_read(denoise: float) -> None:
    assert request(denoise=denoise).denoise == denoise
