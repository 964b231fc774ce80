"""A velocity that is not what it must be: one that is not finite fails its request alone, any other kind its run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import ExecutorError, FailReason, Guidance, Outcomes, StreamPipeline, Switches, once
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, StaticExecutor
from harness.engine.finite import look
from harness.engine.rows import Row
from harness.parity.compare import assert_identical
from harness.rails.costs.counters import HostReads, Operators
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request

AHEAD = 2


class Spoiling(EagerExecutor):
    """Writes a value into one element of a row, at the runs that have a number."""

    def __init__(self, value: float, row: int = 0, *runs: int, element: int = -1) -> None:
        super().__init__(AffineDecoder())
        self.value, self.row, self.at, self.element, self.count = value, row, runs, element, 0

    def run(self, batch: Batch) -> Tensor:
        self.count += 1
        made = super().run(batch)
        if self.count in self.at and self.row < batch.rows:
            made[self.row].view(-1)[self.element] = self.value
        return made


@pytest.fixture(name="later", params=[False, True], ids=["at once", "as on a GPU"])
def _later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    if request.param:
        monkeypatch.setattr(once, "READ_LATER", {"cuda", "cpu"})
    yield request.param


def ids(ended: Any) -> list[Any]:
    return [each.id for each in ended]


def told(p: StreamPipeline, ticks: int) -> list[list[Any]]:
    return [ids(p.tick().failed) for _ in range(ticks)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("element", [0, 11, T * D - 1])
def test_a_velocity_that_is_not_finite_fails_its_request_by_name_at_its_first_bad_step(
    value: float, element: int, later: bool
) -> None:
    p = pipeline(2, 8, Spoiling(value, 1, 3, 4, element=element))
    p.submit(request(1))
    p.submit(request(2))
    made = Outcomes().joined(*(p.tick() for _ in range(3 + (AHEAD + 1) * later)))
    (failed,) = made.failed
    assert (failed.id, failed.reason, failed.step) == ("r2", FailReason.VELOCITY_NOT_FINITE, 2)
    assert failed.detail == "positive[0]: a velocity that is not finite in float32"
    assert [slot.id for slot in p.slots if slot] == ["r1"]
    assert (ids(p.drain()), p.stats().failed, p.stats().finished) == (["r1"], 1, 1)


def test_it_is_known_at_the_tick_itself_or_as_many_ticks_later_as_the_host_may_be_ahead(later: bool) -> None:
    p = pipeline(1, 9, Spoiling(math.nan, 0, 3))
    p.submit(request(1))
    assert told(p, 7) == [[]] * 2 + ([[]] * 3 + [["r1"], []] if later else [["r1"], [], [], [], []])


@pytest.mark.parametrize("switches", [Switches(), Switches(fused_cfg=False)], ids=["fused", "in passes"])
def test_a_negative_row_is_looked_at_too_and_named(switches: Switches, later: bool) -> None:
    run, row = (2, 2) if switches.fused_cfg else (4, 0)
    p = pipeline(2, 8, Spoiling(math.nan, row, run), switches=switches)
    p.submit(request(1, guidance=Guidance(2.0, [condition(9)])))
    p.submit(request(2))
    (failed,) = p.drain().failed
    assert (failed.id, failed.step) == ("r1", 1)
    assert failed.detail.startswith("negative[0]: ")


def beside(executor: EagerExecutor) -> tuple[dict[Any, Tensor], Outcomes]:
    p = pipeline(3, 4, executor)
    for seed in (1, 2, 3):
        p.submit(request(seed, guidance=Guidance(2.0, [condition(9)], "initialize")))
    first = p.tick()
    p.submit(request(4))
    made = first.joined(p.drain())
    return {each.id: each.latent for each in made if each.id != "r2"}, made


@pytest.mark.parametrize("run", range(1, 5))
def test_the_others_have_the_bits_that_they_have_without_it(run: int, later: bool) -> None:
    found, made = beside(Spoiling(math.nan, 1, run))
    assert set(ids(made.failed)) == {"r2"}
    assert_identical(found, beside(EagerExecutor(AffineDecoder()))[0], "latents")


def test_at_once_no_latent_is_handed_out_and_later_the_request_is_named_once_after_it() -> None:
    p = pipeline(1, 3, Spoiling(math.nan, 0, 3))
    p.submit(request(1))
    made = p.drain()
    assert (ids(made), ids(made.failed), made.failed[0].step) == ([], ["r1"], 2)


def test_as_on_a_gpu_a_latent_may_be_handed_out_before_its_request_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "READ_LATER", {"cuda", "cpu"})
    p = pipeline(1, 3, Spoiling(math.nan, 0, 2, 3))
    p.submit(request(1))
    ended = [p.tick() for _ in range(7)]
    assert [ids(each) for each in ended] == [[], [], ["r1"], [], [], [], []]
    assert [ids(each.failed) for each in ended] == [[], [], [], [], ["r1"], [], []]
    assert ended[4].failed[0].step == 1
    assert (p.stats().finished, p.stats().failed) == (1, 0), "it has ended once"


def test_a_drain_reads_all_that_is_not_known_yet(later: bool) -> None:
    p = pipeline(2, 3, Spoiling(math.nan, 0, 3))
    p.submit(request(1))
    p.submit(request(2))
    assert ids(p.drain().failed) == ["r1"]
    assert told(p, 5) == [[]] * 5


def test_a_request_that_was_cancelled_is_not_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "READ_LATER", {"cuda", "cpu"})
    p = pipeline(1, 9, Spoiling(math.nan, 0, 2))
    p.submit(request(1))
    p.tick()
    p.tick()
    p.cancel("r1")
    p.submit(request(2))
    assert told(p, 6) == [[]] * 6
    assert [slot.id for slot in p.slots if slot] == ["r2"]


def test_a_tick_that_fails_forgets_no_verdict_and_adds_none(later: bool) -> None:
    class Failing(Spoiling):
        def run(self, batch: Batch) -> Tensor:
            made = super().run(batch)
            if self.count in (4, 6, 7, 8):
                raise MemoryError
            return made

    p = pipeline(2, 9, Failing(math.nan, 0, 2, 4))
    p.submit(request(1))
    p.submit(request(2))
    failed: list[Any] = []
    for _ in range(9):
        try:
            failed += [(each.id, each.step) for each in p.tick().failed]
        except MemoryError:
            continue
    assert failed == [("r1", 1)]


def test_a_velocity_whose_sum_is_not_finite_is_finite() -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        return torch.full_like(inputs["hidden_states"], 3.0e38)

    p = pipeline(1, 1, EagerExecutor(decoder))
    p.submit(request(1))
    assert ids(p.drain()) == ["r1"]


@pytest.mark.parametrize("later", [True, False], ids=["spoilt later", "whole later"])
def test_what_a_look_saw_stays_where_another_run_overwrites_the_velocity(later: bool) -> None:
    velocity = torch.zeros(1, T, D)
    row, then = Row(0, 0, condition(1, 4), negative=False, t=1.0), torch.full_like(velocity, math.nan)
    velocity, then = (velocity, then) if later else (then, velocity)
    seen = look([row], velocity)
    velocity.copy_(then)
    assert (seen.bad() == []) is later


def test_a_number_that_float32_cannot_hold_is_not_finite(later: bool) -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        return torch.full_like(inputs["hidden_states"], 1e39, dtype=torch.float64)

    p = pipeline(1, 9, EagerExecutor(decoder))
    p.submit(request(1))
    assert ids(p.drain().failed) == ["r1"]


def test_a_look_costs_one_operator_a_run_allocates_nothing_and_reads_nothing() -> None:
    p = pipeline(2, 8)
    p.submit(request(1))
    p.submit(request(2))
    p.tick()
    with HostReads() as reads, Operators() as operators:
        p.tick()
    assert reads.seen == {}
    assert operators.names["aten::sum"] == 1


# Velocities of another kind.

KINDS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "none": (lambda v: None, "None"),
    "integer": (lambda v: v.to(torch.int64), "torch.int64 tensor"),
    "bool": (lambda v: v > 0, "torch.bool tensor"),
    "complex": (lambda v: v.to(torch.complex64), "torch.complex64 tensor"),
    "tuple": (lambda v: (v,), "tuple"),
    "array": (lambda v: v.numpy(), "ndarray"),
    "another float than declared": (lambda v: v.double(), "torch.float64 tensor"),
    "half of what is declared": (lambda v: v.half(), "torch.float16 tensor"),
    "another shape": (lambda v: v[:, :-1], r"\[2, 5, 4\]"),
}


class Declaring(AffineDecoder):
    """Says what it returns, and returns something else at one call."""

    dtype = torch.float32

    def __init__(self, change: Callable[[Tensor], Any], at: int) -> None:
        super().__init__(E)
        self.change, self.left = change, at

    def __call__(self, **inputs: Tensor) -> Any:
        self.left -= 1
        made = super().__call__(**inputs)
        return self.change(made) if self.left == 0 else made


@pytest.mark.parametrize("name", KINDS)
def test_a_velocity_of_another_kind_is_refused_with_every_request_and_step_of_its_run(name: str) -> None:
    change, words = KINDS[name]
    p = pipeline(2, 3, EagerExecutor(Declaring(change, 2)))
    p.submit(request(1))
    p.tick()
    p.submit(request(2))
    before = p.slots, p._state.queue
    with pytest.raises(ExecutorError, match=words) as error:
        p.tick()
    assert str(error.value).endswith("; its rows are of request 'r1' at step 1, request 'r2' at step 0")
    assert (p.slots, p._state.queue) == before
    assert ids(p.drain()) == ["r1", "r2"]


def test_an_executor_that_declares_nothing_may_return_any_float() -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        p = pipeline(executor=EagerExecutor(lambda dtype=dtype, **inputs: AffineDecoder()(**inputs).to(dtype)))
        p.submit(request(1))
        assert ids(p.drain()) == ["r1"]


def test_what_executors_declare_is_what_their_decoder_does() -> None:
    half = AceStepDecoder.preset("tiny", dtype=torch.bfloat16)
    for executor, dtype in (
        (EagerExecutor(half), torch.bfloat16),
        (StaticExecutor(half), torch.bfloat16),
        (CudaGraphExecutor(half, device="cpu"), torch.float32),
    ):
        assert (executor.declares.channels, executor.declares.encoder_dim) == (8, 32)
        assert executor.declares.dtype is dtype
    assert vars(EagerExecutor(AffineDecoder(E)).declares) == {"channels": None, "encoder_dim": None, "dtype": None}


def test_a_velocity_of_another_width_than_the_model_s_from_a_run_under_autocast_is_refused() -> None:
    class Narrowing(EagerExecutor):
        narrows = True

        def run(self, batch: Batch) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.narrows):
                return super().run(batch)

    executor = Narrowing(AceStepDecoder.preset("tiny"))
    p = pipeline(executor=executor)
    made = request(conditions=[type(condition())(fixed(1, 3, 32))], context_latents=fixed(7, T, 16))
    p.submit(made)
    with pytest.raises(ExecutorError, match="bfloat16.*expected .*float32"):
        p.tick()
    executor.narrows = False
    assert ids(p.drain()) == ["r1"]


def test_a_drain_names_the_first_bad_step(later: bool) -> None:
    p = pipeline(1, 3, Spoiling(math.nan, 0, 2, 3))
    p.submit(request(1))
    assert [(each.id, each.step) for each in p.drain().failed] == [("r1", 1)]
