"""Lockstep sees what differs, and says where it first did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import InvalidInput, PipelineConfig, Switches, execute, plan
from harness.engine.conditioning import Conditioning, ConditioningCache
from harness.engine.curve import Curve, ask_host
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.compare import assert_identical
from harness.parity.lockstep import PLAN, SWITCHES, Lockstep, Parted, one_apart, run
from harness.parity.script import (
    Control,
    Correct,
    Depth,
    Drain,
    Guided,
    Props,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Wavelets,
)

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


@pytest.mark.parametrize("executor", ["eager", "static", "deferred"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_the_same_passes_and_is_handed_out(switch: str, executor: str) -> None:
    finished = run(BUSY, switch, executor=executor).finished
    assert sorted(f.seed for f in finished) == [1, 2, 3]
    assert_identical([f.latent for f in finished], [f.latent for f in run(BUSY, SWITCHES[0]).finished])


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
    """Moves one row by an ULP, at one run."""

    def __init__(self, run: int, row: int) -> None:
        super().__init__(AffineDecoder())
        self.at, self.row, self.runs = run, row, 0

    def run(self, batch: Batch) -> Tensor:
        out = super().run(batch).clone()
        if self.runs == self.at:
            out[self.row] = torch.nextafter(out[self.row], torch.tensor(9.0))
        self.runs += 1
        return out


def test_one_ulp_in_one_row_of_one_run_is_found_where_it_is() -> None:
    script = Script((Submit(1), Submit(2), Submit(3), Drain()))
    sides = (EagerExecutor(AffineDecoder()), script.config()), (Nudged(2, 1), script.config())
    with Lockstep(*sides) as lockstep, pytest.raises(Parted) as found:
        script.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (2, 1, "decoder")
    assert "positive[0]: bytes differ in 48 of 48 elements" in found.value.detail
    assert "max 1 ULP" in str(found.value)


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


GUIDED = Script((Submit(1, guided=Guided(3.0, rescale=0.5)), Tick(), Submit(2), Drain()))
DEFECTS: list[tuple[str, Script, Any, str, Any, tuple[int, int | None, str]]] = [
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
    found = parted(script, switch)
    assert (found.tick, found.slot, found.stage) == where
    assert str(found).startswith(f"{switch} on and off part at tick {where[0]}, slot {where[1]}, stage {where[2]}:")


def test_the_order_of_rows_in_a_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "split_runs", turned)
    run(BUSY, "fused_cfg")


def test_a_repro_runs_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_step_together", late)
    found = parted(BUSY, "integrator", executor="static", max_rows=4)
    with pytest.raises(Parted) as again:
        exec(found.repro, {})
    assert str(again.value) == str(found)


def test_a_host_fact_that_differs_parts_them_before_any_tensor() -> None:
    script = Script((Submit(1), Submit(2), Drain()))
    sides = [(EagerExecutor(AffineDecoder()), PipelineConfig(depth=depth, steps=4)) for depth in (2, 1)]
    with Lockstep(*sides) as lockstep, pytest.raises(Parted) as found:
        script.play(lockstep)
    assert (found.value.tick, found.value.slot, found.value.stage) == (0, None, PLAN)
    assert "dropped" in found.value.detail


def test_what_both_refuse_alike_is_refused_and_what_one_refuses_parts_them() -> None:
    script = Script((Submit(1), Tick()), encoder_length=4)
    config, longer = script.config(), Script(encoder_length=8).config()
    executor = EagerExecutor(AffineDecoder())
    with Lockstep((executor, config), (executor, config)) as lockstep, pytest.raises(InvalidInput, match="5 tokens"):
        script.play(lockstep)
    executor = EagerExecutor(AffineDecoder())
    with Lockstep((executor, config), (executor, longer)) as lockstep, pytest.raises(Parted, match="refusal"):
        script.play(lockstep)


def test_a_latent_that_only_its_handing_out_changed_is_found() -> None:
    script = Script((Submit(1), Drain()))
    with Lockstep(*[(EagerExecutor(AffineDecoder()), script.config())] * 2) as lockstep:
        tick = lockstep.second.tick

        def handing_out() -> list[Any]:
            finished = tick()
            for each in finished:
                each.latent.add_(1.0)
            return finished

        lockstep.second.tick = handing_out  # type: ignore[method-assign]
        with pytest.raises(Parted, match="tick 3, slot 0, stage commit|tick 3, stage commit") as found:
            script.play(lockstep)
    assert "finished" in found.value.detail


def test_equal_texts_are_one_condition_and_a_rewrite_reaches_it() -> None:
    props = Props(Script())
    text = Text(4, 6)
    condition = props.condition(text, 12)
    assert props.condition(Text(4, 6), 12) is condition
    version = condition.encoder_hidden_states._version
    props.rewrite(text, 8)
    assert condition.encoder_hidden_states._version > version
    assert_identical(condition.encoder_hidden_states, props.drawn(8, 6, 8))


def test_a_rewrite_in_flight_is_seen_by_cached_and_rebuilt_conditions_alike() -> None:
    script = Script((Submit(1, (Text(4),)), Tick(), Rewrite(Text(4), 8), Tick(), Rewrite(Text(4), 9), Drain()))
    changed = run(script, "cached_conditioning").finished
    (kept,) = run(Script((Submit(1, (Text(4),)), Drain())), "cached_conditioning").finished
    with pytest.raises(AssertionError):
        assert_identical(changed[0].latent, kept.latent)


def test_a_script_prints_as_the_python_that_makes_it_again() -> None:
    names: dict[str, Any] = {}
    exec("from harness.parity.script import *", names)
    assert eval(repr(BUSY), names) == BUSY
