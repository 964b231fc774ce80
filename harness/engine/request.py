"""Requests: frozen records of what to generate, checked when they are made.

Curves, masks and weights are copied. Encoder states, context latents and sources are not copied: the caller must not
write to them while the request is in flight. The check for finite values reads such a tensor when it is first given,
and again when a request is made after a write to it; see `harness.engine.once`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.engine import checks, once, ranges
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.masks import token_mask
from harness.engine.noise import MAX_SEED
from harness.engine.transfer import to_device


@dataclass(frozen=True, eq=False)
class Condition:
    """One text or style condition.

    Attributes:
        encoder_hidden_states: `[1, L, E]`, finite in float32, any floating dtype. Not copied.
        encoder_mask: `[1, L]` of 0 and 1 (bool, integer or float), 1 for an attended token, with at least one 1. None
            attends every token, whatever mask the text encoder returned. Copied.
        temporal_weight: weight of this condition's velocity among the active ones, a number or a curve, 0 to 1e6; None
            is 1. Copied.
        step_range: `(start, end)` with `0 <= start < end <= 1`: the condition is active while
            `start <= step/total < end`. None: always active.

    Raises:
        InvalidInput: a field of another type, shape, device or range.
    """

    encoder_hidden_states: Tensor
    encoder_mask: Tensor | None = None
    temporal_weight: CurveLike | None = None
    step_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check every field; copy mask and weight."""
        states = once.tensor("condition.encoder_hidden_states", self.encoder_hidden_states, (1, "L", "E"))
        if self.encoder_mask is not None:
            if isinstance(self.encoder_mask, Tensor):
                checks.movable("condition.encoder_mask", self.encoder_mask, states.device)
            mask = token_mask("condition.encoder_mask", self.encoder_mask, (1, states.shape[1]))
            mask = to_device(mask, states.device)
            object.__setattr__(self, "encoder_mask", mask)
        if self.temporal_weight is not None:
            weight = curve("condition.temporal_weight", self.temporal_weight, **ranges.WEIGHT, device=states.device)
            object.__setattr__(self, "temporal_weight", weight)
        if self.step_range is not None:
            object.__setattr__(self, "step_range", _step_range(self.step_range))

    @property
    def length(self) -> int:
        """Number of tokens L, before padding."""
        return self.encoder_hidden_states.shape[1]

    def is_active(self, step: int, total: int) -> bool:
        """Say whether `step` of `total` lies in the condition's step range."""
        return self.step_range is None or self.step_range[0] <= step / total < self.step_range[1]


@dataclass(frozen=True, eq=False)
class Guidance:
    """Adaptive projected guidance (arXiv:2410.02416); see `harness.engine.guidance`.

    Attributes:
        scale: guidance scale `g`, a number or a curve, -50 to 50. At 1 the negative rows still run, so that the scale
            can be changed live.
        negatives: negative conditions, at least one in a mode that runs negative rows (`full`, `initialize`); not read
            in mode `self`.
        mode: `"full"`, `"initialize"` or `"self"`.
        momentum: factor of the running average, a number or a curve, -10 to 10.
        rescale: guidance rescale `k` (arXiv:2305.08891), a number or a curve, -10 to 10; None or 0 is off.
        norm_threshold: bound of the direction's norm per channel, a normal float32 number above 0; None is off.
        eta: share of the direction's parallel part that is kept, -10 to 10; 0 keeps none.

    Raises:
        InvalidInput: a field of another type or range.
    """

    scale: CurveLike
    negatives: Sequence[Condition] = ()
    mode: GuidanceMode | str = GuidanceMode.FULL
    momentum: CurveLike = -0.75
    rescale: CurveLike | None = None
    norm_threshold: float | None = 2.5
    eta: float = 0.0

    def __post_init__(self) -> None:
        """Check every field but one: the `Request` checks that a mode has the negatives it needs."""
        object.__setattr__(self, "scale", curve("guidance.scale", self.scale, **ranges.FACTOR))
        object.__setattr__(self, "momentum", curve("guidance.momentum", self.momentum, **ranges.SHARE))
        if self.rescale is not None:
            object.__setattr__(self, "rescale", curve("guidance.rescale", self.rescale, **ranges.SHARE))
        object.__setattr__(self, "mode", checks.member("guidance.mode", self.mode, GuidanceMode))
        object.__setattr__(self, "negatives", _conditions("guidance.negatives", self.negatives))
        if self.norm_threshold is not None:
            threshold = checks.number("guidance.norm_threshold", self.norm_threshold, **ranges.NORM)
            object.__setattr__(self, "norm_threshold", threshold)
        object.__setattr__(self, "eta", checks.number("guidance.eta", self.eta, **ranges.SHARE))


