"""What a lockstep counts, hands on and says of itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import Tensor

from harness.engine import StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.execute import Stage
from harness.engine.executors import EagerExecutor
from harness.engine.switches import PLAIN_PATH
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Drain, Guided, Script, Submit, Text, Tick
from harness.parity.proofs.lockstep import Lockstep, Parted, run
from tests.parity.journal import drained
from tests.parity.proofs.test_lockstep import THREE, after_its_tick

SCRIPT = Script((Submit(1, guided=Guided(2.0)), Tick(2), Submit(2), Drain(), Tick(2)), steps=3)


def plain() -> EagerExecutor:
    return EagerExecutor(AffineDecoder())


def test_the_number_of_compared_tensors_is_that_of_all_that_is_made_left_and_handed_out() -> None:
    seen: Counter[str] = Counter()
    made: set[Any] = set()

    def observe(stage: Stage, slot: int, name: str, _tensor: Tensor) -> None:
        made.add((stage, slot, name))

    class Counted(StreamPipeline):
        def tick(self) -> Any:
            made.clear()
            finished = super().tick()
            seen["made"] += len(made)
            seen["left"] += sum(len(slot.state()) for slot in self.slots if slot is not None)
            seen["again"] += 2 * seen["handed out"]
            seen["handed out"] += len(finished)
            return finished

        def drain(self) -> Any:
            return drained(self)

    with Counted(plain(), SCRIPT.config(), observe=observe) as pipeline:
        SCRIPT.play(pipeline)
    assert (seen["handed out"], seen["again"]) == (2, 12)
    assert min(seen["made"], seen["left"]) > 0
    assert run(SCRIPT, "integrator").compared == sum(seen.values())


def test_what_a_lockstep_tells_and_hands_on_is_the_first_pipeline_s() -> None:
    on, off = SCRIPT.config(), SCRIPT.config(PLAIN_PATH)
    handed: list[Any] = []
    with Lockstep((plain(), on), (plain(), off)) as lockstep:
        tick = lockstep.first.tick
        lockstep.first.tick = lambda: handed.append(tick()) or handed[-1]  # type: ignore[func-returns-value,method-assign]
        given = lockstep.submit(Props(SCRIPT).request(Submit(1, guided=Guided(2.0))))
        assert lockstep.tick() == []
        assert lockstep.slots is lockstep.first.slots and lockstep.slots[0] is not None
        assert given.id == lockstep.slots[0].id
        finished = [*lockstep.tick(), *lockstep.tick()]
        assert lockstep.stats() == lockstep.first.stats() != lockstep.second.stats()
        assert lockstep.drain() == [] and len(finished) == 1
    assert finished[0] is handed[-1][0] is lockstep.finished[0]
    assert (lockstep.first.config, lockstep.second.config) == (on, off)


def test_a_message_names_both_the_place_the_difference_and_how_to_see_it_again() -> None:
    error = Parted("a and b", 3, 1, "decoder", "x: bytes differ", "python -m this")
    assert str(error) == ("a and b differ at tick 3, slot 1, stage decoder:\n  x: bytes differ\nrepro:\npython -m this")
    assert (error.tick, error.slot, error.stage) == (3, 1, "decoder")
    assert (error.detail, error.repro) == ("x: bytes differ", "python -m this")
    nowhere = Parted("a and b", 0, None, "host", "depth: 3 and 2", "again")
    assert str(nowhere) == "a and b differ at tick 0, stage host:\n  depth: 3 and 2\nrepro:\nagain"


# What could hide behind something else.


def after_every_tick(pipeline: StreamPipeline, act: Any) -> None:
    tick = pipeline.tick

    def then() -> list[Any]:
        finished = tick()
        act(pipeline, finished)
        return finished

    pipeline.tick = then  # type: ignore[method-assign]


def two(script: Script) -> Lockstep:
    return Lockstep((plain(), script.config()), (plain(), script.config()))


def test_the_order_of_what_finished_is_compared() -> None:
    script = Script((Submit(1), Submit(2)), steps=1)
    with two(script) as lockstep:
        script.play(lockstep)
        after_every_tick(lockstep.second, lambda _pipeline, finished: finished.reverse())
        with pytest.raises(Parted, match="results: ") as found:
            lockstep.tick()
    assert (found.value.slot, found.value.stage) == (None, "host")


@pytest.mark.parametrize("number", [0, 3])
def test_the_first_request_s_tensors_to_its_last_negative_are_watched_after_many_others(number: int) -> None:
    script = Script(steps=1)
    props = Props(script)
    first = props.request(Submit(0, guided=Guided(negatives=(Text(7), Text(8), Text(9)))))
    with two(script) as lockstep:
        lockstep.submit(first)
        for seed in range(1, 18):
            lockstep.drain()
            lockstep.submit(props.request(Submit(seed, (Text(seed + 50),))))
        states = (*first.conditions, *first.negatives)[number].encoder_hidden_states
        after_every_tick(lockstep.second, lambda _pipeline, _finished: states.add_(1.0))
        with pytest.raises(Parted, match=f"writes to request 0's condition {number}: "):
            lockstep.tick()


@pytest.mark.parametrize("name", ["x", "average", "kept_negative"])
def test_no_tensor_of_a_state_may_be_other_than_finite_in_both(name: str) -> None:
    script = Script((Submit(1, guided=Guided(mode="initialize")),))

    def spoil(pipeline: StreamPipeline, _finished: list[Any]) -> None:
        slot = pipeline.slots[0]
        assert slot is not None
        slot.state()[name].data[0, 0, 0] = float("inf")

    with two(script) as lockstep:
        script.play(lockstep)
        for pipeline in (lockstep.first, lockstep.second):
            after_every_tick(pipeline, spoil)
        with pytest.raises(Parted, match=f"{name} is not finite in both: equal NaNs prove nothing") as found:
            lockstep.tick()
    assert (found.value.slot, found.value.stage) == (0, "commit")


def test_every_tensor_of_a_stage_that_differs_is_told_on_a_line() -> None:
    script = Script((Submit(1, guided=Guided(mode="initialize")),))

    def spoil(pipeline: StreamPipeline, _finished: list[Any]) -> None:
        slot = pipeline.slots[0]
        assert slot is not None
        for tensor in slot.state().values():
            tensor.data[0, 0, 0] += 1.0

    with two(script) as lockstep:
        script.play(lockstep)
        after_every_tick(lockstep.first, spoil)
        with pytest.raises(Parted) as found:
            lockstep.tick()
    told = [line.strip().split(":")[0] for line in found.value.detail.splitlines()]
    assert sorted(told) == ["average", "kept_negative", "x"]


@pytest.mark.parametrize("side", [0, 1])
def test_a_state_left_behind_is_told_with_the_names_of_both_pipelines(side: int) -> None:
    def spoil(pipeline: StreamPipeline, _finished: list[Any]) -> None:
        slot = pipeline.slots[0]
        assert slot is not None
        slot.x.data.fill_(9.0)

    with two(THREE) as lockstep:
        after_its_tick((lockstep.first, lockstep.second)[side], 1, spoil)
        with pytest.raises(Parted, match=rf"{('first', 'second')[side]} 9\.0 "):
            THREE.play(lockstep)
