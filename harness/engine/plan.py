"""Plan of a tick, made on the host: the admitted requests, the rows of each decoder run, the path of each slot.

Planning makes and reads no tensor, with one exception: with the switch `host_gates` off, a neutrality check reads the
curve's tensor, as the plain path of the fact that the curve recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.engine import blend
from harness.engine.callbacks import strength
from harness.engine.config import DCW, PipelineConfig, Solver
from harness.engine.controls import Controls, Gate, SharedControl
from harness.engine.curve import Curve, ask_host, ask_tensor
from harness.engine.errors import CallbackFailed
from harness.engine.guidance_modes import GuidanceMode, NegativeSource
from harness.engine.noise import Purpose
from harness.engine.records import replace
from harness.engine.request import Condition, LatentMask, Request, normal, required
from harness.engine.results import Stats
from harness.engine.rows import Row, split_runs
from harness.engine.slot import Slot, admit
from harness.engine.state import Queued
from harness.engine.wavelet import DCWMode


class CountedGate:
    """A gate that counts its neutrality checks in `asked`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.asked = 0

    def __call__(self, curve: Curve, neutral: float) -> bool:
        """Count the check and return the gate's answer."""
        self.asked += 1
        return self._gate(curve, neutral)


class Path(StrEnum):
    """Path of a slot's step, each with its formulas in `harness.engine.solver`.

    `euler`: an Euler step. `edited`: an Euler step through an edited clean estimate. `sde`: denoise, then add noise.
    `sde_curve`: as `sde`, with the clean estimate mixed with the source.
    """

    EULER = "euler"
    EDITED = "edited"
    SDE = "sde"
    SDE_CURVE = "sde_curve"


@dataclass(frozen=True)
class Admission:
    """A queued request that enters the ring at place `index`; `masked` says that its latent mask acts."""

    index: int
    queued: Queued
    masked: bool

    def admitted(self, tick: int) -> Slot:
        """Make the slot that the request has before its first step."""
        q = self.queued
        return admit(q.id, q.request, q.times, tick, masked=self.masked, unread=q.unread)


@dataclass(frozen=True, eq=False)
class GuidancePlan:
    """A slot's guidance in this tick, with the curves in force.

    Attributes:
        negative: the source of the negative velocity.
        keeps: the slot keeps a copy of the negative velocity.
        scale: guidance scale `g`.
        momentum: factor of the running average.
        rescale: guidance rescale `k`; None where it is neutral.
        norm_threshold: bound of the direction's norm per channel, or None for no bound.
        eta: share of the direction's parallel part that is kept.
    """

    negative: NegativeSource
    keeps: bool
    scale: Curve
    momentum: Curve
    rescale: Curve | None
    norm_threshold: float | None
    eta: float


@dataclass(frozen=True, eq=False)
class TargetPlan:
    """An x0 target that acts in this tick, by its share `amount`, times `ramp` in (0, 1] for a target with a curve."""

    amount: Curve
    ramp: float | None


@dataclass(frozen=True, eq=False)
class DCWPlan:
    """The wavelet correction in force; a neutral scaler is None."""

    mode: DCWMode
    a: Curve | None
    b: Curve | None
    wavelet: str


@dataclass(frozen=True, eq=False)
class SlotPlan:
    """One slot's part of a tick.

    Attributes:
        index: the slot's place in the ring.
        request: the request in the slot.
        step: number of the step, from 0.
        total: number of steps of the request.
        t: time before the step, in [0, 1].
        s: time after the step, below `t` or equal.
        positives: active positive conditions.
        negatives: active negative conditions whose rows run in this tick.
        path: path of the step.
        guidance: guidance in force, or None.
        velocity_scale: factor of the velocity; None where neutral.
        noise_injection: amount of fresh noise; None where neutral, at `s = 0` and on the SDE paths.
        sde_curve: share of the clean estimate on the path `sde_curve`, else None.
        mask_strength: factor of the latent mask, in [0, 1]; None where no mask acts.
        target: x0 target in force; None where no target acts.
        noise: purpose of the noise that the step reads, or None where the step reads none.
    """

    index: int
    request: Request
    step: int
    total: int
    t: float
    s: float
    positives: tuple[Condition, ...]
    negatives: tuple[Condition, ...]
    path: Path
    guidance: GuidancePlan | None
    velocity_scale: Curve | None
    noise_injection: Curve | None
    sde_curve: Curve | None
    mask_strength: float | None
    target: TargetPlan | None
    noise: Purpose | None

    @property
    def finishes(self) -> bool:
        """Say whether the step is the slot's last one."""
        return self.step + 1 == self.total


