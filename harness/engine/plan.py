"""What a tick does, decided on the host: who is admitted, which rows run when, which path each slot takes.

Nothing here makes or reads a tensor, with one exception: with the switch `host_gates` off, whether a curve is neutral
is asked of the tensor, as a twin of the recorded fact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.engine import blend
from harness.engine.config import DCW, PipelineConfig, Solver
from harness.engine.controls import Controls, SharedControl
from harness.engine.curve import Curve, ask_host, ask_tensor
from harness.engine.noise import Purpose
from harness.engine.request import Condition, GuidanceMode, LatentMask, Request, X0Target, normal, required
from harness.engine.slot import Slot
from harness.engine.wavelet import DCWMode

Gate = Callable[[Curve, float], bool]
"""`(curve, neutral value)` to whether the curve is neutral."""


class CountedGate:
    """A gate that counts how often it was asked."""

    def __init__(self, gate: Gate) -> None:
        """Count the questions to `gate`."""
        self._gate = gate
        self.asked = 0

    def __call__(self, curve: Curve, neutral: float) -> bool:
        """What the gate says."""
        self.asked += 1
        return self._gate(curve, neutral)


class Path(StrEnum):
    """How a slot steps; see `harness.engine.solver`."""

    EULER = "euler"
    EDITED = "edited"
    SDE = "sde"
    SDE_CURVE = "sde_curve"


@dataclass(frozen=True)
class Queued:
    """A submitted request that waits for a slot, with its schedule: `total + 1` times."""

    id: str | int
    request: Request
    times: tuple[float, ...]


@dataclass(frozen=True)
class Admission:
    """A queued request that enters the ring this tick at place `index`; `masked` if its latent mask will ever act."""

    index: int
    queued: Queued
    masked: bool


@dataclass(frozen=True, eq=False)
class GuidancePlan:
    """A slot's guidance this tick, its curves resolved; `rescale` is None where it is neutral."""

    mode: GuidanceMode
    scale: Curve
    momentum: Curve
    rescale: Curve | None
    norm_threshold: float | None
    eta: float


@dataclass(frozen=True, eq=False)
class TargetPlan:
    """An x0 target that acts this tick: with `amount`, times `ramp` where the target is gated."""

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
    """What one slot does this tick.

    Attributes:
        index: its place in the ring.
        request: the request in it.
        step: which step, from 0.
        total: of how many.
        t: time before the step.
        s: time after it.
        positives: active positive conditions.
        negatives: active negative conditions whose rows run this tick.
        path: how it steps.
        guidance: or None.
        velocity_scale: None where neutral.
        noise_injection: None where neutral, at `s = 0` and on the SDE paths.
        sde_curve: on the path of that name, else None.
        mask_strength: factor of the latent mask in force, or None where no mask acts.
        target: None where nothing moves the clean estimate.
        noise: which noise the step reads: None, the step's own, or the latent mask's.
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
        """Whether this is the slot's last step."""
        return self.step + 1 == self.total


@dataclass(frozen=True)
class Row:
    """One row of a decoder run: the `number`-th active condition of its sign of the slot at place `index`, at `t`."""

    index: int
    number: int
    condition: Condition
    negative: bool
    t: float

    @property
    def name(self) -> str:
        """What it is called in its slot: `positive[0]`."""
        return f"{'negative' if self.negative else 'positive'}[{self.number}]"


