"""Features of a run, and which of them a run brings together.

Two features are *together* if there is a slot and a tick in which both are in force: the slot's request has the feature
and it acts at that step, or the ring has the feature in that tick, or the feature is an event that happened since the
tick that admitted the slot. Two features of one script that never meet in a slot are not together.

What is in force is read off the plan of each tick. No decoder runs and no latent is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from torch import Tensor

from harness.engine.conditioning import source_key
from harness.engine.config import DCW, PipelineConfig, Solver
from harness.engine.controls import SharedControl
from harness.engine.curve import Curve, CurveLike
from harness.engine.executors.base import Batch, ExecutorStream
from harness.engine.finite import Look
from harness.engine.geometry import Geometry
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.pipeline import StreamPipeline
from harness.engine.plan import Admission, SlotPlan, TickPlan
from harness.engine.request import Condition, Request, normal
from harness.engine.results import Dropped, DropReason, Submission
from harness.engine.slot import Slot
from harness.engine.switches import SWITCHES, Switches
from harness.engine.wavelet import DCWMode
from harness.parity.battery.scripts import Script
from harness.registry import LIVE

Pair = frozenset[str]
"""Two features."""

UNGUIDED = "no guidance"
CHANGED = "changed in flight"
DROPPED, REWRITTEN = "queue dropped in flight", "condition rewritten in flight"


def _forms(name: object, *forms: str) -> tuple[str, ...]:
    return tuple(f"{name}: {form}" for form in forms)


_CURVED = ("number", "curve")
GROUPS: tuple[tuple[str, ...], ...] = (
    *(_forms(control, *_CURVED, "live") for control in SharedControl),
    *(_forms(name, *_CURVED) for name in ("initial_noise", "gated target", "latent mask")),
    (UNGUIDED, *_forms("guidance", *GuidanceMode)),
    _forms("solver", *Solver),
    _forms("steps", "1", "odd", "even"),
    _forms("depth", "1", "several"),
    _forms("denoise", "partial", "0"),
    _forms("conditions", "1", "several"),
    _forms("runs", "1", "2", "more"),
    _forms("wavelets", *DCWMode),
    _forms("executor", *LIVE),
    _forms("rows", "free", "pinned"),
    *(_forms(switch, "on", "off") for switch in SWITCHES),
)
"""Features that exclude each other, a group each."""

_WEIGHTS = _forms("condition's weight", *_CURVED)
SINGLE = (
    *_WEIGHTS,
    *(f"{name} {CHANGED}" for name in (*SharedControl, "wavelets", "gain", "depth")),
    DROPPED, REWRITTEN, "after another length", "beside another prompt", "beside another step", "channel gain",
    "wavelets by frame", "fading mask", "own source", "step range", "caller's mask", "several negatives", "eta",
    "no threshold",
)  # fmt: skip
FEATURES: tuple[str, ...] = (*(name for group in GROUPS for name in group), *SINGLE)
"""Every feature."""


class Watched(StreamPipeline):
    """A pipeline that admits, plans and hands out as any other, but computes nothing; it notes what comes together.

    Args:
        config: the pipeline's configuration.
        max_rows: largest number of rows of one run.
        kinds: kinds of the executors that would run the same ticks.
        pinned: the rows of a run are pinned.

    Attributes:
        moments: features in force, one set for each slot and tick; equal sets are kept once.
    """

    def __init__(
        self, config: PipelineConfig, max_rows: int, kinds: Sequence[str] = ("eager",), *, pinned: bool = False
    ) -> None:
        super().__init__(_Idle(max_rows), config)
        self.moments: set[frozenset[str]] = set()
        self._kinds = [f"executor: {kind}" for kind in kinds]
        self._always = [
            f"rows: {'pinned' if pinned else 'free'}",
            f"solver: {config.solver}",
            *(f"{n}: {'off' if getattr(config.switches, n) == s.plain else 'on'}" for n, s in SWITCHES.items()),
        ]
        self._events: list[tuple[int, str]] = []
        self._sources: dict[tuple[str | int, int], object] = {}
        self._other_length = False

    def submit(self, request: Request) -> Submission:
        """See `StreamPipeline.submit`."""
        submission = super().submit(request)
        reasons = {dropped.reason for dropped in submission.dropped}
        self._other_length |= DropReason.LENGTH_CHANGED in reasons
        if DropReason.QUEUE_FULL in reasons:
            self._note(DROPPED)
        return submission

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """See `StreamPipeline.set_shared_curve`."""
        if value is not None or name in self._state.controls.shared:
            self._note(f"{name} {CHANGED}")
        super().set_shared_curve(name, value)

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """See `StreamPipeline.set_channel_gain`."""
        if gain is not None or self._state.controls.channel_gain is not None:
            self._note(f"gain {CHANGED}")
        super().set_channel_gain(gain)

    def set_dcw(self, dcw: DCW | None) -> None:
        """See `StreamPipeline.set_dcw`."""
        if dcw is not self._state.controls.dcw:
            self._note(f"wavelets {CHANGED}")
        super().set_dcw(dcw)

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        """See `StreamPipeline.set_depth`."""
        if depth != self.depth:
            self._note(f"depth {CHANGED}")
        dropped = super().set_depth(depth)
        if dropped:
            self._note(DROPPED)
        return dropped

    def _admitted(self, admission: Admission, tick: int) -> Slot:
        q = admission.queued
        self._sources[q.id, tick] = _sources(q.request)
        return _empty(q.id, q.request, q.times, tick)

    def _moved(
        self, plan: TickPlan, slots: Mapping[int, Slot], geometry: Geometry | None, looks: list[Look]
    ) -> dict[int, Slot]:
        """Move every slot one step without computing its latent; note what is in force for each slot."""
        del geometry, looks
        ring = frozenset([*self._always, *self._of_tick(plan)])
        for p in plan.slots:
            seen = ring.union(self._of_slot(p), self._of_life(slots[p.index]))
            self.moments |= {seen | {kind} for kind in self._kinds}
        return {index: replace(slot, step=slot.step + 1) for index, slot in slots.items()}

    def _note(self, event: str) -> None:
        self._events.append((self.stats().ticks, event))

    def _of_tick(self, plan: TickPlan) -> Iterator[str]:
        yield f"depth: {'1' if self.depth == 1 else 'several'}"
        yield f"runs: {len(plan.runs) if len(plan.runs) < 3 else 'more'}"
        if plan.channel_gain is not None:
            yield "channel gain"
        if len({tuple(map(id, p.request.conditions)) for p in plan.slots}) > 1:
            yield "beside another prompt"
        if len({p.step for p in plan.slots}) > 1:
            yield "beside another step"
        if self._other_length:
            yield "after another length"

    def _of_life(self, slot: Slot) -> Iterator[str]:
        """Events since the tick that admitted the slot; a control's event where the control acts on the request."""
        idle = {f"{control} {CHANGED}" for control in SharedControl if not control.acts_on(slot.request)}
        yield from {event for tick, event in self._events if tick > slot.admitted_at} - idle
        if self._sources[slot.id, slot.admitted_at] != _sources(slot.request):
            yield REWRITTEN

    def _of_slot(self, p: SlotPlan) -> Iterator[str]:
        for control, held in _in_force(p).items():
            if held is not None:
                yield f"{control}: {'live' if control in self._state.controls.shared else _form(held)}"
        yield f"steps: {p.total if p.total == 1 else ('even', 'odd')[p.total % 2]}"
        yield from _of_request(p.request, p)
        dcw = self._state.controls.dcw
        if dcw is not None and p.t > 0.0 and not all(scaler.is_everywhere(0.0) for scaler in dcw.scalers):
            yield f"wavelets: {dcw.mode}"
            if any(_form(scaler) == "curve" for scaler in dcw.scalers):
                yield "wavelets by frame"


