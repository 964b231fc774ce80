"""Live controls: which act on which request, where they are neutral, how they are placed, and what they fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine import DCW, Guidance, InvalidInput, LatentMask, X0Target, ranges
from harness.engine.controls import Controls, SharedControl, check_frames, check_gain_channels, placed
from harness.engine.curve import Curve, ask_host, curve, of_values
from tests.engine.builders import D, T, condition, fixed, request

META = torch.device("meta")
CURVES = {control: curve(str(control), torch.linspace(0.25, 0.5, T) + n) for n, control in enumerate(SharedControl)}


def gain(channels: int = D, frames: int = 1) -> Curve:
    return of_values(torch.full((1, frames, channels), 0.5))


def test_the_record_of_every_control_is_the_documented_one() -> None:
    told = [(str(each), each.neutral, each.bounds) for each in SharedControl]
    assert told == [
        ("velocity_scale", 1.0, ranges.FACTOR),
        ("noise_injection", 0.0, ranges.SHARE),
        ("sde_curve", None, ranges.SHARE),
        ("guidance_scale", None, ranges.FACTOR),
        ("momentum", None, ranges.SHARE),
        ("rescale", 0.0, ranges.SHARE),
        ("x0_strength", 0.0, ranges.SHARE),
    ]


ALWAYS = ["velocity_scale", "noise_injection"]
GUIDED = ["guidance_scale", "momentum", "rescale"]
ACTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ALWAYS),
    ({"guidance": Guidance(1.0, mode="self")}, [*ALWAYS, *GUIDED]),
    ({"source": fixed(3)}, [*ALWAYS, "sde_curve"]),
    ({"latent_mask": LatentMask(1.0, fixed(3))}, [*ALWAYS, "sde_curve"]),
    ({"x0_target": X0Target(fixed(3))}, [*ALWAYS, "x0_strength"]),
    ({"x0_target": X0Target(fixed(3), curve=0.0)}, ALWAYS),
    ({"x0_target": X0Target(fixed(3), curve=0.5)}, ALWAYS),
]


@pytest.mark.parametrize(("fields", "names"), ACTS, ids=range(len(ACTS)))
def test_a_shared_curve_is_in_force_for_the_requests_that_its_control_acts_on(
    fields: dict[str, Any], names: list[str]
) -> None:
    made, controls = request(**fields), Controls(shared=CURVES)
    held = {str(each): controls.in_force(each, made, ask_host) for each in SharedControl}
    assert sorted(name for name, value in held.items() if value is not None) == sorted(names)
    assert all(held[str(each)] in (None, CURVES[each]) for each in SharedControl)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("shared", [True, False])
def test_only_its_own_neutral_value_takes_a_control_out_of_force(value: float, shared: bool) -> None:
    """Shared or the request's own alike; a control without a neutral value is in force with every value."""
    own = dict.fromkeys(["velocity_scale", "noise_injection", "sde_curve"], None if shared else value)
    guidance = Guidance(3.0 if shared else value, [condition(9)], momentum=value, rescale=None if shared else value)
    target = X0Target(fixed(4), strength=0.5 if shared else value)
    made = request(source=fixed(3), guidance=guidance, x0_target=target, **own)
    controls = Controls(shared={each: curve("f", value) for each in SharedControl} if shared else {})
    left_out = {0.0: ["noise_injection", "rescale", "x0_strength"], 1.0: ["velocity_scale"]}[value]
    for control in SharedControl:
        held = controls.in_force(control, made, ask_host)
        assert (held is None) is (str(control) in left_out)
        assert held is None or held.uniform == value


def test_without_any_value_only_what_a_guidance_always_has_is_in_force() -> None:
    made = request(source=fixed(3), guidance=Guidance(1.0, mode="self"), x0_target=X0Target(fixed(4)))
    found = [str(each) for each in SharedControl if Controls(shared={}).in_force(each, made, ask_host) is not None]
    assert found == ["guidance_scale", "momentum"]


def test_controls_are_placed_with_every_curve_and_change_in_nothing_else() -> None:
    dcw = DCW("high", torch.linspace(0.1, 0.2, 5), 0.25, "db2")
    controls = Controls(shared=CURVES, dcw=dcw, channel_gain=gain())
    moved = placed(controls, META)
    assert list(moved.shared) == list(CURVES)
    assert moved.dcw is not None
    assert moved.channel_gain is not None
    pairs = [(moved.shared[each], CURVES[each]) for each in CURVES]
    pairs += [*zip(moved.dcw.scalers, dcw.scalers, strict=True), (moved.channel_gain, gain())]
    for there, here in pairs:
        assert there.values.device == META
        assert there.values.shape == here.values.shape
        assert (there.uniform, there.smallest, there.largest) == (here.uniform, here.smallest, here.largest)
    assert (moved.dcw.mode, moved.dcw.wavelet) == ("high", "db2")


