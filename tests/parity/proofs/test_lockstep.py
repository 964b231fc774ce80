"""Lockstep sees what differs, and says where it first did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.engine import InvalidInput, PipelineConfig, StreamPipeline, Switches, execute, plan
from harness.engine.conditioning import Conditioning, ConditioningCache
from harness.engine.curve import Curve, ask_host
from harness.engine.decoders import AffineDecoder
from harness.engine.execute import Stage
from harness.engine.executors import Batch, EagerExecutor, Executor
from harness.engine.geometry import LENGTH_MULTIPLE
from harness.engine.request import required
from harness.engine.results import Stats
from harness.engine.switches import SWITCHES
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import (
    Control,
    Correct,
    Depth,
    Drain,
    Guided,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Wavelets,
)
from harness.parity.compare import NothingCompared, assert_identical
from harness.parity.proofs import lockstep as lockstep_module
from harness.parity.proofs.lockstep import HOST, Lockstep, Parted, acted, one_apart, run
from harness.registry import LIVE, DeferredStream

BUSY = Script(
    (
        Submit(1, guided=Guided(3.0, rescale=0.0)),
        Tick(),
        Submit(2, velocity_scale=1.0),
        Submit(3, guided=Guided(2.0, mode="initialize")),
        Tick(),
        Control("velocity_scale", 0.9),
        Correct(Wavelets(b=0.0)),
        Depth(2),
        Drain(),
    )
)


def parted(script: Script, switch: str, **options: Any) -> Parted:
    with pytest.raises(Parted) as found:
        run(script, switch, **options)
    return found.value


@pytest.mark.parametrize("executor", LIVE)
@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_the_same_passes_and_is_handed_out(switch: str, executor: str) -> None:
    finished = run(BUSY, switch, executor=executor).finished
    assert sorted(f.seed for f in finished) == [1, 2, 3]
    assert_identical([f.latent for f in finished], [f.latent for f in run(BUSY, next(iter(SWITCHES))).finished])


def test_one_apart_changes_one_switch() -> None:
    config = PipelineConfig(switches=Switches(host_gates=False))
    for switch in SWITCHES:
        on, off = one_apart(config, switch)
        held = [vars(side.switches) for side in (on, off, config)]
        assert held[0][switch] != held[1][switch]
        assert all({**side, switch: None} == {**held[2], switch: None} for side in held)
    with pytest.raises(InvalidInput, match="'fused_cfg'"):
        one_apart(config, "turbo")


class Nudged(EagerExecutor):
    """Moves some rows by an ULP, at one run."""

    def __init__(self, run: int, rows: slice) -> None:
        super().__init__(AffineDecoder())
        self.at, self.rows, self.runs = run, rows, 0

    def run(self, batch: Batch) -> Tensor:
        out = super().run(batch).clone()
        if self.runs == self.at:
            out[self.rows] = torch.nextafter(out[self.rows], torch.tensor(9.0))
        self.runs += 1
        return out


def two(script: Script, first: Executor, second: Executor) -> Lockstep:
    return Lockstep((first, script.config()), (second, script.config()))


def plain() -> EagerExecutor:
    return EagerExecutor(AffineDecoder())


THREE = Script((Submit(1), Submit(2), Submit(3), Drain()))


def test_one_ulp_in_one_row_of_one_run_is_found_where_it_is() -> None:
    with two(THREE, plain(), Nudged(2, slice(1, 3))) as lockstep, pytest.raises(Parted) as found:
        THREE.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (2, 1, "decoder")
    assert "positive[0]: bytes differ in 48 of 48 elements" in found.value.detail
    assert "max 1 ULP" in str(found.value)


def test_a_difference_that_no_state_shows_is_found() -> None:
    script = Script((Submit(1, velocity_scale=0.0), Drain()))
    with two(script, plain(), Nudged(1, slice(0, 1))) as lockstep, pytest.raises(Parted) as found:
        script.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (1, 0, "decoder")


def wrong_gate(neutral: float) -> Callable[[Curve, float], bool]:
    """A recorded fact that takes `neutral` for what changes nothing, and nothing for it elsewhere."""
    return lambda curve, value: value == neutral or ask_host(curve, value)


def stale(self: ConditioningCache, *arguments: Any) -> Conditioning:
    kept = self.__dict__.setdefault("kept", {})
    rows = len(arguments[0])
    if rows not in kept:
        kept[rows] = original_cache(self, *arguments)
    return kept[rows]


original_cache, original_step, original_split = ConditioningCache.__call__, execute._step_together, plan.split_runs


def late(plans: Any, states: Any, velocities: Any) -> Any:
    return original_step(plans, states, {index: v + 1e-6 for index, v in velocities.items()})


def turned(positives: Any, negatives: Any, max_rows: int, *, fused: bool) -> Any:
    runs = original_split(positives, negatives, max_rows, fused=fused)
    return tuple(tuple(reversed(rows)) for rows in runs) if fused else runs


def late_rows(positives: Any, negatives: Any, max_rows: int, *, fused: bool) -> Any:
    """Fused rows at the time of the row before."""
    runs = original_split(positives, negatives, max_rows, fused=fused)
    return tuple(tuple(replace(b, t=a.t) for a, b in zip((rows[0], *rows), rows, strict=False)) for rows in runs)


def late_where_fused(positives: Any, negatives: Any, max_rows: int, *, fused: bool) -> Any:
    split = late_rows if fused else original_split
    return split(positives, negatives, max_rows, fused=fused)


GUIDED = Script((Submit(1, guided=Guided(3.0, rescale=0.5)), Tick(), Submit(2), Drain()))
DEFECTS: list[tuple[str, Script, Any, str, Any, tuple[int, int | None, str]]] = [
    ("fused_cfg", GUIDED, plan, "split_runs", late_where_fused, (1, 0, "gather")),
    ("joined_stream", GUIDED, DeferredStream, "join", lambda _self: None, (0, 0, "decoder")),
    ("cached_conditioning", Script((Submit(1), Tick(2), Submit(2, (Text(5),)), Submit(3), Drain()), depth=1),
     ConditioningCache, "__call__", stale, (4, 0, "gather")),
    ("integrator", GUIDED, execute, "_step_together", late, (0, 0, "step")),
    ("host_gates", GUIDED, plan, "ask_host", wrong_gate(0.0), (0, 0, "combine")),
    ("host_gates", Script((Submit(1), Tick(), Correct(Wavelets()), Drain())), plan, "ask_host", wrong_gate(0.0),
     (1, 0, "dcw")),
    ("host_gates", Script((Submit(1, velocity_scale=0.5), Drain())), plan, "ask_host", wrong_gate(1.0), (0, 0, "step")),
]  # fmt: skip


@pytest.mark.parametrize(("switch", "script", "owner", "name", "defect", "where"), DEFECTS)
def test_a_defect_of_a_fast_path_is_named_by_tick_slot_and_stage(
    switch: str, script: Script, owner: Any, name: str, defect: Any, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, defect)
    found = parted(script, switch, executor="deferred" if switch == "joined_stream" else "eager")
    assert (found.tick, found.slot, found.stage) == where
    assert str(found).startswith(f"{switch} on and off differ at tick {where[0]}, slot {where[1]}, stage {where[2]}:")


def test_the_order_of_rows_in_a_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "split_runs", turned)
    run(BUSY, "fused_cfg")


def test_a_repro_runs_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_step_together", late)
    found = parted(BUSY, "integrator", executor="static", max_rows=4)
    with pytest.raises(Parted) as again:
        exec(found.repro, {})
    assert str(again.value) == str(found)


def test_a_submission_that_displaces_something_else_parts_them() -> None:
    script = Script((Submit(1), Submit(2), Drain()))
    sides = [(plain(), PipelineConfig(depth=depth, steps=4)) for depth in (2, 1)]
    with Lockstep(*sides) as lockstep, pytest.raises(Parted) as found:
        script.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (0, None, HOST)
    assert "dropped" in found.value.detail


def after_its_tick(pipeline: StreamPipeline, number: int, act: Callable[[StreamPipeline, list[Any]], Any]) -> None:
    """Let something happen to a pipeline and to what it finished, right after its tick `number`."""
    tick = pipeline.tick

    def then() -> list[Any]:
        finished = tick()
        if pipeline.stats().ticks == number + 1:
            act(pipeline, finished)
        return finished

    pipeline.tick = then  # type: ignore[method-assign]


def move(pipeline: StreamPipeline, _finished: list[Any]) -> None:
    first, second, *others = pipeline.slots
    assert second is not None
    pipeline._state = replace(pipeline._state, ring=(first, replace(second, admitted_at=9), *others))


def step(pipeline: StreamPipeline, _finished: list[Any]) -> None:
    first, second, *others = pipeline.slots
    assert second is not None
    pipeline._state = replace(pipeline._state, ring=(first, replace(second, step=second.step + 1), *others))


def ask(pipeline: StreamPipeline, _finished: list[Any]) -> None:
    stats = pipeline._state.stats
    pipeline._state = replace(pipeline._state, stats=replace(stats, gates=stats.gates + 1))


def add(what: Callable[[StreamPipeline, list[Any]], Tensor]) -> Callable[[StreamPipeline, list[Any]], None]:
    def act(pipeline: StreamPipeline, finished: list[Any]) -> None:
        what(pipeline, finished).data.add_(1.0)

    return act


def tell(**other: Any) -> Callable[[StreamPipeline, list[Any]], None]:
    def act(_pipeline: StreamPipeline, finished: list[Any]) -> None:
        finished[1] = replace(finished[1], **other)

    return act


def kept(pipeline: StreamPipeline, finished: list[Any]) -> None:
    HELD[:] = [f.latent for f in finished]


HELD: list[Tensor] = []
AFTERWARDS: list[tuple[int, Callable[[StreamPipeline, list[Any]], Any], tuple[int, int | None, str], str]] = [
    (1, move, (1, 1, HOST), "slot"),
    (1, step, (1, 1, HOST), "slot"),
    (1, add(lambda p, f: p.slots[2].x), (1, 2, "commit"), "x: bytes differ"),
    (3, add(lambda p, f: f[1].latent), (3, None, "commit"), r"finished\[1\]"),
    (1, lambda p, f: p.set_depth(2), (1, None, HOST), "depth: 3 and 2"),
    (1, ask, (1, None, HOST), "gates"),
    *(
        (3, tell(**{name: 99}), (3, None, HOST), "results: ")
        for name in ("id", "seed", "steps", "denoise", "ticks_in_flight")
    ),
]


@pytest.mark.parametrize(("at", "act", "where", "what"), AFTERWARDS)
def test_what_only_the_second_one_has_after_a_tick_is_found(
    at: int, act: Any, where: tuple[int, int | None, str], what: str
) -> None:
    with two(THREE, plain(), plain()) as lockstep:
        after_its_tick(lockstep.second, at, act)
        with pytest.raises(Parted, match=what) as found:
            THREE.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == where


@pytest.mark.parametrize("side", ["first", "second"])
def test_a_latent_that_changes_after_it_was_handed_out_is_found(side: str) -> None:
    script = Script((Submit(1), Tick(), Submit(2), Drain()))
    with two(script, plain(), plain()) as lockstep:
        after_its_tick(getattr(lockstep, side), 3, kept)
        after_its_tick(getattr(lockstep, side), 4, add(lambda p, f: HELD[0]))
        with pytest.raises(Parted, match="latent 0, handed out before") as found:
            script.play(lockstep)
    assert (found.value.tick, found.value.stage) == (4, "commit")


@pytest.mark.parametrize("number", [0, 1, 8])
@pytest.mark.parametrize("idle", [0, 1, 7])
@pytest.mark.parametrize("busy", [False, True])
def test_every_latent_that_was_handed_out_is_compared_again_after_every_later_tick(
    number: int, idle: int, busy: bool
) -> None:
    """Also where that tick finishes others, and in ticks that had nothing to do."""
    script = Script(steps=1)
    props = Props(script)
    with two(script, plain(), plain()) as lockstep:
        for seed in range(9):
            lockstep.submit(props.request(Submit(seed)))
            if seed % 3 == 2:
                assert len(lockstep.drain()) == 3
        for _ in range(idle):
            assert lockstep.tick() == []
        if busy:
            lockstep.submit(props.request(Submit(9)))
        lockstep.finished[number].latent[0, 11, 3] += 1.0
        with pytest.raises(Parted, match=f"latent {number}, handed out before: bytes differ in 1 of 48") as found:
            lockstep.tick()
    assert (found.value.tick, found.value.slot, found.value.stage) == (3 + idle, None, "commit")


def test_two_requests_of_one_name_are_two_results() -> None:
    request = Props(THREE).request(Submit(1))
    named = [replace(request, id="song", seed=seed) for seed in (1, 2)]
    with two(THREE, plain(), plain()) as lockstep:
        for each in named:
            lockstep.submit(each)
        after_its_tick(lockstep.second, 3, add(lambda p, f: f[0].latent))
        with pytest.raises(Parted, match=r"finished\[0\]"):
            lockstep.drain()


def test_a_side_that_writes_into_the_caller_s_tensor_is_found_before_the_other_reads_it() -> None:
    def writing(**inputs: Tensor) -> Tensor:
        request.context_latents.mul_(0.5)
        return AffineDecoder()(**inputs)

    request = Props(THREE).request(Submit(1))
    for sides in ((EagerExecutor(writing), plain()), (plain(), EagerExecutor(writing))):
        with two(THREE, *sides) as lockstep:
            lockstep.submit(request)
            with pytest.raises(Parted, match="writes to request 0's context_latents"):
                lockstep.tick()


def test_two_sides_that_are_not_finite_are_not_called_the_same() -> None:
    def overflowing(**inputs: Tensor) -> Tensor:
        return inputs["hidden_states"] * float("inf")

    lockstep = two(THREE, EagerExecutor(overflowing), EagerExecutor(overflowing))
    with lockstep, pytest.raises(Parted, match="not finite in both") as found:
        THREE.play(lockstep)
    assert (found.value.tick, found.value.slot) == (0, 0)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_one_value_that_is_not_finite_is_found_at_the_step_that_makes_it(step: int, value: str) -> None:
    def spoiling() -> EagerExecutor:
        def decode(**inputs: Tensor) -> Tensor:
            velocity = AffineDecoder()(**inputs)
            if len(runs) == step:
                velocity[0, 3, 1] = float(value)
            runs.append(1)
            return velocity

        runs: list[int] = []
        return EagerExecutor(decode)

    script = Script((Submit(1), Drain()), steps=3)
    with two(script, spoiling(), spoiling()) as lockstep, pytest.raises(Parted, match="not finite in both") as found:
        script.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (step, 0, "decoder")


@pytest.mark.parametrize("script", [Script(), Script((Tick(3),)), Script((Submit(),))])
def test_a_script_that_makes_no_tensor_is_no_comparison(script: Script) -> None:
    with pytest.raises(NothingCompared):
        run(script, "fused_cfg")


class Failing(EagerExecutor):
    def __init__(self, at: int) -> None:
        super().__init__(AffineDecoder())
        self.at, self.runs = at, 0

    def run(self, batch: Batch) -> Tensor:
        self.runs += 1
        if self.runs == self.at:
            raise MemoryError("out of memory")
        return super().run(batch)


@pytest.mark.parametrize("first", [True, False])
def test_a_failure_of_one_side_alone_parts_them_at_its_tick(first: bool) -> None:
    sides = [Failing(3), plain()]
    lockstep = two(THREE, *(sides if first else sides[::-1]))
    with lockstep, pytest.raises(Parted, match="MemoryError: out of memory") as found:
        THREE.play(lockstep)
    assert (found.value.tick, found.value.stage) == (2, HOST)


def test_a_failure_of_both_is_raised_and_the_tick_can_be_run_again() -> None:
    with two(THREE, Failing(3), Failing(3)) as lockstep:
        with pytest.raises(MemoryError):
            THREE.play(lockstep)
        assert len(lockstep.drain()) == 3


IDLE: dict[str, Script] = {
    "fused_cfg": THREE,
    "cached_conditioning": Script((Submit(1), Drain()), steps=1),
    "integrator": Script((Submit(1), Drain()), solver="sde"),
    "host_gates": THREE,
    "joined_stream": THREE,
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_had_nothing_to_do_did_not_act(switch: str) -> None:
    idle, busy = run(IDLE[switch], switch), run(BUSY, switch, executor="deferred")
    assert not acted(switch, idle.first.stats(), idle.second.stats())
    assert acted(switch, busy.first.stats(), busy.second.stats())


@pytest.mark.parametrize(("length", "tokens"), [(None, LENGTH_MULTIPLE), (24, 24)])
def test_an_engine_is_made_for_the_encoder_length_of_the_script(
    length: int | None, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(registry, "engine_for", lambda *words, **more: asked.append((words, more)))
    run(Script((Submit(1), Drain()), encoder_length=length), "fused_cfg")
    assert asked == [(("eager", "affine"), {"encoder_dim": 8, "tokens": tokens})]


def test_what_both_refuse_alike_is_refused_and_what_one_refuses_parts_them() -> None:
    script = Script((Submit(1), Tick()), encoder_length=4)
    config, longer = script.config(), Script(encoder_length=8).config()
    with Lockstep((plain(), config), (plain(), config)) as lockstep, pytest.raises(InvalidInput, match="5 tokens"):
        script.play(lockstep)
    with Lockstep((plain(), config), (plain(), longer)) as lockstep, pytest.raises(Parted, match="error: InvalidInput"):
        script.play(lockstep)


def test_equal_texts_are_one_condition_and_a_rewrite_reaches_it() -> None:
    props = Props(Script())
    text = Text(4, 6)
    condition = props.condition(text, 12)
    assert props.condition(Text(4, 6), 12) is condition
    version = condition.encoder_hidden_states._version
    props.rewrite(text, 8)
    assert condition.encoder_hidden_states._version > version
    assert_identical(condition.encoder_hidden_states, props.drawn(8, 6, 8))


def test_texts_that_differ_in_anything_are_conditions_of_their_own() -> None:
    props = Props(Script())
    texts = (Text(4), Text(5), Text(4, 6), Text(4, weight=0.5), Text(4, span=(0.0, 0.5)), Text(4, hidden=2))
    made = [props.condition(text, 12) for text in texts]
    assert len({id(condition) for condition in (*made, props.condition(Text(4), 10))}) == len(texts) + 1
    assert [condition.step_range for condition in made] == [text.span for text in texts]


def test_a_rewrite_reaches_every_condition_that_was_made_from_the_text() -> None:
    props = Props(Script())
    text = Text(4, 6, weight=(0.2, 1.0))
    conditions = [props.condition(text, frames) for frames in (12, 17, 5)]
    assert len({id(condition.encoder_hidden_states) for condition in conditions}) == 3
    props.rewrite(text, 8)
    for condition in conditions:
        assert_identical(condition.encoder_hidden_states, props.drawn(8, 6, 8))


def test_a_rewrite_leaves_other_texts_of_the_same_seed_as_they_are() -> None:
    props = Props(Script())
    conditions = [props.condition(text, 12) for text in (Text(4), Text(4, 6), Text(4, span=(0.0, 0.5)))]
    versions = [condition.encoder_hidden_states._version for condition in conditions]
    props.rewrite(Text(4), 8)
    moved = [c.encoder_hidden_states._version > v for c, v in zip(conditions, versions, strict=True)]
    assert moved == [True, False, False]


def test_a_mask_is_zero_at_the_frames_that_its_number_divides() -> None:
    mask = required(Props(Script()).mask(Masked(level=0.5, every=3), 6).mask)
    assert mask.values.flatten().tolist() == [0.0, 0.5, 0.5, 0.0, 0.5, 0.5]


def test_a_rewrite_in_flight_is_seen_by_cached_and_rebuilt_conditions_alike() -> None:
    script = Script((Submit(1, (Text(4),)), Tick(), Rewrite(Text(4), 8), Tick(), Rewrite(Text(4), 9), Drain()))
    changed = run(script, "cached_conditioning").finished
    (left,) = run(Script((Submit(1, (Text(4),)), Drain())), "cached_conditioning").finished
    with pytest.raises(AssertionError):
        assert_identical(changed[0].latent, left.latent)


def test_a_script_prints_as_the_python_that_makes_it_again() -> None:
    names: dict[str, Any] = {}
    exec("from harness.parity.battery.scripts import *", names)
    assert eval(repr(BUSY), names) == BUSY


# What is compared, and what is not.

SWITCHED = {"decoder_runs", "conditioning", "joins", "waits"}
"""The counts that switches change, and those that timing changes."""


@pytest.mark.parametrize("name", [field.name for field in fields(Stats)])
def test_every_count_but_those_that_switches_change_is_compared(name: str) -> None:
    def count(pipeline: StreamPipeline, _finished: list[Any]) -> None:
        told = replace(pipeline.stats(), **{name: 77})
        pipeline.stats = lambda: told  # type: ignore[method-assign]

    with two(THREE, plain(), plain()) as lockstep:
        THREE.events[0].happen(lockstep, Props(THREE))
        after_its_tick(lockstep.second, 0, count)
        if name in SWITCHED:
            lockstep.tick()
            return
        with pytest.raises(Parted, match=f"{name}: [0-9]+ and 77") as found:
            lockstep.tick()
    assert (found.value.tick, found.value.slot, found.value.stage) == (0, None, HOST)


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("fact", [{"id": "b"}, {"admitted_at": 9}, {"times": (1.0, 0.9, 0.8, 0.7, 0.0)}, {"step": 3}])
def test_every_fact_of_a_slot_is_compared(fact: dict[str, Any], side: str) -> None:
    def change(pipeline: StreamPipeline, _finished: list[Any]) -> None:
        first, second, *others = pipeline.slots
        assert second is not None
        pipeline._state = replace(pipeline._state, ring=(first, replace(second, **fact), *others))

    with two(THREE, plain(), plain()) as lockstep:
        after_its_tick(getattr(lockstep, side), 1, change)
        with pytest.raises(Parted, match="slot: ") as found:
            THREE.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (1, 1, HOST)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("place", [0, 2, 7])
@pytest.mark.parametrize("stage", [Stage.GATHER, Stage.DCW])
def test_a_tensor_that_one_side_alone_makes_parts_them(stage: Stage, place: int, side: int) -> None:
    """At a stage and a place that the other one has, and at one that it lacks."""
    with two(THREE, plain(), plain()) as lockstep:
        pipeline = (lockstep.first, lockstep.second)[side]
        observe = lockstep_module._recorder(lockstep._seen[side])
        after_its_tick(pipeline, 1, lambda p, f: observe(stage, place, "more", torch.ones(2)))
        with pytest.raises(Parted, match=f"more: {('unexpected', 'missing')[side]}") as found:
            THREE.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (1, place, stage)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("late", [False, True], ids=["in flight", "finished"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_tensors_of_every_request_are_watched_to_the_end(number: int, late: bool, side: int) -> None:
    props = Props(THREE)
    requests = [props.request(Submit(seed, (Text(seed), Text(seed + 10), Text(seed + 20)))) for seed in (1, 2, 3)]
    with two(THREE, plain(), plain()) as lockstep:
        for request in requests:
            lockstep.submit(request)
        if late:
            assert len(lockstep.drain()) == 3
        states = requests[number].conditions[2].encoder_hidden_states
        after_its_tick((lockstep.first, lockstep.second)[side], lockstep.stats().ticks, lambda p, f: states.add_(1.0))
        with pytest.raises(Parted, match=f"writes to request {number}'s condition 2: ") as found:
            lockstep.tick()
    assert (found.value.slot, found.value.stage) == (None, HOST)


@pytest.mark.parametrize(("one", "other"), [
    (ValueError("a"), ValueError("b")), (ValueError("a"), TypeError("a")), (ValueError("a"), None),
])  # fmt: skip
def test_errors_that_differ_in_type_or_words_part_them(one: Exception, other: Exception | None) -> None:
    def failing(error: Exception | None) -> EagerExecutor:
        def decode(**inputs: Tensor) -> Tensor:
            if error is not None:
                raise error
            return AffineDecoder()(**inputs)

        return EagerExecutor(decode)

    for sides in ((one, other), (other, one)):
        told = " and ".join("none" if error is None else f"{type(error).__name__}: {error}" for error in sides)
        with two(THREE, *map(failing, sides)) as lockstep, pytest.raises(Parted, match=f"error: {told}") as found:
            THREE.play(lockstep)
        assert (found.value.tick, found.value.slot, found.value.stage) == (0, None, HOST)


# What is left behind.


@pytest.mark.parametrize("fails", [False, True])
def test_at_the_end_both_pipelines_and_both_executors_are_closed(fails: bool) -> None:
    closed: list[object] = []

    class Closing(EagerExecutor):
        def close(self) -> None:
            closed.append(self)

    sides = [Closing(AffineDecoder()) for _ in range(2)]
    lockstep = two(THREE, *sides)
    try:
        with lockstep as entered:
            assert entered is lockstep
            THREE.play(lockstep)
            if fails:
                raise MemoryError
    except MemoryError:
        assert fails
    assert closed == sides
    for pipeline in (lockstep.first, lockstep.second):
        with pytest.raises(RuntimeError, match="closed"):
            pipeline.tick()


@pytest.mark.parametrize(("events", "overlapping"), [
    ((Submit(1), Drain()), 0),
    ((Submit(1), Submit(2), Drain()), 0),
    ((Submit(1), Tick(), Submit(2), Drain()), 2),
    ((Submit(1), Tick(3), Submit(2), Drain()), 0),
    ((Tick(), Submit(1), Tick(), Submit(2), Tick(), Submit(3), Drain()), 3),
])  # fmt: skip
def test_ticks_after_which_slots_are_at_several_steps_are_counted(events: Any, overlapping: int) -> None:
    script = Script(events)
    with two(script, plain(), plain()) as lockstep:
        finished = script.play(lockstep)
    assert lockstep.overlapping == overlapping
    assert [f.id for f in lockstep.finished] == [f.id for f in finished]
    assert len(finished) == sum(isinstance(event, Submit) for event in events)


def test_rows_device_and_switches_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = registry.executor

    def seen(*words: Any) -> Executor:
        made.append((words[0], *words[2:]))
        return original(*words[:4], "cpu", *words[5:])

    monkeypatch.setattr(registry, "executor", seen)
    monkeypatch.setattr(registry, "decoder", lambda *_, **more: AffineDecoder(8) if more["device"] == "meta" else None)
    monkeypatch.setattr(Script, "play", lambda _script, driven, device: setattr(driven, "compared", device))
    others = Switches(host_gates=False)
    done = run(THREE, "integrator", executor="static", others=others, max_rows=5, pin_rows=4, device="meta")
    assert made == [("static", 5, 4, "meta", None)] * 2
    assert str(done.compared) == "meta"
    assert [pipeline.config.switches.host_gates for pipeline in (done.first, done.second)] == [False, False]
