"""Live controls: values that are set on a running pipeline and act from the next tick on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from harness.engine import checks, wavelet
from harness.engine.config import DCW
from harness.engine.curve import Curve, curve, per_channel
from harness.engine.errors import InvalidInput
from harness.engine.ranges import FACTOR, SHARE, Bounds
from harness.engine.request import Guidance, Request, X0Target, normal, required
from harness.engine.transfer import to_device


def _always(_request: Request) -> bool:
    return True


def _is_guided(request: Request) -> bool:
    return request.guidance is not None


def _has_source(request: Request) -> bool:
    return request.stand_in_source is not None


def _has_strength(request: Request) -> bool:
    return request.x0_target is not None and request.x0_target.curve is None


def _guidance(request: Request) -> Guidance:
    if request.guidance is None:
        raise TypeError("a guidance control was read for a request without guidance")
    return request.guidance


def _target(request: Request) -> X0Target:
    if request.x0_target is None:
        raise TypeError("an x0-target control was read for a request without an x0 target")
    return request.x0_target


Gate = Callable[[Curve, float], bool]
"""Function of `(curve, neutral value)` that says whether every frame of the curve has the neutral value."""


class SharedControl(StrEnum):
    """A control, with its record. The control overrides one value of every request that the control acts on.

    Attributes:
        acts_on: function that says whether the control acts on a request.
        own: function that returns the request's own value as a `Curve`, or None; called only where `acts_on` holds.
        neutral: the value at which a tick takes the same path as without a value; None where no value is neutral.
        bounds: smallest and largest value, those of the request's own value.
    """

    acts_on: Callable[[Request], bool]
    own: Callable[[Request], Curve | None]
    neutral: float | None
    bounds: Bounds

    VELOCITY_SCALE = "velocity_scale", _always, lambda r: normal(r.velocity_scale), 1.0, FACTOR
    NOISE_INJECTION = "noise_injection", _always, lambda r: normal(r.noise_injection), 0.0, SHARE
    SDE_CURVE = "sde_curve", _has_source, lambda r: normal(r.sde_curve), None, SHARE
    GUIDANCE_SCALE = "guidance_scale", _is_guided, lambda r: required(_guidance(r).scale), None, FACTOR
    MOMENTUM = "momentum", _is_guided, lambda r: required(_guidance(r).momentum), None, SHARE
    RESCALE = "rescale", _is_guided, lambda r: normal(_guidance(r).rescale), 0.0, SHARE
    X0_STRENGTH = "x0_strength", _has_strength, lambda r: required(_target(r).strength), 0.0, SHARE

    def __new__(
        cls,
        name: str,
        acts_on: Callable[[Request], bool],
        own: Callable[[Request], Curve | None],
        neutral: float | None,
        bounds: Bounds,
    ) -> SharedControl:
        """Make a member whose value is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.acts_on, member.own, member.neutral, member.bounds = acts_on, own, neutral, bounds
        return member


@dataclass(frozen=True, eq=False)
class Controls:
    """The live controls in force, all on the ring's device.

    Attributes:
        shared: overriding curves by control; a control without a curve leaves the request's own value.
        dcw: wavelet correction, or None.
        channel_gain: factor `[1, T, D]` or `[1, 1, D]` of the decoder's input, or None.
    """

    shared: Mapping[SharedControl, Curve]
    dcw: DCW | None = None
    channel_gain: Curve | None = None

    def sharing(self, control: SharedControl, value: Curve | None) -> Controls:
        """Return the controls with another value of a shared control; None takes the value away."""
        shared = {key: held for key, held in self.shared.items() if key is not control}
        return replace(self, shared=shared if value is None else {**shared, control: value})

    def in_force(self, control: SharedControl, request: Request, gate: Gate) -> Curve | None:
        """Return the curve in force of `control` for a request: the shared curve, else the request's own.

        None where the control does not act on the request, where no value is set, and where `gate` finds the curve
        neutral.
        """
        if not control.acts_on(request):
            return None
        held = self.shared[control] if control in self.shared else control.own(request)
        if held is None or (control.neutral is not None and gate(held, control.neutral)):
            return None
        return held


def placed(controls: Controls, device: torch.device) -> Controls:
    """Copy the controls, with every curve and the wavelet's filters on `device`."""
    dcw, gain = controls.dcw, controls.channel_gain
    if dcw is not None:
        a, b = dcw.scalers
        wavelet.prepare(dcw.wavelet, device, to_device)
        there = a.to(device), b.to(device)
        # A copy would check every field again, at each submission.
        dcw = dcw if there == (a, b) else replace(dcw, a=there[0], b=there[1])
    return Controls(
        shared={name: held.to(device) for name, held in controls.shared.items()},
        dcw=dcw,
        channel_gain=None if gain is None else gain.to(device),
    )


def gain_curve(value: Tensor | Curve, frames: int | None, channels: int | None, device: torch.device | None) -> Curve:
    """Make a channel gain, or check one again.

    Args:
        value: `[1, T, D]` or `[1, 1, D]`, or the curve that was made of it.
        frames: number of frames T of the requests in flight, or None.
        channels: number of latent channels D of the ring, or None.
        device: the ring's device, or None.

    Raises:
        InvalidInput: another shape or device, or a value out of range.
    """
    given = value.values if isinstance(value, Curve) else value
    checks.shaped("channel_gain", given, (1, "T", "D" if channels is None else channels))
    if frames is not None and given.shape[1] not in (1, frames):
        raise InvalidInput("channel_gain", checks.describe(given), f"1 or {frames} frames")
    if device is not None:
        checks.movable("channel_gain", given, device)
    made = value if isinstance(value, Curve) else per_channel("channel_gain", value)
    made = curve("channel_gain", made, **FACTOR)
    return made if device is None else made.to(device)


def check_frames(controls: Controls, frames: int) -> None:
    """Check that every control in force fits a request of `frames` frames.

    Raises:
        InvalidInput: a control has another number of frames.
    """
    held = {f"shared control {name.value}": value for name, value in controls.shared.items()}
    if controls.channel_gain is not None:
        held["channel gain"] = controls.channel_gain
    for name, value in held.items():
        if value.frames not in (None, frames):
            expected = f"{value.frames} frames, as the {name} in force has (set it to None first)"
            raise InvalidInput("context_latents", f"{frames} frames", expected)


def check_gain_channels(controls: Controls, channels: int) -> None:
    """Check that the channel gain in force fits a request of `channels` latent channels.

    Raises:
        InvalidInput: the gain has another number of channels.
    """
    gain = controls.channel_gain
    if gain is not None and gain.values.shape[2] != channels:
        expected = f"{gain.values.shape[2]} channels, as the channel gain in force has (set it to None first)"
        raise InvalidInput("context_latents", f"{channels} latent channels", expected)


def fitting(controls: Controls, request: Request, device: torch.device) -> Controls:
    """Copy the controls to `device`, where they fit a request.

    Raises:
        InvalidInput: a control has another number of frames or channels.
    """
    made = placed(controls, device)
    check_frames(made, request.frames)
    check_gain_channels(made, request.channels)
    return made
