"""Live controls: values that are set on a pipeline while it runs and act from the next tick on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch

from harness.engine.config import DCW
from harness.engine.curve import Curve
from harness.engine.errors import InvalidInput


class SharedControl(StrEnum):
    """A control that overrides a value on every slot that has what it acts on."""

    VELOCITY_SCALE = "velocity_scale"
    NOISE_INJECTION = "noise_injection"
    SDE_CURVE = "sde_curve"
    GUIDANCE_SCALE = "guidance_scale"
    MOMENTUM = "momentum"
    RESCALE = "rescale"
    X0_STRENGTH = "x0_strength"


@dataclass(frozen=True, eq=False)
class Controls:
    """The live controls in force, all on the ring's device.

    Attributes:
        shared: overriding curves by control; a control that is not there leaves the request's own value.
        dcw: wavelet correction, or None.
        channel_gain: factor `[1, T, D]` or `[1, 1, D]` of what the decoder sees, or None.
    """

    shared: Mapping[SharedControl, Curve]
    dcw: DCW | None = None
    channel_gain: Curve | None = None


def placed(controls: Controls, device: torch.device) -> Controls:
    """The same controls, their curves on `device`."""
    dcw, gain = controls.dcw, controls.channel_gain
    if dcw is not None:
        a, b = dcw.scalers
        dcw = replace(dcw, a=a.to(device), b=b.to(device))
    return Controls(
        shared={name: held.to(device) for name, held in controls.shared.items()},
        dcw=dcw,
        channel_gain=None if gain is None else gain.to(device),
    )


def check_frames(controls: Controls, frames: int) -> None:
    """Raise `InvalidInput` where a control in force has another number of frames than a request."""
    held = {f"shared control {name.value}": value for name, value in controls.shared.items()}
    if controls.channel_gain is not None:
        held["channel gain"] = controls.channel_gain
    for name, value in held.items():
        if value.frames not in (None, frames):
            expected = f"{value.frames} frames, as the {name} in force has (set it to None first)"
            raise InvalidInput("context_latents", f"{frames} frames", expected)


def check_gain_channels(controls: Controls, channels: int) -> None:
    """Raise `InvalidInput` where the channel gain in force has another number of channels than a request."""
    gain = controls.channel_gain
    if gain is not None and gain.values.shape[2] != channels:
        expected = f"{gain.values.shape[2]} channels, as the channel gain in force has (set it to None first)"
        raise InvalidInput("context_latents", f"{channels} latent channels", expected)
