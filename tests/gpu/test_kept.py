"""The memory and the order of what one stream makes and another one reads.

Every test lets a stream lie far behind, drops what the ring has no use for any more, and writes NaN over all memory
that is free again on the stream that allocated it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Condition, Finished, PipelineConfig, Request, Session, StreamPipeline, transfer
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.compare import assert_identical
from tests.engine.builders import D, E, condition, fixed

CUDA = "cuda"
SLEEP = 2_000_000_000
"""Clock cycles, about a second: a garbage collection of a large process takes a quarter of one."""
F = 1000
"""Frames: memory of a size that nothing else asks for."""
SHAPE, CONTEXT, CURVE = (1, F, D), (1, F, 2 * D), (1, F, 1)


def given(**fields: Any) -> Request:
    """A request of new tensors whose last step reads its source, which no cache holds."""
    states = condition(1, 5).encoder_hidden_states.to(CUDA)
    made: dict[str, Any] = {"source": fixed(5, F).to(CUDA), "sde_curve": 0.25, **fields}
    return Request([Condition(states)], fixed(6, F, 2 * D).to(CUDA), 3, **made)


def ring(executor: Any = None, **config: Any) -> StreamPipeline:
    fields = {"depth": 2, "steps": 2, "max_ticks_ahead": 16, **config}
    return StreamPipeline(executor or EagerExecutor(AffineDecoder(E)), PipelineConfig(**fields))


def latent(pipeline: StreamPipeline) -> Tensor:
    """The latent of the one request. Ticks do not wait for the GPU; `drain` does, for its verdicts on velocities."""
    made: list[Finished] = []
    while not made:
        made += pipeline.tick()
    return made[0].latent


def expected(curve: Tensor | None = None, steps: int = 2, **fields: Any) -> Tensor:
    pipeline = ring(steps=steps)
    pipeline.submit(given(**fields))
    if curve is not None:
        pipeline.tick()
        pipeline.set_shared_curve("velocity_scale", curve)
    kept = latent(pipeline).clone()
    torch.cuda.synchronize()
    return kept


def scribble(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Write over the free memory of the current stream that tensors of these shapes would get."""
    return [torch.full(shape, float("nan"), device=CUDA) for shape in shapes for _ in range(200)]


