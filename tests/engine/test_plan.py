from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.engine import DCW, Guidance, LatentMask, PipelineConfig, Request, Switches, X0Target
from harness.engine.controls import Controls
from harness.engine.curve import curve
from harness.engine.noise import Purpose
from harness.engine.plan import Path, Queued, SlotPlan, TickPlan, plan_tick
from harness.engine.schedule import timesteps
from harness.engine.slot import Slot, admit
from tests.engine.builders import T, condition, fixed, pipeline, request

STEPS = 8


def at(step: int, made: Request) -> Slot:
    first = admit(made.id, made, timesteps(STEPS, made.denoise), 0, masked=made.latent_mask is not None)
    return Slot(**{**vars(first), "step": step})


def controls(**shared: Any) -> Controls:
    return Controls({name: curve(name, value) for name, value in shared.items()})


def planned(*ring: Slot | None, max_rows: int = 8, gates: bool = True, solver: str = "ode", **more: Any) -> TickPlan:
    config = PipelineConfig(
        steps=STEPS, solver=solver, switches=Switches(host_gates=gates, fused_cfg=more.pop("fused", True))
    )
    held = more.pop("controls", controls())
    return plan_tick(
        0, ring, more.pop("queue", ()), held, config, depth=more.pop("depth", len(ring)), max_rows=max_rows
    )


def slot(step: int = 0, shared: Controls | None = None, **fields: Any) -> SlotPlan:
    solver = fields.pop("solver", "ode")
    return planned(at(step, request(**fields)), controls=shared or controls(), solver=solver).slots[0]


def guided(seed: int, mode: str = "full", negatives: int = 1) -> Request:
    rows = [condition(seed), condition(seed + 10)]
    return request(seed, conditions=rows, guidance=Guidance(2.0, [condition(90)] * negatives, mode))


def sizes(plan: TickPlan) -> list[list[tuple[int, bool]]]:
    return [[(row.index, row.negative) for row in rows] for rows in plan.runs]


@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize(
    ("mask", "masked"),
    [
        (None, False),
        (LatentMask(1.0, fixed(5)), False),
        (LatentMask(0.5, fixed(5)), True),
        (LatentMask(1.0, fixed(5), lambda step, total: 1.0), True),
    ],
    ids=["none", "neutral", "half", "with a strength"],
)
def test_an_admission_says_whether_the_latent_mask_will_ever_act(
    gates: bool, mask: LatentMask | None, masked: bool
) -> None:
    queue = (Queued(1, request(1, latent_mask=mask), timesteps(STEPS)),)
    (admission,) = planned(None, queue=queue, gates=gates).admissions
    assert admission.masked is masked


def test_a_plan_counts_the_questions_that_its_gates_were_asked() -> None:
    assert planned(at(0, request())).gates == 0
    assert planned(at(0, request(velocity_scale=1.0, noise_injection=0.5))).gates == 2


def test_positives_come_in_slot_order_before_the_negatives() -> None:
    plan = planned(at(0, guided(1)), None, at(3, guided(2)))
    assert sizes(plan) == [[(0, False), (0, False), (2, False), (2, False), (0, True), (2, True)]]
    assert [row.t for row in plan.runs[0]] == [plan.slots[i].t for i in (0, 0, 1, 1, 0, 1)]


@pytest.mark.parametrize(
    ("fused", "max_rows", "rows"),
    [(True, 6, [6]), (False, 6, [4, 2]), (True, 5, [4, 2]), (True, 3, [3, 1, 2]), (True, 1, [1] * 6)],
)
def test_rows_are_split_where_they_do_not_fit(fused: bool, max_rows: int, rows: list[int]) -> None:
    plan = planned(at(0, guided(1)), at(0, guided(2)), max_rows=max_rows, fused=fused)
    assert [len(run) for run in plan.runs] == rows


def test_an_empty_ring_runs_nothing() -> None:
    assert planned(None, None).runs == ()