@dataclass(frozen=True)
class Unplanned:
    """A slot whose step cannot be planned, because a callback of its request failed; `detail` says how."""

    id: str | int
    index: int
    step: int
    detail: str


@dataclass(frozen=True)
class TickPlan:
    """Plan of a tick.

    Attributes:
        tick: the tick's number, from 0.
        admissions: the requests that enter the ring, oldest first.
        slots: the plan of each occupied place, in ring order.
        failed: the places whose request fails in this tick, in ring order.
        runs: the rows of each decoder run: every slot's positives in slot order, then every slot's negatives in slot
            order.
        dcw: wavelet correction after the step, or None.
        channel_gain: factor of the decoder's input, or None.
        gates: number of neutrality checks of curves.
    """

    tick: int
    admissions: tuple[Admission, ...]
    slots: tuple[SlotPlan, ...]
    failed: tuple[Unplanned, ...]
    runs: tuple[tuple[Row, ...], ...]
    dcw: DCWPlan | None
    channel_gain: Curve | None
    gates: int

    def counted(self, stats: Stats, *, own_stream: bool) -> Stats:
        """Count the tick, but for what it hands out.

        Args:
            stats: the counts before.
            own_stream: the executor has a stream of its own.
        """
        return replace(
            stats,
            ticks=self.tick + 1,
            admitted=stats.admitted + len(self.admissions) + sum(each.step == 0 for each in self.failed),
            decoder_runs=stats.decoder_runs + len(self.runs),
            decoder_rows=stats.decoder_rows + sum(len(rows) for rows in self.runs),
            joins=stats.joins + (len(self.runs) if own_stream else 0),
            euler_steps=stats.euler_steps + sum(p.path is Path.EULER for p in self.slots),
            gates=stats.gates + self.gates,
        )


def plan_tick(
    tick: int,
    ring: Sequence[Slot | None],
    queue: Sequence[Queued],
    controls: Controls,
    config: PipelineConfig,
    *,
    depth: int,
    max_rows: int,
) -> TickPlan:
    """Plan one tick.

    Args:
        tick: the tick's number.
        ring: the places, each a slot or None; at least `depth` places.
        queue: waiting requests, oldest first.
        controls: the live controls in force.
        config: the pipeline's configuration.
        depth: number of places that take new requests; a slot at a place beyond `depth` only finishes its request.
        max_rows: the executor's limit of rows in one run.
    """
    gate = CountedGate(ask_host if config.switches.host_gates else ask_tensor)
    entering = _entering(ring, queue, depth)
    slots: list[SlotPlan] = []
    failed: list[Unplanned] = []
    for index, held in enumerate(entering.get(index, slot) for index, slot in enumerate(ring)):
        if held is None:
            continue
        step = held.step if isinstance(held, Slot) else 0
        try:
            slots.append(_plan_slot(index, held.request, step, held.times, controls, config.solver, gate))
        except CallbackFailed as error:
            failed.append(Unplanned(held.id, index, step, str(error)))
    positives = [Row(p.index, n, c, False, p.t) for p in slots for n, c in enumerate(p.positives)]
    negatives = [Row(p.index, n, c, True, p.t) for p in slots for n, c in enumerate(p.negatives)]
    gain = controls.channel_gain
    return TickPlan(
        tick=tick,
        admissions=tuple(
            Admission(p.index, entering[p.index], masked=p.mask_strength is not None)
            for p in slots
            if p.index in entering
        ),
        slots=tuple(slots),
        failed=tuple(failed),
        runs=split_runs(positives, negatives, max_rows, fused=config.switches.fused_cfg),
        dcw=plan_dcw(controls.dcw, gate),
        channel_gain=None if gain is None or gate(gain, 1.0) else gain,
        gates=gate.asked,
    )


def plan_dcw(dcw: DCW | None, gate: Gate) -> DCWPlan | None:
    """Plan the wavelet correction; None where every scaler that the mode reads is neutral."""
    if dcw is None:
        return None
    mode = DCWMode(dcw.mode)
    read = dcw.scalers if mode is DCWMode.DOUBLE else dcw.scalers[:1]
    a, b, *_ = (*(None if gate(scaler, 0.0) else scaler for scaler in read), None)
    if a is None and b is None:
        return None
    return DCWPlan(mode, a, b, dcw.wavelet)