def test_controls_that_are_in_place_keep_their_curves() -> None:
    dcw, factor = DCW(), gain()
    again = placed(Controls(shared=CURVES, dcw=dcw, channel_gain=factor), torch.device("cpu"))
    assert all(again.shared[each] is CURVES[each] for each in CURVES)
    assert again.dcw is dcw, "no copy, whose fields would be checked again at every submission"
    assert again.channel_gain is factor
    empty = placed(Controls(shared={}), META)
    assert (dict(empty.shared), empty.dcw, empty.channel_gain) == ({}, None, None)


def in_force(**controls: Any) -> Controls:
    return Controls(
        shared={SharedControl(name): value for name, value in controls.pop("shared", {}).items()}, **controls
    )


MISFITS: list[tuple[Controls, str]] = [
    (in_force(shared={"rescale": curve("f", torch.ones(7))}), "7 frames, as the shared control rescale"),
    (
        in_force(shared={"momentum": curve("f", 1.0), "rescale": curve("f", torch.ones(5))}),
        "5 frames, as the shared control rescale",
    ),
    (
        in_force(shared={"momentum": curve("f", torch.ones(T)), "rescale": curve("f", torch.ones(5))}),
        "5 frames, as the shared control rescale",
    ),
    (in_force(channel_gain=gain(frames=7)), "7 frames, as the channel gain"),
    (
        in_force(shared={"momentum": curve("f", torch.ones(T))}, channel_gain=gain(frames=7)),
        "7 frames, as the channel gain",
    ),
]


@pytest.mark.parametrize(("controls", "words"), MISFITS, ids=range(len(MISFITS)))
def test_a_control_of_another_length_is_named_whichever_it_is(controls: Controls, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_frames(controls, T)
    assert str(refused.value) == (
        f"context_latents: got 6 frames, expected {words} in force has (set it to None first)"
    )


def test_controls_of_one_value_or_of_the_length_fit() -> None:
    check_frames(in_force(), T)
    check_frames(in_force(shared={"momentum": curve("f", 1.0)}, channel_gain=gain()), T)
    check_frames(in_force(shared={"momentum": curve("f", torch.ones(T))}, channel_gain=gain(frames=T)), T)
    check_gain_channels(in_force(), D)
    check_gain_channels(in_force(channel_gain=gain(frames=T)), D)


@pytest.mark.parametrize("channels", [1, D - 1, D + 1])
def test_a_gain_of_other_channels_does_not_fit_not_even_one_that_would_broadcast(channels: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_gain_channels(in_force(channel_gain=gain(channels)), D)
    assert str(refused.value) == (
        f"context_latents: got 4 latent channels, expected {channels} channels, as the channel gain in force has "
        "(set it to None first)"
    )


@pytest.mark.parametrize("name", ["velocity_scale", "noise_injection", "rescale", "x0_strength"])
def test_a_shared_value_goes_before_the_request_s_own_also_where_it_is_neutral(name: str) -> None:
    control = SharedControl(name)

    def made(value: float) -> Any:
        own = {"velocity_scale": value, "noise_injection": value}
        return request(**own, guidance=Guidance(1.0, mode="self", rescale=value), x0_target=X0Target(fixed(4), value))

    assert control.neutral is not None
    neutral, other = curve("f", control.neutral), curve("f", 0.5)
    assert Controls(shared={control: neutral}).in_force(control, made(0.5), ask_host) is None
    assert Controls(shared={control: other}).in_force(control, made(control.neutral), ask_host) is other
    assert Controls(shared={control: neutral}).in_force(control, made(0.5), lambda _curve, _value: False) is neutral


def test_a_control_that_does_not_act_on_a_request_has_no_value_of_it() -> None:
    for control, words in (
        (SharedControl.GUIDANCE_SCALE, "a guidance control was read for a request without guidance"),
        (SharedControl.MOMENTUM, "a guidance control was read for a request without guidance"),
        (SharedControl.RESCALE, "a guidance control was read for a request without guidance"),
        (SharedControl.X0_STRENGTH, "an x0-target control was read for a request without an x0 target"),
    ):
        with pytest.raises(TypeError) as refused:
            control.own(request())
        assert str(refused.value) == words


def test_a_control_that_does_not_act_is_not_asked_for_a_value_nor_is_one_without_a_neutral_value() -> None:
    asked: list[float] = []

    def gate(_curve: Curve, value: float) -> bool:
        asked.append(value)
        return False

    for control in SharedControl:
        Controls(shared={}).in_force(control, request(), gate)
        Controls(shared=CURVES).in_force(control, request(source=fixed(3)), gate)
    assert asked == [1.0, 0.0]