def test_free_places_are_taken_oldest_first_and_only_within_the_depth() -> None:
    queue = tuple(Queued(seed, request(seed), timesteps(STEPS)) for seed in (1, 2, 3))
    plan = planned(None, at(1, request(9)), None, None, queue=queue, depth=3)
    assert [(a.index, a.queued.id) for a in plan.admissions] == [(0, 1), (2, 2)]
    assert [(p.index, p.step) for p in plan.slots] == [(0, 0), (1, 1), (2, 0)]


@pytest.mark.parametrize(("step", "names"), [(0, "a"), (4, "b"), (7, "a")])
def test_conditions_run_in_their_range_and_the_first_where_none_is_active(step: int, names: str) -> None:
    a, b = condition(1, step_range=(0.0, 0.5)), condition(2, step_range=(0.5, 0.75))
    assert [{id(a): "a", id(b): "b"}[id(c)] for c in slot(step, conditions=[a, b]).positives] == list(names)


@pytest.mark.parametrize(
    ("mode", "step", "rows"),
    [("full", 0, 1), ("full", 3, 1), ("initialize", 0, 1), ("initialize", 1, 0), ("self", 0, 0)],
)
def test_negative_rows_run_where_the_mode_says(mode: str, step: int, rows: int) -> None:
    assert len(planned(at(step, guided(1, mode))).slots[0].negatives) == rows


SOURCE = fixed(5)
MASK, OPEN = LatentMask(0.5, SOURCE), LatentMask(1.0, SOURCE)
PATHS: list[tuple[Path, dict[str, Any]]] = [
    (Path.EULER, {}),
    (Path.EULER, {"latent_mask": OPEN}),
    (Path.EULER, {"x0_target": X0Target(SOURCE, 0.5), "step": 3}),
    (Path.EDITED, {"x0_target": X0Target(SOURCE, 0.5), "step": 4}),
    (Path.EDITED, {"latent_mask": MASK}),
    (Path.SDE, {"solver": "sde"}),
    (Path.SDE, {"solver": "sde", "latent_mask": MASK}),
    (Path.SDE_CURVE, {"source": SOURCE, "sde_curve": 0.0}),
    (Path.SDE_CURVE, {"solver": "sde", "latent_mask": OPEN, "sde_curve": 0.5}),
    (Path.SDE_CURVE, {"source": SOURCE, "shared": controls(sde_curve=0.5)}),
    (Path.EULER, {"shared": controls(sde_curve=0.5)}),
]


@pytest.mark.parametrize(("path", "fields"), PATHS)
def test_a_slot_takes_the_path_of_what_acts_on_it(path: Path, fields: dict[str, Any]) -> None:
    assert slot(**fields).path is path


def test_neutral_values_are_planned_as_if_they_were_not_set() -> None:
    fields = {"velocity_scale": torch.ones(T), "noise_injection": 0.0, "latent_mask": OPEN}
    p = slot(5, guidance=Guidance(1.0, mode="self", rescale=0.0), x0_target=X0Target(SOURCE, 0.0), **fields)
    assert (p.velocity_scale, p.noise_injection, p.mask_strength, p.target, p.noise) == (None,) * 5
    assert p.guidance.rescale is None
    assert p.guidance.scale.is_everywhere(1.0)
    off = Controls({}, DCW(a=0.0, b=0.0), curve("gain", 1.0))
    assert (planned(controls=off).dcw, planned(controls=off).channel_gain) == (None, None)


@pytest.mark.parametrize("mode", ["low", "high", "pix", "double"])
def test_a_scaler_that_its_mode_does_not_read_keeps_no_correction_on(mode: Any) -> None:
    found = planned(controls=Controls({}, DCW(mode, a=0.0, b=0.5))).dcw
    assert (found is not None) is (mode == "double")


def test_what_is_not_neutral_is_kept() -> None:
    p = slot(velocity_scale=0.0, latent_mask=LatentMask(0.0, SOURCE), guidance=Guidance(2.0, mode="self", momentum=0.0))
    assert p.velocity_scale.is_everywhere(0.0)
    assert p.mask_strength == 1.0
    assert p.guidance.momentum.is_everywhere(0.0)