@dataclass(frozen=True)
class TickPlan:
    """What a tick does.

    Attributes:
        tick: the tick's number, from 0.
        admissions: who enters the ring, oldest first.
        slots: every occupied place in ring order.
        runs: the rows of each decoder run. Rows are every slot's positives in slot order, then every slot's
            negatives in slot order.
        dcw: the correction after the step, or None.
        channel_gain: factor of the decoder's input, or None.
        gates: how often it was asked whether a curve is neutral.
    """

    tick: int
    admissions: tuple[Admission, ...]
    slots: tuple[SlotPlan, ...]
    runs: tuple[tuple[Row, ...], ...]
    dcw: DCWPlan | None
    channel_gain: Curve | None
    gates: int


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
        ring: the places, occupied or None; at least `depth` of them.
        queue: waiting requests, oldest first.
        controls: the live controls in force.
        config: the pipeline's configuration.
        depth: how many places take new requests; places beyond it finish what they hold.
        max_rows: the executor's ceiling for one run.
    """
    gate = CountedGate(ask_host if config.switches.host_gates else ask_tensor)
    admissions = _admissions(ring, queue, depth, gate)
    entering = {a.index: a.queued for a in admissions}
    slots: list[SlotPlan] = []
    for index, slot in enumerate(ring):
        if slot is not None:
            slots.append(_plan_slot(index, slot.request, slot.step, slot.times, controls, config.solver, gate))
        elif index in entering:
            queued = entering[index]
            slots.append(_plan_slot(index, queued.request, 0, queued.times, controls, config.solver, gate))
    positives = [Row(p.index, n, c, False, p.t) for p in slots for n, c in enumerate(p.positives)]
    negatives = [Row(p.index, n, c, True, p.t) for p in slots for n, c in enumerate(p.negatives)]
    gain = controls.channel_gain
    return TickPlan(
        tick=tick,
        admissions=admissions,
        slots=tuple(slots),
        runs=split_runs(positives, negatives, max_rows, fused=config.switches.fused_cfg),
        dcw=plan_dcw(controls.dcw, gate),
        channel_gain=None if gain is None or gate(gain, 1.0) else gain,
        gates=gate.asked,
    )


def split_runs(
    positives: Sequence[Row], negatives: Sequence[Row], max_rows: int, *, fused: bool
) -> tuple[tuple[Row, ...], ...]:
    """The rows of each decoder run.

    Fused, all rows run at once where they fit. Otherwise the positive pass is followed by the negative one, each in as
    many runs as it takes.
    """
    if fused and len(positives) + len(negatives) <= max_rows:
        return (tuple([*positives, *negatives]),) if positives else ()
    return tuple(
        tuple(rows[start : start + max_rows])
        for rows in (positives, negatives)
        for start in range(0, len(rows), max_rows)
    )


def plan_dcw(dcw: DCW | None, gate: Gate) -> DCWPlan | None:
    """The correction in force, or None where every scaler that its mode reads is neutral."""
    if dcw is None:
        return None
    mode = DCWMode(dcw.mode)
    read = dcw.scalers if mode is DCWMode.DOUBLE else dcw.scalers[:1]
    a, b, *_ = (*(None if gate(scaler, 0.0) else scaler for scaler in read), None)
    if a is None and b is None:
        return None
    return DCWPlan(mode, a, b, dcw.wavelet)


def active(conditions: Sequence[Condition], step: int, total: int) -> tuple[Condition, ...]:
    """The conditions whose range holds `step`; the first one where none does; none of none."""
    found = tuple(c for c in conditions if c.is_active(step, total))
    return found or tuple(conditions[:1])


def _admissions(ring: Sequence[Slot | None], queue: Sequence[Queued], depth: int, gate: Gate) -> tuple[Admission, ...]:
    free = [index for index in range(depth) if ring[index] is None]
    return tuple(
        Admission(index, queued, _acts(queued.request.latent_mask, gate))
        for index, queued in zip(free, queue, strict=False)
    )


def _acts(latent_mask: LatentMask | None, gate: Gate) -> bool:
    """Whether a latent mask acts at any step: one with a strength of its own always may."""
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
    shared = controls.shared
    mask_strength = _mask_strength(request.latent_mask, step, total, gate)
    target = _plan_target(request.x0_target, shared, step, total, gate) if t > 0.0 else None
    sde_curve = _sde_curve(request, shared)
    path = _path(sde_curve, solver, edited=mask_strength is not None or target is not None)
    noise_injection = None
    if path in (Path.EULER, Path.EDITED) and s > 0.0:
        own = normal(request.noise_injection)
        noise_injection = _unless(0.0, shared.get(SharedControl.NOISE_INJECTION, own), gate)
    return SlotPlan(
        index=index,
        request=request,
        step=step,
        total=total,
        t=t,
        s=s,
        positives=active(request.conditions, step, total),
        negatives=_negative_rows(request, step, total),
        path=path,
        guidance=_plan_guidance(request, shared, gate),
        velocity_scale=_unless(1.0, shared.get(SharedControl.VELOCITY_SCALE, normal(request.velocity_scale)), gate),
        noise_injection=noise_injection,
        sde_curve=sde_curve,
        mask_strength=mask_strength,
        target=target,
        noise=_noise(path, s, injects=noise_injection is not None, masked=mask_strength is not None),
    )


def _unless(neutral: float, curve: Curve | None, gate: Gate) -> Curve | None:
    return None if curve is None or gate(curve, neutral) else curve


def _negative_rows(request: Request, step: int, total: int) -> tuple[Condition, ...]:
    if request.guidance is None or request.guidance.mode == GuidanceMode.SELF:
        return ()
    if request.guidance.mode == GuidanceMode.INITIALIZE and step > 0:
        return ()
    return active(request.guidance.negatives, step, total)


def _plan_guidance(request: Request, shared: Mapping[SharedControl, Curve], gate: Gate) -> GuidancePlan | None:
    own = request.guidance
    if own is None:
        return None
    return GuidancePlan(
        mode=GuidanceMode(own.mode),
        scale=shared.get(SharedControl.GUIDANCE_SCALE, required(own.scale)),
        momentum=shared.get(SharedControl.MOMENTUM, required(own.momentum)),
        rescale=_unless(0.0, shared.get(SharedControl.RESCALE, normal(own.rescale)), gate),
        norm_threshold=own.norm_threshold,
        eta=own.eta,
    )


def _mask_strength(latent_mask: LatentMask | None, step: int, total: int, gate: Gate) -> float | None:
    if latent_mask is None or not _acts(latent_mask, gate):
        return None
    return latent_mask.strength_in_force(step, total)


def _plan_target(
    target: X0Target | None, shared: Mapping[SharedControl, Curve], step: int, total: int, gate: Gate
) -> TargetPlan | None:
    if target is None:
        return None
    gated = normal(target.curve)
    if gated is not None:
        ramp = blend.gate_ramp(step, total, target.gate)
        return TargetPlan(gated, ramp) if ramp > 0.0 else None
    if step < total // 2:
        return None
    strength = _unless(0.0, shared.get(SharedControl.X0_STRENGTH, required(target.strength)), gate)
    return None if strength is None else TargetPlan(strength, None)


def _sde_curve(request: Request, shared: Mapping[SharedControl, Curve]) -> Curve | None:
    if request.stand_in_source is None:
        return None
    return shared.get(SharedControl.SDE_CURVE, normal(request.sde_curve))


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
