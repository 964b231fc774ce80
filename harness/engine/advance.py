"""Tensor functions that carry out one slot's plan: decoder input, combination, step, correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine import blend, guidance, solver, wavelet
from harness.engine.curve import Curve
from harness.engine.guidance_modes import NegativeSource
from harness.engine.kernels import Corrected, Guided
from harness.engine.noise import Purpose, noise
from harness.engine.plan import DCWPlan, GuidancePlan, Path, SlotPlan
from harness.engine.request import Condition, normal, required
from harness.engine.slot import Slot
from harness.engine.transfer import to_device
from harness.engine.wavelet import DCWMode


@dataclass(frozen=True, eq=False)
class Combined:
    """A slot's combined velocity and guidance state, each float32 `[1, T, D]`.

    Attributes:
        velocity: velocity of the step, before the velocity scale.
        average: running average of the guidance direction; None without guidance.
        kept_negative: negative velocity that the slot keeps for later steps, or None.
    """

    velocity: Tensor
    average: Tensor | None
    kept_negative: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are not None, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


def mask_in_force(plan: SlotPlan) -> Tensor | None:
    """Latent mask times its strength at this step, `[1, T, 1]` or `[1, 1, 1]`; None where no mask acts."""
    latent_mask = plan.request.latent_mask
    if latent_mask is None or plan.mask_strength is None:
        return None
    return required(latent_mask.mask).values * plan.mask_strength


def blended_state(plan: SlotPlan, slot: Slot) -> Tensor:
    """State `[1, T, D]` of a slot, with the frames outside the latent mask set to the original at the slot's time."""
    mask, latent_mask = mask_in_force(plan), plan.request.latent_mask
    if mask is None or latent_mask is None:
        return slot.x
    if slot.mask_noise is None:
        raise TypeError("a latent mask acts on a slot that was admitted without mask noise")
    return blend.mask_state(slot.x, mask, latent_mask.original.float(), slot.mask_noise, plan.t)


def combine(plan: SlotPlan, slot: Slot, positives: Sequence[Tensor], negatives: Sequence[Tensor]) -> Combined:
    """Combine the velocities of a slot's rows into one velocity; on a GPU see `guided`.

    Args:
        plan: the slot's plan.
        slot: the slot before the tick.
        positives: velocity of each active positive condition, float32 `[1, T, D]`.
        negatives: velocity of each negative condition that ran, float32 `[1, T, D]`.
    """
    if plan.guidance is None:
        return Combined(_mean(plan.positives, positives), None, None)
    g, kept = guided(plan, slot, positives, negatives)
    average = guidance.running_average(g.v_pos - g.v_neg, g.average, g.momentum)
    v = guidance.guide(g.v_pos, average, g.scale, g.norm_threshold, g.eta)
    if g.rescale is not None:
        v = guidance.rescale(v, g.v_pos, g.rescale)
    return Combined(v, average, kept)


def guided(
    plan: SlotPlan, slot: Slot, positives: Sequence[Tensor], negatives: Sequence[Tensor]
) -> tuple[Guided, Tensor | None]:
    """What the guidance of a slot reads, and the negative velocity that the slot keeps for later steps, or None.

    Args:
        plan: the plan of a guided slot.
        slot: the slot before the tick.
        positives: see `combine`.
        negatives: see `combine`.
    """
    if plan.guidance is None or slot.average is None:
        raise TypeError("a slot without guidance or a running average cannot be guided")
    v_neg, kept = _negative_velocity(plan, plan.guidance, slot, negatives)
    rescale = plan.guidance.rescale
    read = Guided(
        v_pos=_mean(plan.positives, positives),
        v_neg=v_neg,
        average=slot.average,
        scale=plan.guidance.scale.values,
        momentum=plan.guidance.momentum.values,
        rescale=None if rescale is None else rescale.values,
        norm_threshold=plan.guidance.norm_threshold,
        eta=plan.guidance.eta,
    )
    return read, kept


def scaled(plan: SlotPlan, velocity: Tensor) -> Tensor:
    """Multiply the velocity by the velocity scale in force."""
    return velocity if plan.velocity_scale is None else velocity * plan.velocity_scale.values


def step(plan: SlotPlan, slot: Slot, x: Tensor, velocity: Tensor) -> Tensor:
    """Move a slot's state one step; return the new state, float32 `[1, T, D]`.

    Args:
        plan: the slot's plan.
        slot: the slot before the tick.
        x: the state before the step, after the latent mask's blend, `[1, T, D]`.
        velocity: the combined velocity before the velocity scale, `[1, T, D]`.
    """
    v = scaled(plan, velocity)
    if plan.path is Path.EULER:
        return injected(plan, solver.euler(x, v, plan.t, plan.s))
    x0 = edited(plan, solver.denoised(x, v, plan.t))
    if plan.path is Path.EDITED:
        return injected(plan, solver.euler_through(x, x0, plan.t, plan.s))
    z = _step_noise(plan, slot)
    if plan.path is Path.SDE:
        return solver.sde(x0, z, plan.s)
    source = plan.request.stand_in_source
    if source is None or plan.sde_curve is None:
        raise TypeError("the SDE-curve path was planned without a curve or a source")
    return solver.sde_curve(x0, source.float(), z, plan.sde_curve.values, plan.s)