@dataclass(frozen=True, eq=False)
class X0Target:
    """A target latent that the clean estimate is moved toward.

    Attributes:
        latent: `[1, T, D]`, finite in float32. Not copied.
        strength: share of the target in the second half of the steps, a number or a curve, -10 to 10; 0 is off. Copied.
        curve: share of the target behind a gate, as `strength` and instead of it; None is off. Copied.
        gate: share of the steps, in [0, 1], after which `curve` starts to act; its effect grows linearly up to the
            last step.

    Raises:
        InvalidInput: a field of another type, shape, device or range, or both `strength` and `curve`.
    """

    latent: Tensor
    strength: CurveLike = 0.0
    curve: CurveLike | None = None
    gate: float = 0.0

    def __post_init__(self) -> None:
        """Check every field; copy strength and curve."""
        latent = once.tensor("x0_target.latent", self.latent, (1, "T", "D"))
        frames, device = latent.shape[1], latent.device
        strength = curve("x0_target.strength", self.strength, frames=frames, device=device, **ranges.SHARE)
        object.__setattr__(self, "strength", strength)
        object.__setattr__(self, "gate", checks.number("x0_target.gate", self.gate, **ranges.UNIT))
        if self.curve is not None:
            if not strength.is_everywhere(0.0):
                raise InvalidInput("x0_target.strength", "a strength and a curve", "either a strength or a curve")
            gated = curve("x0_target.curve", self.curve, frames=frames, device=device, **ranges.SHARE)
            object.__setattr__(self, "curve", gated)


CURVES: Mapping[str, ranges.Bounds] = {
    "velocity_scale": ranges.FACTOR,
    "noise_injection": ranges.SHARE,
    "sde_curve": ranges.SHARE,
    "initial_noise": ranges.SHARE,
}
"""The fields of a `Request` that are curves, with their bounds."""

StrengthAt = Callable[[int, int], float]
"""Function of `(step, total)` that returns a number in [0, 1]; called on the host, once per slot and tick."""


@dataclass(frozen=True, eq=False)
class LatentMask:
    """Mask over the frames: 1 generates a frame, 0 keeps the original frame.

    Attributes:
        mask: a number or per-frame values in [0, 1], bool, integer or float. Copied.
        original: `[1, T, D]`, finite in float32, the latent whose frames are kept. A request without a source uses the
            original as its source, also where the mask is 1 at every frame. Not copied.
        strength_at: pure function that returns the factor of the mask at each step; None is 1.

    Raises:
        InvalidInput: a field of another type, shape, device or range.
    """

    mask: CurveLike
    original: Tensor
    strength_at: StrengthAt | None = None

    def __post_init__(self) -> None:
        """Check every field; copy the mask."""
        original = once.tensor("latent_mask.original", self.original, (1, "T", "D"))
        made = curve("latent_mask.mask", self.mask, frames=original.shape[1], device=original.device, **ranges.UNIT)
        object.__setattr__(self, "mask", made)
        if self.strength_at is not None and not callable(self.strength_at):
            raise InvalidInput("latent_mask.strength_at", checks.describe(self.strength_at), "a callable or None")

    def strength_in_force(self, step: int, total: int) -> float:
        """Return the value of `strength_at` at `step` of `total`; 1 without `strength_at`.

        Raises:
            InvalidInput: `strength_at` returned anything but a number in [0, 1].
        """
        if self.strength_at is None:
            return 1.0
        return checks.number(f"latent_mask.strength_at({step}, {total})", self.strength_at(step, total), **ranges.UNIT)