class _Idle:
    """An executor that is never run."""

    takes_mask = True

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.stream: ExecutorStream | None = None

    def run(self, batch: Batch) -> Tensor:
        raise TypeError(f"a watched pipeline ran a batch of {batch.rows} rows")

    def close(self) -> None:
        pass


def watch(
    script: Script,
    switches: Switches | None = None,
    kinds: Sequence[str] = ("eager",),
    max_rows: int = 8,
    *,
    pinned: bool = False,
) -> set[frozenset[str]]:
    """Return the features that a script brings together: one set for each slot and tick.

    Args:
        script: the script.
        switches: switches of the pipeline; None is the default.
        kinds: kinds of the executors that would run the script.
        max_rows: largest number of rows of one run.
        pinned: the rows of a run are pinned.
    """
    watched = Watched(script.config(switches), max_rows, kinds, pinned=pinned)
    script.play(watched)
    return watched.moments


def pairs(moments: Iterable[frozenset[str]]) -> set[Pair]:
    """Return the pairs of features that are together in some moment."""
    place = {name: number for number, name in enumerate(FEATURES)}
    listed = list(moments)
    held = np.zeros((len(listed), len(FEATURES)), dtype=np.float32)
    for row, moment in enumerate(listed):
        held[row, [place[name] for name in moment]] = 1.0
    first, second = np.nonzero(np.triu(held.T @ held, 1))
    return {frozenset((FEATURES[i], FEATURES[j])) for i, j in zip(first, second, strict=True)}


def _in_force(p: SlotPlan) -> Mapping[SharedControl, Curve | None]:
    guided, target = p.guidance, p.target
    return {
        SharedControl.VELOCITY_SCALE: p.velocity_scale,
        SharedControl.NOISE_INJECTION: p.noise_injection,
        SharedControl.SDE_CURVE: p.sde_curve,
        SharedControl.GUIDANCE_SCALE: None if guided is None else guided.scale,
        SharedControl.MOMENTUM: None if guided is None else guided.momentum,
        SharedControl.RESCALE: None if guided is None else guided.rescale,
        SharedControl.X0_STRENGTH: target.amount if target is not None and target.ramp is None else None,
    }