def test_a_step_function_makes_a_mask_act_even_where_it_is_one() -> None:
    p = slot(2, latent_mask=LatentMask(1.0, SOURCE, lambda step, total: step / total))
    assert (p.mask_strength, p.path) == (0.25, Path.EDITED)


@pytest.mark.parametrize("name", ["guidance_scale", "momentum", "rescale", "x0_strength"])
def test_a_shared_override_leaves_a_slot_without_what_it_acts_on_alone(name: str) -> None:
    p = slot(7, controls(**{name: 0.5}))
    assert (p.guidance, p.target, p.path) == (None, None, Path.EULER)


def test_shared_overrides_act_on_slots_that_have_what_they_act_on() -> None:
    shared = controls(
        guidance_scale=7.0, momentum=0.5, rescale=0.25, x0_strength=0.75, velocity_scale=2.0, noise_injection=0.125
    )
    p = slot(4, shared, guidance=Guidance(2.0, mode="self"), x0_target=X0Target(SOURCE))
    acting = [p.guidance.scale, p.guidance.momentum, p.guidance.rescale, p.target.amount]
    acting += [p.velocity_scale, p.noise_injection]
    assert [c.uniform for c in acting] == [7.0, 0.5, 0.25, 0.75, 2.0, 0.125]


def test_a_neutral_override_switches_a_request_s_own_value_off() -> None:
    p = slot(4, controls(velocity_scale=1.0, x0_strength=0.0), velocity_scale=0.5, x0_target=X0Target(SOURCE, 0.5))
    assert (p.velocity_scale, p.target) == (None, None)


def test_a_shared_strength_does_not_act_on_a_gated_target() -> None:
    p = slot(7, controls(x0_strength=0.75), x0_target=X0Target(SOURCE, curve=0.5))
    assert (p.target.amount.uniform, p.target.ramp) == (0.5, 1.0)


def test_a_gated_target_opens_after_its_gate_and_rises_to_one() -> None:
    targets = [slot(step, x0_target=X0Target(SOURCE, curve=0.5, gate=0.5)).target for step in range(STEPS)]
    assert [t is not None for t in targets] == [False] * 4 + [True] * 4
    ramps = [t.ramp for t in targets[4:]]
    assert ramps == sorted(ramps)
    assert ramps[-1] == 1.0


NOISES: list[tuple[Purpose | None, dict[str, Any]]] = [
    (None, {}),
    (Purpose.STEP, {"noise_injection": 0.5}),
    (Purpose.STEP, {"noise_injection": 0.5, "latent_mask": MASK}),
    (None, {"noise_injection": 0.5, "step": STEPS - 1}),
    (Purpose.STEP, {"solver": "sde"}),
    (Purpose.MASK, {"solver": "sde", "latent_mask": MASK}),
    (Purpose.STEP, {"solver": "sde", "latent_mask": OPEN}),
    (Purpose.MASK, {"sde_curve": 0.5, "latent_mask": MASK}),
    (None, {"solver": "sde", "latent_mask": MASK, "step": STEPS - 1}),
]


@pytest.mark.parametrize(("purpose", "fields"), NOISES)
def test_the_noise_of_a_step_is_the_one_its_path_reads(purpose: Purpose | None, fields: dict[str, Any]) -> None:
    assert slot(**fields).noise is purpose


def test_noise_injection_is_ignored_on_the_sde_path_and_at_the_end() -> None:
    assert slot(solver="sde", noise_injection=0.5).noise_injection is None
    assert slot(STEPS - 1, noise_injection=0.5).noise_injection is None


def test_nothing_moves_the_clean_estimate_at_time_zero() -> None:
    made = request(source=SOURCE, denoise=0.0, x0_target=X0Target(SOURCE, curve=0.5))
    (p,) = planned(at(0, made)).slots
    assert (p.t, p.s, p.total, p.target, p.finishes) == (0.0, 0.0, 1, None, True)


EVERYTHING = [fields for _, fields in PATHS + NOISES]
EVERYTHING += [
    {"velocity_scale": v, "guidance": Guidance(2.0, mode="self", rescale=v)} for v in (0.0, 1.0, torch.ones(T))
]