def active(conditions: Sequence[Condition], step: int, total: int) -> tuple[Condition, ...]:
    """Conditions whose step range holds `step`; the first condition where no range does; empty for no conditions."""
    found = tuple(c for c in conditions if c.is_active(step, total))
    return found or tuple(conditions[:1])


def _entering(ring: Sequence[Slot | None], queue: Sequence[Queued], depth: int) -> dict[int, Queued]:
    """Requests that enter the ring, by place, oldest first."""
    free = [index for index in range(depth) if ring[index] is None]
    return dict(zip(free, queue, strict=False))


def _acts(latent_mask: LatentMask | None, gate: Gate) -> bool:
    """Say whether a latent mask acts: with `strength_at` the mask always acts, without only where it is not neutral."""
    if latent_mask is None:
        return False
    return latent_mask.strength_at is not None or not gate(required(latent_mask.mask), 1.0)


def _plan_slot(
    index: int,
    request: Request,
    step: int,
    times: tuple[float, ...],
    controls: Controls,
    solver: Solver | str,
    gate: Gate,
) -> SlotPlan:
    total, t, s = len(times) - 1, times[step], times[step + 1]
    masked = _acts(request.latent_mask, gate)
    target = _plan_target(request, controls, step, total, gate) if t > 0.0 else None
    sde_curve = controls.in_force(SharedControl.SDE_CURVE, request, gate)
    path = _path(sde_curve, solver, edited=masked or target is not None)
    guidance = _plan_guidance(request, controls, step, gate)
    noise_injection = None
    if path in (Path.EULER, Path.EDITED) and s > 0.0:
        noise_injection = controls.in_force(SharedControl.NOISE_INJECTION, request, gate)
    return SlotPlan(
        index=index,
        request=request,
        step=step,
        total=total,
        t=t,
        s=s,
        positives=active(request.conditions, step, total),
        negatives=_negative_rows(request, guidance, step, total),
        path=path,
        guidance=guidance,
        velocity_scale=controls.in_force(SharedControl.VELOCITY_SCALE, request, gate),
        noise_injection=noise_injection,
        sde_curve=sde_curve,
        mask_strength=strength(request.latent_mask, step, total) if masked and request.latent_mask else None,
        target=target,
        noise=_noise(path, s, injects=noise_injection is not None, masked=masked),
    )


def _negative_rows(request: Request, guidance: GuidancePlan | None, step: int, total: int) -> tuple[Condition, ...]:
    if guidance is None or guidance.negative is not NegativeSource.ROWS:
        return ()
    return active(request.negatives, step, total)


def _plan_guidance(request: Request, controls: Controls, step: int, gate: Gate) -> GuidancePlan | None:
    own = request.guidance
    if own is None:
        return None
    mode = GuidanceMode(own.mode)
    scale = controls.in_force(SharedControl.GUIDANCE_SCALE, request, gate)
    momentum = controls.in_force(SharedControl.MOMENTUM, request, gate)
    return GuidancePlan(
        negative=mode.source_at(step),
        keeps=mode.keeps_first,
        scale=required(scale),
        momentum=required(momentum),
        rescale=controls.in_force(SharedControl.RESCALE, request, gate),
        norm_threshold=own.norm_threshold,
        eta=own.eta,
    )


def _plan_target(request: Request, controls: Controls, step: int, total: int, gate: Gate) -> TargetPlan | None:
    target = request.x0_target
    if target is None:
        return None
    gated = normal(target.curve)
    if gated is not None:
        ramp = blend.gate_ramp(step, total, target.gate)
        return TargetPlan(gated, ramp) if ramp > 0.0 else None
    if step < total // 2:
        return None
    strength = controls.in_force(SharedControl.X0_STRENGTH, request, gate)
    return None if strength is None else TargetPlan(strength, None)


def _path(sde_curve: Curve | None, solver: Solver | str, *, edited: bool) -> Path:
    if sde_curve is not None:
        return Path.SDE_CURVE
    if solver == Solver.SDE:
        return Path.SDE
    return Path.EDITED if edited else Path.EULER


def _noise(path: Path, s: float, *, injects: bool, masked: bool) -> Purpose | None:
    if s == 0.0:
        return None
    if path in (Path.SDE, Path.SDE_CURVE):
        return Purpose.MASK if masked else Purpose.STEP
    return Purpose.STEP if injects else None