def _of_request(request: Request, p: SlotPlan) -> Iterator[str]:
    yield from _of_start(request)
    yield from _of_conditions(p.positives)
    if any(condition.step_range is not None for condition in request.conditions):
        yield "step range"
    guided = request.guidance
    yield UNGUIDED if guided is None else f"guidance: {guided.mode}"
    if guided is not None:
        named = {"eta": guided.eta != 0.0, "no threshold": guided.norm_threshold is None}
        yield from (name for name, holds in named.items() if holds)
        if len(p.negatives) > 1:
            yield "several negatives"
    if p.target is not None and p.target.ramp is not None:
        yield f"gated target: {_form(p.target.amount)}"
    mask = request.latent_mask
    if mask is not None and p.mask_strength is not None:
        yield f"latent mask: {_form(normal(mask.mask))}"
        if mask.strength_at is not None:
            yield "fading mask"


def _of_start(request: Request) -> Iterator[str]:
    if request.source is not None:
        yield "own source"
    if request.initial_noise is not None:
        yield f"initial_noise: {_form(normal(request.initial_noise))}"
    if request.denoise < 1.0:
        yield f"denoise: {'partial' if request.denoise else '0'}"


def _of_conditions(conditions: Sequence[Condition]) -> Iterator[str]:
    """Features of the conditions that are active; a weight counts where there is another one to weigh against."""
    yield f"conditions: {'1' if len(conditions) == 1 else 'several'}"
    weights = [normal(condition.temporal_weight) for condition in conditions]
    if len(conditions) > 1:
        yield from {f"condition's weight: {_form(weight)}" for weight in weights if weight is not None}
    if any(condition.encoder_mask is not None for condition in conditions):
        yield "caller's mask"


def _form(held: Curve | None) -> str:
    return "curve" if held is not None and held.frames is not None else "number"


def _sources(request: Request) -> object:
    return [source_key(condition.encoder_hidden_states) for condition in (*request.conditions, *request.negatives)]


def _empty(id: str | int, request: Request, times: tuple[float, ...], tick: int) -> Slot:
    return Slot(id, request, tick, times, 0, request.context_latents[:, :, : request.channels], None, None, None, None)


# Pairs that cannot be together, each rule with its reason.

_IN_FLIGHT = tuple(name for name in FEATURES if name.endswith("in flight"))
_SHARED_OF_GUIDANCE = (SharedControl.GUIDANCE_SCALE, SharedControl.MOMENTUM, SharedControl.RESCALE)
_INJECTED = _forms(SharedControl.NOISE_INJECTION, *_CURVED, "live")
_STRENGTH = _forms(SharedControl.X0_STRENGTH, *_CURVED, "live")
_GATED = _forms("gated target", *_CURVED)
_WAVELETS = (*_forms("wavelets", *DCWMode), "wavelets by frame")

RULES: tuple[tuple[Sequence[str], Sequence[str], str], ...] = (
    *((group, group, "they exclude each other") for group in GROUPS),
    ((UNGUIDED,), _forms(SharedControl.GUIDANCE_SCALE, *_CURVED, "live"), "no guidance, no scale"),
    ((UNGUIDED,), _forms(SharedControl.MOMENTUM, *_CURVED, "live"), "no guidance, no momentum"),
    ((UNGUIDED,), _forms(SharedControl.RESCALE, *_CURVED, "live"), "no guidance, no rescale"),
    ((UNGUIDED,), [f"{c} {CHANGED}" for c in _SHARED_OF_GUIDANCE], "these controls act on guided slots alone"),
    ((UNGUIDED,), ("several negatives", "eta", "no threshold"), "fields of the guidance"),
    (("guidance: self",), ("several negatives",), "no negative row runs"),
    (("steps: 1",), _IN_FLIGHT, "the tick that admits the slot also finishes it"),
    (("steps: 1",), (*_INJECTED, *_GATED), "at the only step s is 0, and a gate's ramp is 0"),
    (_INJECTED, ("solver: sde",), "noise is injected after Euler steps alone"),
    (_INJECTED, _forms(SharedControl.SDE_CURVE, *_CURVED, "live"), "noise is injected after Euler steps alone"),
    (_GATED, (*_STRENGTH, f"{SharedControl.X0_STRENGTH} {CHANGED}"), "a target has a gated curve or a strength"),
    (("conditions: 1",), _WEIGHTS, "an only condition is not weighed"),
    (("denoise: 0",), ("steps: odd", "steps: even", *_IN_FLIGHT), "there is one step"),
    (("denoise: 0",), (*_INJECTED, *_GATED, *_STRENGTH, *_WAVELETS), "its step is at time 0, where these do not act"),
)
"""`(these, those, why)`: no feature of `these` can be together with one of `those`."""

IMPOSSIBLE: frozenset[Pair] = frozenset(
    frozenset((one, other)) for these, those, _ in RULES for one in these for other in those if one != other
)
POSSIBLE: frozenset[Pair] = frozenset(map(frozenset, combinations(FEATURES, 2))) - IMPOSSIBLE
"""The pairs that coverage is measured on."""
