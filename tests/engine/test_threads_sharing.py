"""Pipelines in several threads that share a decoder or an executor make the bits that each makes alone."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Condition, InvalidInput, PipelineConfig, Request, Session, StreamPipeline, TickInside
from harness.engine.decoders import AceStepDecoder, AffineDecoder, Decoder
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Executor, Shape, StaticExecutor
from harness.engine.turns import turn_of
from harness.parity.compare import assert_identical
from tests.engine.builders import T, fixed, pipeline, request
from tests.engine.scheduler import Scheduler

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

STEPS, LENGTH, FRAMES = 3, 16, 12
TINY = AceStepDecoder.preset("tiny", seed=0)


def asked(seed: int, decoder: Any) -> Request:
    """One request a seed; conditions have as many tokens as the seed says, so that every mask is another one."""
    width, channels = decoder.encoder_dim, getattr(decoder, "channels", 4)
    return Request([Condition(fixed(seed, 1 + seed, width))], fixed(7, FRAMES, 2 * channels), seed, id=seed)


def ended(executor: Executor, seeds: range, decoder: Any) -> dict[Any, Tensor]:
    """The latents of some requests, two at a time in a ring of pinned rows."""
    config = PipelineConfig(depth=2, steps=STEPS, encoder_length=LENGTH)
    made: dict[Any, Tensor] = {}
    with StreamPipeline(executor, config) as p:
        for seed in seeds:
            p.submit(asked(seed, decoder))
            for _ in range(2):
                made |= {each.id: each.latent for each in p.tick()}
        while p.stats().in_flight or p.stats().queued:
            made |= {each.id: each.latent for each in p.tick()}
    assert len(made) == len(seeds)
    return made


@lru_cache
def alone(affine: bool) -> dict[Any, Tensor]:
    decoder = AffineDecoder(8) if affine else copy.deepcopy(TINY)
    return ended(EagerExecutor(decoder, pin_rows=2), range(12), decoder)


def graphs(decoder: Decoder) -> CudaGraphExecutor:
    return CudaGraphExecutor(decoder, pin_rows=2, on_demand=True, device="cpu")


def one(executor: Executor) -> list[Executor]:
    return [executor, executor]


SHARED: dict[str, tuple[Any, Callable[[Any], list[Executor]]]] = {
    "a decoder": (TINY, lambda d: [EagerExecutor(d, pin_rows=2), EagerExecutor(d, pin_rows=2)]),
    "a decoder of two kinds": (TINY, lambda d: [EagerExecutor(d, pin_rows=2), StaticExecutor(d, pin_rows=2)]),
    "a decoder and its twin": (
        TINY,
        lambda d: [EagerExecutor(each, pin_rows=2) for each in (d, d.with_layers(lambda _layer: None))],
    ),
    "an executor": (TINY, lambda d: one(EagerExecutor(d, pin_rows=2))),
    "a static executor": (AffineDecoder(8), lambda d: one(StaticExecutor(d, pin_rows=2))),
    "a static executor of the model": (TINY, lambda d: one(StaticExecutor(d, pin_rows=2))),
    "an executor of recorded runs": (AffineDecoder(8), lambda d: one(graphs(d))),
}


@pytest.mark.parametrize("what", SHARED)
def test_two_threads_that_share_make_the_bits_that_each_makes_alone(what: str) -> None:
    decoder, make = SHARED[what]
    executors, found, errors = make(decoder), {}, []

    def work(number: int) -> None:
        try:
            found.update(ended(executors[number], range(6 * number, 6 * number + 6), decoder))
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert_identical(found, alone(isinstance(decoder, AffineDecoder)), "latents")


@pytest.mark.parametrize("seed", range(6))
def test_threads_that_a_seed_switches_inside_ticks_share_an_executor(seed: int) -> None:
    scheduler = Scheduler(seed, 0.05, ("execute.py", "pipeline.py", "advance.py", "executors/static.py"))
    decoder = AffineDecoder(8)
    executor, found = StaticExecutor(decoder, pin_rows=2), {}
    turn_of(executor)._lock = scheduler.lock()  # type: ignore[assignment]
    works = [
        lambda first=first: found.update(ended(executor, range(first, first + 3), decoder)) for first in (0, 3, 6, 9)
    ]
    scheduler.run(*works)
    assert scheduler.switches > 50
    assert_identical(found, alone(True), "latents")


@pytest.mark.parametrize("seed", range(6))
def test_threads_that_a_seed_switches_inside_runs_share_a_decoder(seed: int) -> None:
    scheduler = Scheduler(seed, 0.1, ("decoders/ace_step.py",))
    decoder, found = copy.deepcopy(TINY), {}
    decoder._cross_mask._lock = scheduler.lock()
    works = [
        lambda first=first: found.update(ended(EagerExecutor(decoder, pin_rows=2), range(first, first + 3), decoder))
        for first in (0, 3, 6, 9)
    ]
    scheduler.run(*works)
    assert scheduler.switches > 10
    assert_identical(found, alone(False), "latents")


def test_a_decoder_with_its_lock_can_be_copied_and_stored() -> None:
    batch = {name: tensor for name, tensor in inputs(2).items()}
    copied, stored = copy.deepcopy(TINY), pickle.loads(pickle.dumps(TINY))
    assert_identical([copied(**batch), stored(**batch)], [TINY(**batch)] * 2)
    assert len({id(each._cross_mask._lock) for each in (TINY, copied, stored)}) == 3


def inputs(rows: int) -> dict[str, Tensor]:
    mask = torch.arange(8) < torch.tensor([[3], [8]])
    states = [fixed(1, FRAMES, TINY.channels), fixed(2, 8, TINY.encoder_dim), fixed(3, FRAMES, 2 * TINY.channels)]
    hidden, encoder, context = (torch.cat([each] * rows) for each in states)
    times = torch.full((rows,), 0.5)
    return {
        "hidden_states": hidden,
        "timestep": times,
        "encoder_hidden_states": encoder,
        "encoder_mask": mask,
        "context_latents": context,
    }


# Turns.


def test_a_tick_inside_a_run_of_the_same_executor_is_refused_by_name() -> None:
    told: list[str] = []

    class Nested(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            if not told:
                with pytest.raises(TickInside, match="inside a tick of the same executor") as error:
                    other.tick()
                told.append(str(error.value))
            return super().run(batch)

    executor = Nested(AffineDecoder())
    p, other = pipeline(executor=executor), pipeline(executor=executor)
    p.submit(request(1))
    other.submit(request(2))
    assert [each.id for each in p.drain()] == ["r1"]
    assert [each.id for each in other.drain()] == ["r2"]
    assert told


def test_a_tick_may_run_inside_a_run_of_another_executor() -> None:
    inner = pipeline()
    inner.submit(request(2))

    class Outer(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            inner.tick()
            return super().run(batch)

    p = pipeline(executor=Outer(AffineDecoder()))
    p.submit(request(1))
    assert [each.id for each in p.drain()] == ["r1"]
    assert inner.stats().finished == 1


def test_pipelines_of_an_executor_have_one_turn_which_goes_with_the_executor() -> None:
    executor = EagerExecutor(AffineDecoder())
    one, two, third = (pipeline(executor=each) for each in (executor, executor, EagerExecutor(AffineDecoder())))
    assert one._running is two._running
    assert one._running is not third._running
    gone = weakref.ref(executor)
    del executor, one, two
    gc.collect()
    assert gone() is None


def test_a_turn_that_fails_is_over_while_its_traceback_is_kept() -> None:
    turn, found = turn_of(EagerExecutor(AffineDecoder())), []

    def fails() -> None:
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError) as raised:
            turn.take(fails)
        found.append(raised)
    assert len(found) == 2


class Slotted:
    __slots__ = ("max_rows", "stream", "takes_mask")

    def run(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def close(self) -> None: ...


def test_an_executor_that_nobody_can_refer_to_weakly_is_refused_by_name() -> None:
    executor = Slotted()
    executor.max_rows, executor.takes_mask, executor.stream = 8, True, None
    with pytest.raises(InvalidInput, match="executor: got .*Slotted.* expected .*weak references"):
        pipeline(executor=executor)


def test_frames_of_the_shared_pipelines_are_their_own() -> None:
    executor = StaticExecutor(AffineDecoder())
    p, other = pipeline(executor=executor), pipeline(executor=executor)
    p.submit(request(1))
    other.submit(request(2, T + 1))
    assert [tuple(each.latent.shape[1:2]) for each in (*p.drain(), *other.drain())] == [(T,), (T + 1,)]


@pytest.mark.parametrize("seed", range(4))
def test_threads_that_ask_a_session_for_a_null_condition_get_the_same_one(seed: int) -> None:
    scheduler = Scheduler(seed, 0.2, ("session.py",))
    session, asks, given = Session(AffineDecoder(8)), [Condition(fixed(n, 5, 8)) for n in range(4)], []
    session._lock = scheduler.lock()  # type: ignore[assignment]
    scheduler.run(*[lambda ask=ask: given.append(session.null_condition(ask)) for ask in asks])
    assert len(set(map(id, given))) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_prepared_shape_is_never_refused_while_a_run_uses_it(seed: int) -> None:
    scheduler = Scheduler(seed, 0.1, ("executors/prepared.py", "executors/cuda_graph.py"), "opcode")
    executor, shapes = CudaGraphExecutor(AffineDecoder(), device="cpu"), [Shape(n, 8, 4, 8) for n in (4, 5)]
    executor.prepare(shapes)
    batches = [shape.example(1, torch.device("cpu")) for shape in shapes]

    def runs() -> None:
        for _ in range(20):
            for batch in batches:
                executor.run(batch)

    scheduler.run(runs, lambda: [executor.check_shape(shape) for _ in range(60) for shape in shapes])
    assert scheduler.switches > 10