def edited(plan: SlotPlan, x0: Tensor) -> Tensor:
    """Apply the latent mask and the x0 target to the clean estimate."""
    mask, latent_mask = mask_in_force(plan), plan.request.latent_mask
    if mask is not None and latent_mask is not None:
        x0 = blend.mix(mask, x0, latent_mask.original.float())
    if plan.target is not None and plan.request.x0_target is not None:
        amount = plan.target.amount.values
        if plan.target.ramp is not None:
            amount = amount * plan.target.ramp
        x0 = blend.toward(x0, plan.request.x0_target.latent.float(), amount)
    return x0


def injected(plan: SlotPlan, x: Tensor) -> Tensor:
    """Add fresh noise to the stepped state, where noise injection is in force."""
    if plan.noise_injection is None:
        return x
    return solver.inject(x, _own_noise(plan), plan.noise_injection.values, plan.s)


def corrected(plan: SlotPlan, dcw: DCWPlan | None, x: Tensor, velocity: Tensor, stepped: Tensor) -> Tensor:
    """Apply the wavelet correction to the stepped state.

    Without a correction, and for a step that starts at time 0, the stepped state is returned as is.

    Args:
        plan: the slot's plan.
        dcw: the correction in force, or None.
        x: the state before the step, after the latent mask's blend, `[1, T, D]`.
        velocity: the combined velocity before the velocity scale, `[1, T, D]`.
        stepped: the state after the step, `[1, T, D]`.
    """
    if dcw is None or plan.t == 0.0:
        return stepped
    clean = solver.denoised(x, velocity, plan.t)
    a = None if dcw.a is None else dcw.a.values
    b = None if dcw.b is None else dcw.b.values
    return wavelet.correct(dcw.mode, stepped, clean, plan.t, a, b, dcw.wavelet)


def in_haar_domain(plan: SlotPlan, dcw: DCWPlan, x: Tensor, velocity: Tensor, stepped: Tensor) -> Corrected:
    """What the wavelet correction of a slot reads, for the wavelet `haar`; the arguments are those of `corrected`."""
    frames = stepped.shape[1]
    pix, low, high = dcw.mode is DCWMode.PIX, dcw.mode is not DCWMode.HIGH, dcw.mode is not DCWMode.LOW
    upper = dcw.b if dcw.mode is DCWMode.DOUBLE else dcw.a

    def scaler(curve: Curve | None, length: int) -> Tensor | None:
        return None if curve is None else wavelet.resample(curve.values, length)

    return Corrected(
        stepped=stepped,
        x=x,
        velocity=velocity,
        t=plan.t,
        low=scaler(dcw.a, -(-frames // 2)) if low and not pix else None,
        low_factor=plan.t,
        high=scaler(upper, -(-frames // 2)) if high and not pix else None,
        high_factor=1.0 - plan.t,
        pix=scaler(dcw.a, frames) if pix else None,
    )


def _mean(conditions: Sequence[Condition], velocities: Sequence[Tensor]) -> Tensor:
    if len(velocities) == 1:
        return velocities[0]
    weights = [_weight(condition, v) for condition, v in zip(conditions, velocities, strict=True)]
    return blend.weighted_mean(velocities, weights)


def _weight(condition: Condition, like: Tensor) -> Tensor:
    weight = normal(condition.temporal_weight)
    return torch.ones((1, 1, 1), dtype=torch.float32, device=like.device) if weight is None else weight.values


def _negative_velocity(
    plan: SlotPlan, guided: GuidancePlan, slot: Slot, negatives: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Negative velocity, and the copy that the slot keeps for later steps, or None."""
    if guided.negative is NegativeSource.ROWS:
        v_neg = _mean(plan.negatives, negatives)
        # Copy: the velocity may be a view of a buffer, and the executor's next run overwrites the buffer.
        return v_neg, v_neg.clone() if guided.keeps else None
    held = slot.kept_negative if guided.negative is NegativeSource.KEPT else slot.initial_noise
    if held is None:
        raise TypeError(f"the slot holds no tensor of the negative velocity's source, {guided.negative}")
    return held, held if guided.keeps else None


def _step_noise(plan: SlotPlan, slot: Slot) -> Tensor | None:
    if plan.noise is None:
        return None
    return slot.mask_noise if plan.noise is Purpose.MASK else _own_noise(plan)


def _own_noise(plan: SlotPlan) -> Tensor:
    request = plan.request
    drawn = noise(request.seed, Purpose.STEP, plan.step, (1, request.frames, request.channels))
    return to_device(drawn, request.device, read_here=True)
