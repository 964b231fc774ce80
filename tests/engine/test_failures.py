"""One request's failure is its own: it is named, the others end with the bits that they have without it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from torch import Tensor

from harness.engine import (
    Condition,
    FailReason,
    Guidance,
    InvalidInput,
    LatentMask,
    Outcomes,
    Session,
    StreamPipeline,
)
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, StaticExecutor
from harness.parity.compare import assert_identical
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request

TINY = AceStepDecoder.preset("tiny", seed=0)


def ids(ended: Iterable[Any]) -> list[Any]:
    return [each.id for each in ended]


# Errors of the executor.


class Flaky(EagerExecutor):
    """Fails at the runs it is told."""

    def __init__(self, *failing: int) -> None:
        super().__init__(AffineDecoder())
        self.failing, self.runs = failing, 0

    def run(self, batch: Batch) -> Tensor:
        self.runs += 1
        if self.runs in self.failing:
            raise MemoryError("out of memory")
        return super().run(batch)


def short_and_long(*failing: int) -> StreamPipeline:
    """One request ends at the first tick, the other one at the third."""
    p = pipeline(2, 3, Flaky(*failing))
    p.submit(request(0, source=fixed(3), denoise=0.0))
    p.submit(request(1))
    return p


@pytest.mark.parametrize("call", [StreamPipeline.drain, StreamPipeline.tick], ids=["drain", "tick"])
def test_a_drain_whose_tick_fails_keeps_what_it_has_for_the_next_call(call: Any) -> None:
    p = short_and_long(2)
    with pytest.raises(MemoryError):
        p.drain()
    made = [*call(p), *p.drain()]
    assert ids(made) == ["r0", "r1"]


def test_what_a_drain_has_kept_can_be_collected_while_every_tick_fails_and_after_the_end() -> None:
    p = short_and_long(*range(2, 20))
    with p:
        for _ in range(3):
            with pytest.raises(MemoryError):
                p.drain()
    assert ids(p.collect()) == ["r0"]
    assert p.collect() == []


def test_a_drain_loses_nothing_whatever_fails() -> None:
    p = pipeline(3, 4, Flaky(*range(1, 600, 3)))
    made: list[Any] = []
    for seed in range(60):
        p.submit(request(seed))
        if seed % 3 == 2:
            while p.stats().in_flight or p.stats().queued:
                try:
                    made += p.drain()
                except MemoryError:
                    continue
    assert sorted(ids(made)) == sorted(f"r{seed}" for seed in range(60))


# A callback.


def odd(value: Any, at: int) -> Any:
    """A strength that is 0.5, and at one step what it must not be; an exception is raised."""

    def strength(step: int, total: int) -> Any:
        if step != at:
            return 0.5
        if isinstance(value, BaseException):
            raise value
        return value

    return strength


def beside(strength: Any, executor: Any = None) -> tuple[dict[Any, Tensor], Outcomes]:
    """The latents of two requests beside one with a callback, and all that was handed out."""
    p = pipeline(3, 4, executor)
    p.submit(request(1, guidance=Guidance(2.0, [condition(9)])))
    p.tick()
    p.submit(request(2, id="odd", latent_mask=LatentMask(0.5, fixed(3), strength)))
    p.submit(request(3))
    first = p.tick()
    p.submit(request(4))
    made = first.joined(p.drain())
    return {each.id: each.latent for each in made if each.id != "odd"}, made


BAD: list[Any] = [2.0, -0.1, math.nan, None, True, "1", ZeroDivisionError("callback"), fixed(1)]


@pytest.mark.parametrize("at", [0, 2, 3])
@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
def test_a_callback_that_misbehaves_fails_its_request_alone(value: Any, at: int) -> None:
    found, made = beside(odd(value, at))
    (failed,) = made.failed
    assert (failed.id, failed.reason, failed.step) == ("odd", FailReason.CALLBACK, at)
    assert f"latent_mask.strength_at({at}, 4)" in failed.detail
    assert_identical(found, beside(odd(0.5, at))[0], "latents")


def test_what_a_callback_raised_is_told() -> None:
    (failed,) = beside(odd(ZeroDivisionError("callback"), 1))[1].failed
    assert failed.detail == "latent_mask.strength_at(1, 4): raised ZeroDivisionError: callback"
    (failed,) = beside(odd(2.0, 1))[1].failed
    assert failed.detail == "latent_mask.strength_at(1, 4): got 2.0, expected a finite number >= 0.0 and <= 1.0"


def test_an_interrupt_inside_a_callback_is_no_failure_of_its_request() -> None:
    raised: list[BaseException] = [KeyboardInterrupt()]
    p = pipeline(1, 3)

    def strength(step: int, total: int) -> float:
        if raised:
            raise raised.pop()
        return 1.0

    p.submit(request(latent_mask=LatentMask(0.5, fixed(3), strength)))
    with pytest.raises(KeyboardInterrupt):
        p.tick()
    assert ids(p.drain()) == ["r1"]


def test_the_place_of_a_request_whose_callback_fails_is_free_in_the_next_tick() -> None:
    p = pipeline(1, 3)
    p.submit(request(1, latent_mask=LatentMask(0.5, fixed(3), odd(2.0, 1))))
    p.tick()
    p.submit(request(2))
    assert ids(p.tick().failed) == ["r1"]
    assert p.slots == (None,)
    p.tick()
    assert [slot.id for slot in p.slots if slot] == ["r2"]
    assert (p.stats().failed, p.stats().in_flight, p.stats().admitted) == (1, 1, 2)


def test_a_request_that_fails_before_its_first_step_was_admitted_and_runs_no_row() -> None:
    p = pipeline(1, 3)
    p.submit(request(1, latent_mask=LatentMask(0.5, fixed(3), odd(2.0, 0))))
    assert ids(p.tick().failed) == ["r1"]
    s = p.stats()
    assert (s.admitted, s.failed, s.queued, s.in_flight, s.decoder_rows, s.ticks) == (1, 1, 0, 0, 0, 1)


def test_a_pipeline_that_is_closed_inside_a_tick_that_fails_keeps_no_condition() -> None:
    class Closing(Flaky):
        def run(self, batch: Batch) -> Tensor:
            if self.runs == 1:
                p.close()
            return super().run(batch)

    p = pipeline(1, 3, Closing(2))
    p.submit(request(1))
    p.tick()
    assert len(p._cache) == 1
    with pytest.raises(MemoryError):
        p.tick()
    assert len(p._cache) == 0


# A stream.


def test_a_tick_of_a_stream_that_is_run_again_submits_once() -> None:
    stream = Session(AffineDecoder(E), Flaky(1, 2)).stream([condition()], fixed(7, T, 2 * D))
    for _ in range(2):
        with pytest.raises(MemoryError):
            stream.tick(seed=5)
    stream.tick(seed=5)
    assert [each.seed for each in stream.drain()] == [5]
    assert stream.pipeline.stats().submitted == 1


@pytest.mark.parametrize(
    "others",
    [{"seed": 6}, {"seed": 5, "denoise": 0.5}, {"seed": 5, "guidance": 2.0}],
    ids=["seed", "denoise", "guidance"],
)
def test_a_tick_of_a_stream_with_other_arguments_after_a_failed_one_is_another_request(others: Any) -> None:
    stream = Session(AffineDecoder(E), Flaky(1)).stream([condition()], fixed(7, T, 2 * D), source=fixed(3))
    with pytest.raises(MemoryError):
        stream.tick(seed=5)
    stream.tick(**others)
    assert [each.seed for each in stream.drain()] == [5, others["seed"]]


def test_a_request_of_a_stream_that_is_asked_for_again_after_it_ran_is_another_one() -> None:
    stream = Session(AffineDecoder(E), Flaky(1)).stream([condition()], fixed(7, T, 2 * D))
    with pytest.raises(MemoryError):
        stream.tick(seed=5)
    stream.tick()
    stream.tick(seed=5)
    assert [each.seed for each in stream.drain()] == [5, 5]


def test_a_request_of_a_stream_that_was_cancelled_after_a_failed_tick_is_submitted_again() -> None:
    stream = Session(AffineDecoder(E), Flaky(1)).stream([condition()], fixed(7, T, 2 * D))
    with pytest.raises(MemoryError):
        stream.tick(seed=5)
    assert stream.last_submission is not None
    assert len(stream.pipeline.cancel(stream.last_submission.id)) == 1
    stream.tick(seed=5)
    assert [each.seed for each in stream.drain()] == [5]


# The first request.


def test_a_first_request_of_another_width_than_the_decoder_s_is_refused_by_name() -> None:
    for executor in (EagerExecutor(TINY), StaticExecutor(TINY), CudaGraphExecutor(TINY, on_demand=True)):
        p = pipeline(executor=executor)
        with pytest.raises(InvalidInput, match=r"conditions\[0\].*expected width 32, as the decoder has"):
            p.submit(request(context_latents=fixed(7, T, 2 * TINY.channels)))
        with pytest.raises(InvalidInput, match="context_latents.*expected 8 latent channels, as the decoder has"):
            p.submit(request(conditions=[Condition(fixed(1, 3, 32))]))
        p.submit(request(conditions=[Condition(fixed(1, 3, 32))], context_latents=fixed(7, T, 2 * TINY.channels)))
        assert ids(p.drain()) == ["r1"]


def test_a_first_request_that_no_tick_can_run_fixes_no_sizes_once_it_is_cancelled() -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        if inputs["encoder_hidden_states"].shape[2] != E:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return AffineDecoder()(**inputs)

    p = pipeline(executor=EagerExecutor(decoder))
    p.submit(request(1, conditions=[Condition(fixed(1, 90, E + 1))]))
    with pytest.raises(RuntimeError, match="multiplied"):
        p.drain()
    with pytest.raises(InvalidInput, match=f"of width {E + 1}, as the pipeline's first request has"):
        p.submit(request(2))
    p.cancel("r1")
    p.submit(request(2))
    assert p.encoder_length == 64
    assert ids(p.drain()) == ["r2"]


def test_sizes_stay_while_the_first_tick_runs_with_them() -> None:
    class Telling(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            with pytest.raises(InvalidInput, match="as the pipeline's first request has"):
                p.submit(request(2, conditions=[Condition(fixed(1, 3, E + 1))]))
            return super().run(batch)

    p = pipeline(1, 1, Telling(AffineDecoder()))
    p.submit(request(1))
    assert ids(p.drain()) == ["r1"]


def test_sizes_stay_once_a_tick_has_run_with_them() -> None:
    p = pipeline()
    p.submit(request(1))
    p.drain()
    with pytest.raises(InvalidInput, match="as the pipeline's first request has"):
        p.submit(request(2, conditions=[Condition(fixed(1, 3, E + 1))]))


def test_a_request_of_a_stream_may_be_asked_for_in_every_tick() -> None:
    stream = Session(AffineDecoder(E)).stream([condition()], fixed(7, T, 2 * D))
    for _ in range(3):
        stream.tick(seed=5)
    assert stream.pipeline.stats().submitted == 3
