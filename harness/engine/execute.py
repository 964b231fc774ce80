"""Execution of a planned tick by tensor functions: gather, decoder runs, combine, step, correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from harness.engine import advance, kernels
from harness.engine.conditioning import Conditioner, ConditioningCache, build
from harness.engine.curve import Curve
from harness.engine.errors import WrongVelocity
from harness.engine.executors.base import Batch, Executor, declared, velocity_of
from harness.engine.executors.stream import joiner
from harness.engine.finite import Look, widened
from harness.engine.geometry import Geometry
from harness.engine.plan import Path, SlotPlan, TickPlan
from harness.engine.records import replace
from harness.engine.rows import Row
from harness.engine.slot import Slot
from harness.engine.switches import Integrator, Switches
from harness.engine.transfer import to_device


class Stage(StrEnum):
    """Stage of a tick in which a tensor is made, in the order of a tick."""

    GATHER = "gather"
    DECODER = "decoder"
    COMBINE = "combine"
    STEP = "step"
    DCW = "dcw"
    COMMIT = "commit"


Observer = Callable[[Stage, int, str, Tensor], None]
"""Function of `(stage, place in the ring, tensor's name, tensor)`; an observer that keeps the tensor must copy it."""


@dataclass(frozen=True, eq=False)
class Machinery:
    """The parts of a pipeline that run a tick.

    Attributes:
        executor: runs the decoder.
        conditioner: builds the conditioning of a run.
        encoder_length: number of tokens L that conditions are padded to.
        integrator: integration of slots on the plain Euler path; on a GPU also their guidance and correction.
        join: called between a decoder run and the first use of its output; see `executors.stream`.
        looks: list to which a look at the velocity of every run is added.
        observe: called with every tensor of every stage, or None.
    """

    executor: Executor
    conditioner: Conditioner
    encoder_length: int
    integrator: Integrator
    join: Callable[[], None]
    looks: list[Look]
    observe: Observer | None = None

    @classmethod
    def of(
        cls,
        executor: Executor,
        cache: ConditioningCache,
        geometry: Geometry | None,
        switches: Switches,
        looks: list[Look],
        observe: Observer | None,
    ) -> Machinery:
        """Put the parts of a pipeline together.

        Raises:
            TypeError: no geometry.
        """
        if geometry is None:
            raise TypeError("the ring has slots, but no request has fixed the geometry")
        return cls(
            executor=executor,
            conditioner=cache if switches.cached_conditioning else build,
            encoder_length=geometry.encoder_length,
            integrator=Integrator(switches.integrator),
            join=joiner(executor, joined=switches.joined_stream),
            looks=looks,
            observe=observe,
        )

    def groups(self, plans: list[SlotPlan]) -> list[list[SlotPlan]]:
        """Slots that share a launch of a kernel: all, or on the plain path each alone."""
        if self.integrator is Integrator.FOREACH:
            return [plans] if plans else []
        return [[p] for p in plans]

    def saw(self, stage: Stage, index: int, name: str, tensor: Tensor) -> None:
        """Call the observer, if there is one."""
        if self.observe is not None:
            self.observe(stage, index, name, tensor)


def execute(plan: TickPlan, slots: Mapping[int, Slot], machinery: Machinery) -> dict[int, Slot]:
    """Run a planned tick; return every slot after the tick, by place.

    Args:
        plan: the plan of the tick.
        slots: the planned slots by place, the admitted ones included; not modified.
        machinery: executor, conditioner and settings.

    Raises:
        WrongVelocity: the executor's output is no floating tensor of its input's shape, or has another dtype than the
            executor declares. The message names the requests of the run and their steps.
    """
    states = {p.index: advance.blended_state(p, slots[p.index]) for p in plan.slots}
    positives, negatives = _velocities(plan, slots, states, machinery)
    combined = _combine(plan, slots, positives, negatives, machinery)
    for index, c in combined.items():
        for name, tensor in c.tensors().items():
            machinery.saw(Stage.COMBINE, index, name, tensor)
    velocities = {index: c.velocity for index, c in combined.items()}
    stepped = _step(plan, slots, states, velocities, machinery)
    corrected = _correct(plan, states, velocities, stepped, machinery)
    moved = {}
    for p in plan.slots:
        x = corrected[p.index]
        machinery.saw(Stage.DCW, p.index, "x", x)
        c = combined[p.index]
        moved[p.index] = replace(slots[p.index], step=p.step + 1, x=x, average=c.average, kept_negative=c.kept_negative)
    return moved


def observed(observe: Observer | None, moved: Mapping[int, Slot]) -> None:
    """Call the observer, if there is one, with the state of every slot after a tick."""
    if observe is None:
        return
    for index, slot in moved.items():
        for name, tensor in slot.state().items():
            observe(Stage.COMMIT, index, name, tensor)


def _velocities(
    plan: TickPlan, slots: Mapping[int, Slot], states: Mapping[int, Tensor], machinery: Machinery
) -> tuple[dict[int, list[Tensor]], dict[int, list[Tensor]]]:
    positives: dict[int, list[Tensor]] = {p.index: [] for p in plan.slots}
    negatives: dict[int, list[Tensor]] = {p.index: [] for p in plan.slots}
    requests = {p.index: p for p in plan.slots}
    inputs = {index: _decoder_input(x, plan.channel_gain) for index, x in states.items()}
    for number, rows in enumerate(plan.runs):
        batch = _gather(rows, requests, inputs, machinery)
        try:
            made = machinery.executor.run(batch)
            out = velocity_of(made, batch.hidden_states.shape, declared(machinery.executor).dtype)
        except WrongVelocity as error:
            raise WrongVelocity(f"{error}; its rows are of {_of(rows, slots)}") from error
        machinery.join()
        # Copy where another run follows: that run may overwrite the output's buffer, and a cast from float32 to float32
        # copies nothing.
        velocity, seen = widened(rows, out, copy=number + 1 < len(plan.runs))
        machinery.looks.append(seen)
        for position, row in enumerate(rows):
            v = velocity[position : position + 1]
            (negatives if row.negative else positives)[row.index].append(v)
            machinery.saw(Stage.DECODER, row.index, row.name, v)
    return positives, negatives


def _of(rows: tuple[Row, ...], slots: Mapping[int, Slot]) -> str:
    """The requests of a run's rows with their steps, in words."""
    return ", ".join(f"request {slots[i].id!r} at step {slots[i].step}" for i in dict.fromkeys(r.index for r in rows))


