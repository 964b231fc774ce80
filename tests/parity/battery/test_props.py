"""Props are what the events of a script ask for."""

from __future__ import annotations

import torch

from harness.engine.request import required
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Masked, Script, Submit, Toward
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