def behind(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """An event behind all that is queued on the stream."""
    event = torch.cuda.Event()
    event.record(stream)
    return event


@pytest.mark.parametrize("submitted_apart", [True, False])
def test_what_a_tick_reads_is_kept_until_the_tick_s_stream_is_done(submitted_apart: bool) -> None:
    wanted, other, pipeline = expected(), torch.cuda.Stream(), ring()
    asked = given()
    gone = [weakref.ref(asked.source), weakref.ref(asked.context_latents)]
    torch.cuda.synchronize()
    with torch.cuda.stream(other if submitted_apart else torch.cuda.current_stream()):
        pipeline.submit(asked)
    torch.cuda.synchronize()
    with torch.cuda.stream(other):
        torch.cuda._sleep(SLEEP)
        got = latent(pipeline)
        pipeline.close()
    del asked
    gc.collect()
    done = behind(other)
    assert [each() for each in gone] == [None, None]
    held = scribble(SHAPE, CONTEXT)
    torch.cuda.current_stream().synchronize()
    assert not done.query(), "the machine is too slow for this test"
    torch.cuda.synchronize()
    assert len(held) == 400
    assert_identical(got, wanted)


def test_a_control_that_was_replaced_is_kept_until_the_tick_s_stream_is_done() -> None:
    curve = torch.linspace(0.2, 0.9, F)
    wanted, other, pipeline = expected(curve, steps=3), torch.cuda.Stream(), ring(steps=3)
    with torch.cuda.stream(other):
        asked = given()
        pipeline.submit(asked)
        pipeline.tick()
    torch.cuda.synchronize()
    pipeline.set_shared_curve("velocity_scale", curve)
    torch.cuda.synchronize()
    with torch.cuda.stream(other):
        torch.cuda._sleep(SLEEP)
        got = latent(pipeline)
    pipeline.set_shared_curve("velocity_scale", None)
    gc.collect()
    done = behind(other)
    held = scribble(CURVE)
    torch.cuda.current_stream().synchronize()
    assert not done.query(), "the machine is too slow for this test"
    torch.cuda.synchronize()
    assert len(held) == 200
    assert_identical(got, wanted)


class FailsOnce:
    """A decoder that fails at its first run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, **inputs: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError("planned")
        return AffineDecoder(E)(**inputs)


def test_what_a_failed_tick_left_in_the_cache_is_kept_until_the_next_tick_s_stream_is_done() -> None:
    wanted = expected()
    first, second, pipeline = torch.cuda.Stream(), torch.cuda.Stream(), ring(EagerExecutor(FailsOnce()))
    with torch.cuda.stream(second):
        asked = given()
        pipeline.submit(asked)
    torch.cuda.synchronize()
    with torch.cuda.stream(first):
        failed = False
        try:
            pipeline.tick()
        except RuntimeError:
            failed = True
        assert failed
    torch.cuda.synchronize()
    with torch.cuda.stream(second):
        torch.cuda._sleep(SLEEP)
        got = latent(pipeline)
        pipeline.close()
    gc.collect()
    done = behind(second)
    with torch.cuda.stream(first):
        held = scribble(CONTEXT, (1, 64, E))
    first.synchronize()
    assert not done.query(), "the machine is too slow for this test"
    torch.cuda.synchronize()
    assert len(held) == 400
    assert_identical(got, wanted)


CURVES: dict[str, Callable[[], dict[str, Any]]] = {
    "a number": lambda: {"velocity_scale": 0.625},
    "a curve": lambda: {"velocity_scale": torch.linspace(0.2, 0.9, F)},
}


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_that_a_record_copied_on_another_stream_is_there_when_the_tick_reads_it(name: str) -> None:
    """No mark of the ring lies behind that copy: the record is made before the ring knows of it."""
    wanted, other, pipeline, parts = expected(**CURVES[name]()), torch.cuda.Stream(), ring(), given()
    spoilt = scribble(CURVE, (1, 1, 1))
    torch.cuda.synchronize()
    del spoilt
    torch.cuda._sleep(SLEEP)
    asked = Request(parts.conditions, parts.context_latents, 3, source=parts.source, sde_curve=0.25, **CURVES[name]())
    with torch.cuda.stream(other):
        pipeline.submit(asked)
        got = latent(pipeline)
    torch.cuda.synchronize()
    assert_identical(got, wanted)


def test_a_session_s_null_condition_made_on_another_stream_is_there_when_the_tick_reads_it() -> None:
    latents = []
    for apart in (False, True):
        session = Session(AffineDecoder(E), null_embedding=torch.linspace(-1, 1, E, device=CUDA).view(1, 1, E))
        parts, other = given(), torch.cuda.Stream() if apart else torch.cuda.current_stream()
        spoilt = scribble((1, 5, E))
        torch.cuda.synchronize()
        del spoilt
        torch.cuda._sleep(SLEEP if apart else 1)
        stream = session.stream(parts.conditions, parts.context_latents, config=PipelineConfig(depth=2, steps=2))
        with torch.cuda.stream(other):
            ended = stream.tick(seed=3, guidance=3.0) + stream.drain()
        torch.cuda.synchronize()
        latents.append([each.latent for each in ended])
    assert len(latents[0]) == 1
    assert_identical(latents[1], latents[0])


def test_a_submission_does_not_read_what_the_gpu_has_not_found_yet() -> None:
    pipeline, asked = ring(), given()
    ring().submit(given())  # makes the block
    torch.cuda.synchronize()
    before = transfer.waits()
    torch.cuda._sleep(SLEEP)
    pipeline.submit(asked)
    assert not behind(torch.cuda.current_stream()).query(), "the machine is too slow for this test"
    assert transfer.waits() == before
    pipeline.drain()
    torch.cuda.synchronize()


def test_a_tick_waits_for_the_last_one_on_another_stream() -> None:
    wanted, pipeline = expected(steps=4), ring(steps=4)
    asked = given()
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    ended = []
    pipeline.submit(asked)
    for number in range(4):
        with torch.cuda.stream(streams[number % 2]):
            torch.cuda._sleep(SLEEP // 4 if number % 2 == 0 else 1)
            ended += pipeline.tick()
    torch.cuda.synchronize()
    assert_identical([each.latent for each in ended], [wanted])