@pytest.mark.parametrize("fields", EVERYTHING)
def test_gates_asked_of_the_tensor_plan_the_same(fields: dict[str, Any]) -> None:
    fields = dict(fields)
    step, solver, shared = fields.pop("step", 0), fields.pop("solver", "ode"), fields.pop("shared", controls())
    held = Controls(shared.shared, DCW(a=0.0), curve("gain", torch.ones(T)))
    ring = at(step, request(**fields))
    on, off = (planned(ring, controls=held, solver=solver, gates=gates) for gates in (True, False))
    assert (on.channel_gain, on.dcw.a, on.dcw.b) == (off.channel_gain, off.dcw.a, off.dcw.b)
    a, b = vars(on.slots[0]), vars(off.slots[0])
    for name in a.keys() - {"target", "guidance"}:
        assert a[name] is b[name] or a[name] == b[name], name
    for name in ("target", "guidance"):
        assert (a[name] and vars(a[name])) == (b[name] and vars(b[name])), name


@pytest.mark.parametrize("total", [1, 2, 3, 5, 8])
def test_a_strength_is_asked_once_a_slot_and_tick_and_a_target_acts_from_half_of_the_steps_on(total: int) -> None:
    asked: list[tuple[int, int]] = []

    def strength(step: int, of: int) -> float:
        asked.append((step, of))
        return 1

    p = pipeline(depth=2, steps=total)
    for seed in (1, 2):
        p.submit(request(seed, latent_mask=LatentMask(0.5, SOURCE, strength)))
    p.drain()
    assert asked == [(step, total) for step in range(total) for _ in range(2)]
    made = request(x0_target=X0Target(SOURCE, 0.5))
    plans = [
        planned(replace(at(0, made), step=step, times=timesteps(total))).slots[0].target is not None
        for step in range(total)
    ]
    assert plans == [step >= total // 2 for step in range(total)]


@pytest.mark.parametrize("gates", [True, False])
def test_every_question_of_a_tick_is_counted_whoever_asks(gates: bool) -> None:
    own = {
        "velocity_scale": 0.5,
        "noise_injection": torch.ones(T),
        "latent_mask": MASK,
        "x0_target": X0Target(SOURCE, 1),
    }
    made = request(guidance=Guidance(2.0, mode="self", rescale=0.5), sde_curve=None, **own)
    counts = [
        planned(at(0, request()), controls=held, gates=gates).gates
        for held in (
            controls(),
            Controls({}, DCW("double", 0.5, 0.5)),
            Controls({}, DCW("pix", 0.5, 0.5)),
            Controls({}, None, curve("gain", 2.0)),
            Controls(controls(velocity_scale=1.0, momentum=1.0).shared, DCW(a=0.0, b=0.0), curve("gain", 1.0)),
        )
    ]
    assert counts == [0, 2, 1, 1, 4]
    # Of the request: the mask, the rescale, the noise, the velocity, and from half of the steps on the target.
    assert [planned(at(step, made), gates=gates).gates for step in (0, 3, 4, 7)] == [4, 4, 5, 4]
    assert planned(at(0, made), at(4, made), None, gates=gates).gates == 9


@pytest.mark.parametrize("level", [0.0, -0.0, 0.5])
def test_a_gated_target_acts_whatever_its_curve_is(level: float) -> None:
    planned = slot(STEPS - 2, x0_target=X0Target(SOURCE, curve=level))
    assert planned.target is not None and planned.target.amount.uniform == level
    assert planned.path is Path.EDITED


@pytest.mark.parametrize(("value", "neutral"), [(1.0, "velocity_scale"), (0.0, "noise_injection")])
def test_one_curve_in_two_fields_is_neutral_in_the_one_and_not_in_the_other(value: float, neutral: str) -> None:
    shared = curve("both", value)
    for first, second in (("velocity_scale", "noise_injection"), ("noise_injection", "velocity_scale")):
        made = slot(**{first: shared, second: shared})
        held = {name: getattr(made, name) for name in (first, second)}
        assert held.pop(neutral) is None
        assert list(held.values()) == [shared]