@dataclass(frozen=True, eq=False)
class Request:
    """One latent to generate.

    Attributes:
        conditions: one or more `Condition`s of one width, dtype and device.
        context_latents: `[1, T, 2*D]`, finite in float32: source latents, then chunk mask. Not copied.
        seed: an integer from 0 to 2**64 - 1.
        id: name of the result, a string or an integer; with None the pipeline makes up a name, `request-N`.
        denoise: denoising strength, at least 0. Below 1, generation starts from the source (or the latent mask's
            original), which must be there.
        source: `[1, T, D]`, finite in float32, or None. Not copied.
        guidance: a `Guidance`, or None for no guidance.
        velocity_scale: factor of the velocity, a number or a curve, -50 to 50; 1 or None is off. Copied, like the next
            three, which are from -10 to 10.
        noise_injection: amount of fresh noise after an Euler step, a number or a curve; 0 or None is off.
        sde_curve: share of the clean estimate against the source in the SDE step; needs a source or a latent mask.
        initial_noise: share of noise against the source in the initial state; needs a source or a latent mask.
        x0_target: an `X0Target`, or None.
        latent_mask: a `LatentMask`, or None.

    Raises:
        InvalidInput: a field of another type, shape, device or range, or fields that do not fit each other.
    """

    conditions: Sequence[Condition]
    context_latents: Tensor
    seed: int
    id: str | int | None = None
    denoise: float = 1.0
    source: Tensor | None = None
    guidance: Guidance | None = None
    velocity_scale: CurveLike | None = None
    noise_injection: CurveLike | None = None
    sde_curve: CurveLike | None = None
    initial_noise: CurveLike | None = None
    x0_target: X0Target | None = None
    latent_mask: LatentMask | None = None

    def __post_init__(self) -> None:
        """Check every field and every pair of fields that must agree; copy the curves."""
        checks.integer("seed", self.seed, 0, MAX_SEED)
        if self.id is not None and (isinstance(self.id, bool) or not isinstance(self.id, str | int)):
            raise InvalidInput("id", checks.describe(self.id), "a string, an integer or None")
        object.__setattr__(self, "denoise", checks.number("denoise", self.denoise, 0.0))
        context = once.tensor("context_latents", self.context_latents, (1, "T", "C"))
        if context.shape[2] % 2:
            raise InvalidInput("context_latents", checks.describe(context), "an even number of channels, C = 2*D")
        object.__setattr__(self, "conditions", _conditions("conditions", self.conditions))
        if not self.conditions:
            raise InvalidInput("conditions", "none", "at least one Condition")
        self._check_latents()
        for name, bounds in CURVES.items():
            given = getattr(self, name)
            if given is not None:
                made = curve(name, given, frames=self.frames, device=context.device, **bounds)
                object.__setattr__(self, name, made)
        self._check_source()
        self._check_guidance()
        self._check_conditions()

    @property
    def frames(self) -> int:
        """Latent frames T; ACE-Step has 25 a second."""
        return self.context_latents.shape[1]

    @property
    def channels(self) -> int:
        """Latent channels D."""
        return self.context_latents.shape[2] // 2

    @property
    def device(self) -> torch.device:
        """Device of all of the request's tensors."""
        return self.context_latents.device

    @property
    def stand_in_source(self) -> Tensor | None:
        """The source; without a source the latent mask's original; without either None."""
        if self.source is None and self.latent_mask is not None:
            return self.latent_mask.original
        return self.source

    @property
    def negatives(self) -> Sequence[Condition]:
        """The guidance's negative conditions; empty without guidance."""
        return () if self.guidance is None else self.guidance.negatives

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the request does not copy, by field: contexts, encoder states, sources and targets."""
        named: dict[str, Tensor | None] = {"context_latents": self.context_latents, "source": self.source}
        if self.x0_target is not None:
            named["x0_target.latent"] = self.x0_target.latent
        if self.latent_mask is not None:
            named["latent_mask.original"] = self.latent_mask.original
        named |= {
            f"conditions[{i}].encoder_hidden_states": c.encoder_hidden_states for i, c in enumerate(self.conditions)
        }
        named |= {
            f"guidance.negatives[{i}].encoder_hidden_states": c.encoder_hidden_states
            for i, c in enumerate(self.negatives)
        }
        return {field: tensor for field, tensor in named.items() if tensor is not None}

    def _check_latents(self) -> None:
        shape = (1, self.frames, self.channels)
        if self.source is not None:
            once.tensor("source", self.source, shape)
            checks.same_device("source", self.source, self.device)
        if self.x0_target is not None:
            checks.instance("x0_target", self.x0_target, X0Target, "an X0Target or None")
            once.tensor("x0_target.latent", self.x0_target.latent, shape)
            checks.same_device("x0_target.latent", self.x0_target.latent, self.device)
        if self.latent_mask is not None:
            checks.instance("latent_mask", self.latent_mask, LatentMask, "a LatentMask or None")
            once.tensor("latent_mask.original", self.latent_mask.original, shape)
            checks.same_device("latent_mask.original", self.latent_mask.original, self.device)

    def _check_source(self) -> None:
        if self.stand_in_source is not None:
            return
        if self.denoise < 1.0:
            expected = "a source or a latent_mask to start from"
            raise InvalidInput("denoise", f"{self.denoise} without source or latent_mask", expected)
        for name in ("initial_noise", "sde_curve"):
            if getattr(self, name) is not None:
                expected = "a source or a latent_mask to mix with"
                raise InvalidInput(name, "a curve without source or latent_mask", expected)

    def _check_guidance(self) -> None:
        if self.guidance is None:
            return
        checks.instance("guidance", self.guidance, Guidance, "a Guidance or None")
        mode = GuidanceMode(self.guidance.mode)
        if mode.needs_negatives and not self.guidance.negatives:
            raise InvalidInput("guidance.negatives", "none", f"at least one Condition in mode {mode}")
        placed: dict[str, Any] = {
            name: curve(f"guidance.{name}", getattr(self.guidance, name), frames=self.frames).to(self.device)
            for name in ("scale", "momentum", "rescale")
            if getattr(self.guidance, name) is not None
        }
        object.__setattr__(self, "guidance", replace(self.guidance, **placed))

    def _check_conditions(self) -> None:
        first = self.conditions[0].encoder_hidden_states
        named = [(f"conditions[{i}]", c) for i, c in enumerate(self.conditions)]
        named += [(f"guidance.negatives[{i}]", c) for i, c in enumerate(self.negatives)]
        for name, condition in named:
            states = condition.encoder_hidden_states
            field = f"{name}.encoder_hidden_states"
            checks.same_device(field, states, self.device)
            if not states.is_inference():  # an inference tensor has no version counter that would show a write
                once.finite(field, states)
            if states.dtype != first.dtype or states.shape[2] != first.shape[2]:
                expected = f"{first.dtype} of width {first.shape[2]}, as conditions[0] has"
                raise InvalidInput(field, checks.describe(states), expected)
            if condition.temporal_weight is not None:
                curve(f"{name}.temporal_weight", condition.temporal_weight, frames=self.frames)


def normal(value: CurveLike | None) -> Curve | None:
    """Return a checked record's curve field as a `Curve`, or None.

    Raises:
        TypeError: the field is not in its normal form, so its record was not checked.
    """
    if value is None or isinstance(value, Curve):
        return value
    raise TypeError("a curve field was read before its record was checked")


def required(value: CurveLike | None) -> Curve:
    """Return a checked record's curve field that is never None.

    Raises:
        TypeError: the field is None, or its record was not checked.
    """
    made = normal(value)
    if made is None:
        raise TypeError("a required curve field is None")
    return made


def _step_range(value: Any) -> tuple[float, float]:
    expected = "(start, end) with 0 <= start < end <= 1"
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidInput("condition.step_range", checks.describe(value), expected)
    start, end = (checks.number("condition.step_range", bound, 0.0, 1.0) for bound in value)
    if start >= end:
        raise InvalidInput("condition.step_range", checks.describe(value), expected)
    return start, end


def _conditions(field: str, value: Any) -> tuple[Condition, ...]:
    if isinstance(value, Condition) or not isinstance(value, Sequence):
        raise InvalidInput(field, checks.describe(value), "a sequence of Conditions")
    for index, condition in enumerate(value):
        checks.instance(f"{field}[{index}]", condition, Condition, "a Condition")
    return tuple(value)
