"""Props are what the events of a script ask for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from harness.engine.config import DCW
from harness.engine.request import CURVES, Condition, required
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Guided, Masked, Script, Submit, Text, Toward, Wavelets
from harness.parity.compare import assert_identical


def test_a_gain_is_none_or_a_level_of_every_channel() -> None:
    props = Props(Script(channels=3))
    assert props.gain(None) is None
    assert_identical(props.gain(2.0), torch.full((1, 1, 3), 2.0))
    assert_identical(props.gain((1.0, 2.0)), torch.tensor([[[1.0, 1.5, 2.0]]]))


def test_every_tensor_of_a_gain_and_of_a_curve_is_on_the_device() -> None:
    props = Props(Script(), "meta")
    made = [props.gain(1.0), props.gain((1.0, 2.0)), props.curve((1.0, 2.0), 4)]
    assert {tensor.device.type for tensor in made if tensor is not None} == {"meta"}


def test_a_request_has_the_target_and_the_mask_of_its_submission() -> None:
    props = Props(Script())
    request = props.request(Submit(1, toward=Toward(seed=61, strength=0.25), masked=Masked(seed=71, level=0.5)))
    assert request.x0_target is not None and request.latent_mask is not None
    assert request.x0_target.latent is props.latent(61, 12)
    assert request.latent_mask.original is props.latent(71, 12)
    assert (required(request.x0_target.strength).uniform, required(request.latent_mask.mask).uniform) == (0.25, 0.5)


TEXT = Text(3, 6, weight=(0.2, 0.8), span=(0.0, 0.5), hidden=2)
NEGATIVE = Text(91, 4, weight=0.5, span=(0.25, 1.0), hidden=1)
GUIDED = Guided((1.5, 3.0), (NEGATIVE, TEXT), "initialize", (-0.5, 0.5), (0.1, 0.7), 1.25, 0.5)
TOWARD = Toward(61, curve=(0.25, 0.75), gate=0.5)
MASKED = Masked(71, (0.25, 1.0), every=3, fading=True)
WAVELETS = Wavelets("low", (0.01, 0.04), 0.03, "db2")
CURVED: dict[str, Any] = {name: (0.1 + number, 0.9 + number) for number, name in enumerate(CURVES)}
SUBMIT = Submit(7, (TEXT, NEGATIVE), 10, 0.75, 50, GUIDED, **CURVED, toward=TOWARD, masked=MASKED)
FULL = Script((), 2, 5, 2.0, "sde", 24, WAVELETS, 9, 3, 7)
DEFAULTS = {"strength", "events"}
"""What is left as it is: a strength excludes a curve, and events are played."""


@pytest.mark.parametrize("record", [TEXT, NEGATIVE, GUIDED, TOWARD, MASKED, WAVELETS, SUBMIT, FULL])
def test_the_records_of_these_tests_say_something_of_their_own_in_every_field(record: Any) -> None:
    default = type(record)()
    said = {field.name for field in fields(record) if getattr(record, field.name) != getattr(default, field.name)}
    assert said | DEFAULTS >= {field.name for field in fields(record)}


def line(*levels: float, frames: int = 10) -> torch.Tensor:
    return torch.linspace(levels[0], levels[-1], frames).reshape(1, -1, 1)


def there(value: Any) -> Any:
    assert value is not None
    return value


def assert_condition(made: Condition, text: Text, states: torch.Tensor, weight: torch.Tensor) -> None:
    assert_identical(made.encoder_hidden_states, states)
    attended = torch.arange(text.tokens)[None] < text.tokens - text.hidden
    assert_identical(there(made.encoder_mask).bool(), attended)
    assert_identical(required(made.temporal_weight).values, weight)
    assert made.step_range == text.span


def test_a_condition_has_every_field_of_its_text() -> None:
    props = Props(FULL)
    assert_condition(props.condition(TEXT, 10), TEXT, props.drawn(3, 6, 7), line(0.2, 0.8))
    assert_condition(props.condition(NEGATIVE, 10), NEGATIVE, props.drawn(91, 4, 7), torch.tensor([[[0.5]]]))


def test_a_guidance_has_every_field_of_what_the_script_says() -> None:
    props = Props(FULL)
    made = there(props.request(SUBMIT).guidance)
    for name in ("scale", "momentum", "rescale"):
        assert_identical(required(getattr(made, name)).values, line(*getattr(GUIDED, name)))
    assert list(made.negatives) == [props.condition(NEGATIVE, 10), props.condition(TEXT, 10)]
    assert (made.mode, made.norm_threshold, made.eta) == ("initialize", 1.25, 0.5)


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("level", [{"curve": (0.25, 0.75)}, {"curve": 0.5}, {"strength": (0.25, 0.75)}])
def test_a_target_has_every_field_of_what_the_script_says(level: dict[str, Any], gate: float) -> None:
    props = Props(FULL)
    made = there(props.request(Submit(7, toward=Toward(61, **level, gate=gate))).x0_target)
    assert made.latent is props.latent(61, 9) and made.gate == gate
    ((name, value),) = level.items()
    wanted = line(*value, frames=9) if isinstance(value, tuple) else torch.tensor([[[value]]])
    assert_identical(getattr(made, name).values, wanted)
    assert (made.curve is None) == (name == "strength")


def test_a_mask_has_every_field_of_what_the_script_says() -> None:
    props = Props(FULL)
    made = there(props.request(SUBMIT).latent_mask)
    assert made.original is props.latent(71, 10)
    kept = line(0.25, 1.0) * (torch.arange(10) % 3 != 0).reshape(1, -1, 1)
    assert_identical(required(made.mask).values, kept)
    assert [made.strength_in_force(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_a_request_has_every_field_of_its_submission() -> None:
    props = Props(FULL)
    made = props.request(SUBMIT)
    assert list(made.conditions) == [props.condition(TEXT, 10), props.condition(NEGATIVE, 10)]
    assert (made.seed, made.frames, made.denoise) == (7, 10, 0.75)
    assert made.source is props.latent(50, 10) and made.context_latents.shape == (1, 10, 6)
    assert there(made.x0_target).latent is props.latent(61, 10) and there(made.x0_target).gate == 0.5
    for name, level in CURVED.items():
        assert_identical(required(getattr(made, name)).values, line(*level))


def test_a_configuration_has_every_field_of_its_script() -> None:
    made = FULL.config()
    said = (made.depth, made.steps, made.shift, made.solver, made.encoder_length)
    assert said == (2, 5, 2.0, "sde", 24)
    for dcw in (made.dcw, Props(FULL).dcw(WAVELETS)):
        assert isinstance(dcw, DCW) and (dcw.mode, dcw.wavelet) == ("low", "db2")
        assert_identical(required(dcw.a).values, line(0.01, 0.04, frames=9))
        assert required(dcw.b).uniform == pytest.approx(0.03)