def _decoder_input(x: Tensor, gain: Curve | None) -> Tensor:
    return x if gain is None else x * gain.values


def _gather(
    rows: tuple[Row, ...], plans: Mapping[int, SlotPlan], inputs: Mapping[int, Tensor], machinery: Machinery
) -> Batch:
    contexts = [plans[row.index].request.context_latents for row in rows]
    made = machinery.conditioner([row.condition for row in rows], contexts, machinery.encoder_length)
    hidden_states = torch.cat([inputs[row.index] for row in rows])
    timestep = torch.tensor([row.t for row in rows], dtype=torch.float32, device="cpu")
    batch = Batch(
        hidden_states=hidden_states,
        timestep=to_device(timestep, hidden_states.device, read_here=True),
        encoder_hidden_states=made.encoder_hidden_states,
        encoder_mask=made.encoder_mask,
        context_latents=made.context_latents,
    )
    if machinery.observe is not None:
        for position, row in enumerate(rows):
            for name, tensor in batch.tensors().items():
                machinery.saw(Stage.GATHER, row.index, f"{row.name}.{name}", tensor[position : position + 1])
    return batch


def _combine(
    plan: TickPlan,
    slots: Mapping[int, Slot],
    positives: Mapping[int, list[Tensor]],
    negatives: Mapping[int, list[Tensor]],
    machinery: Machinery,
) -> dict[int, advance.Combined]:
    """Combine the velocities of every slot. On a GPU one launch guides all of them, or the plain twin each of them."""
    in_kernels = [p for p in plan.slots if p.guidance is not None and kernels.here(slots[p.index].x.device)]
    guide = kernels.guide if machinery.integrator is Integrator.FOREACH else kernels.plain.guide
    combined: dict[int, advance.Combined] = {}
    for group in machinery.groups(in_kernels):
        read = [advance.guided(p, slots[p.index], positives[p.index], negatives[p.index]) for p in group]
        made = guide([each for each, _kept in read])
        for p, (_each, kept), (velocity, average) in zip(group, read, made, strict=True):
            combined[p.index] = advance.Combined(velocity, average, kept)
    for p in plan.slots:
        if p.index not in combined:
            combined[p.index] = advance.combine(p, slots[p.index], positives[p.index], negatives[p.index])
    return {p.index: combined[p.index] for p in plan.slots}


def _correct(
    plan: TickPlan,
    states: Mapping[int, Tensor],
    velocities: Mapping[int, Tensor],
    stepped: Mapping[int, Tensor],
    machinery: Machinery,
) -> dict[int, Tensor]:
    """Apply the wavelet correction to every slot; on a GPU to all in one launch, or by the plain twin."""
    dcw, corrected = plan.dcw, dict(stepped)
    if dcw is None:
        return corrected
    acting = [p for p in plan.slots if p.t != 0.0]
    in_kernels = [p for p in acting if dcw.wavelet == "haar" and kernels.here(stepped[p.index].device)]
    correct = kernels.correct if machinery.integrator is Integrator.FOREACH else kernels.plain.correct
    for group in machinery.groups(in_kernels):
        of = [(p, states[p.index], velocities[p.index], stepped[p.index]) for p in group]
        made = correct([advance.in_haar_domain(p, dcw, *tensors) for p, *tensors in of])
        corrected |= {p.index: x for p, x in zip(group, made, strict=True)}
    for p in acting if not in_kernels else ():
        corrected[p.index] = advance.corrected(p, dcw, states[p.index], velocities[p.index], stepped[p.index])
    return corrected


def _step(
    plan: TickPlan,
    slots: Mapping[int, Slot],
    states: Mapping[int, Tensor],
    velocities: Mapping[int, Tensor],
    machinery: Machinery,
) -> dict[int, Tensor]:
    together = [p for p in plan.slots if p.path is Path.EULER] if machinery.integrator is Integrator.FOREACH else []
    stepped = _step_together(together, states, velocities) if together else {}
    for p in plan.slots:
        if p.index not in stepped:
            stepped[p.index] = advance.step(p, slots[p.index], states[p.index], velocities[p.index])
        machinery.saw(Stage.STEP, p.index, "x", stepped[p.index])
    return stepped


def _step_together(
    plans: list[SlotPlan], states: Mapping[int, Tensor], velocities: Mapping[int, Tensor]
) -> dict[int, Tensor]:
    """Euler step of many slots in two launches; the reference is `advance.step` on the Euler path, slot by slot.

    Scalars stay on the host and nothing is concatenated. The product and the sum are rounded separately, as in
    `solver.euler`; `alpha=` would fuse them.
    """
    scaled = [advance.scaled(p, velocities[p.index]) for p in plans]
    moves = torch._foreach_mul(scaled, [p.s - p.t for p in plans])  # noqa: SLF001 torch's only name for it
    moved = torch._foreach_add([states[p.index] for p in plans], moves)  # noqa: SLF001 torch's only name for it
    return {p.index: advance.injected(p, x) for p, x in zip(plans, moved, strict=True)}
