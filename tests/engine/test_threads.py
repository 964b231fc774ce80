"""One thread ticks, any thread tells: every request that was submitted ends once, and no bit depends on who told what.

What another thread may do at any moment is done here inside a run of the executor, then by threads that a seed
switches between, then by threads as they come.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import pytest
from torch import Tensor

from harness.engine import DropReason, Finished, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.compare import assert_identical
from harness.parity.proofs import oracle
from tests.engine.builders import D, T, condition, fixed, pipeline, request
from tests.engine.scheduler import Scheduler

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

STEPS, LENGTH = 3, 8


class Telling(EagerExecutor):
    """Does something inside each run that has a number."""

    def __init__(self, **tells: Callable[[], object]) -> None:
        super().__init__(AffineDecoder())
        self.tells: dict[int, Callable[[], object]] = {}
        self.runs = 0

    def run(self, batch: Batch) -> Tensor:
        self.runs += 1
        if self.runs in self.tells:
            self.tells[self.runs]()
        return super().run(batch)


def telling(depth: int, **fields: Any) -> tuple[StreamPipeline, Telling]:
    executor = Telling()
    return pipeline(depth, STEPS, executor, encoder_length=LENGTH, **fields), executor


def ids(ended: Iterable[Any]) -> list[Any]:
    return [each.id for each in ended]


# Inside a run.


@pytest.mark.parametrize("run", [1, 2, 3])
def test_a_smaller_depth_inside_a_run_loses_no_request(run: int) -> None:
    p, executor = telling(4)
    for seed in range(4):
        p.submit(request(seed))
    executor.tells[run] = lambda: p.set_depth(1)
    assert sorted(ids(p.drain())) == ["r0", "r1", "r2", "r3"]
    assert len(p.slots) == p.depth == 1


def test_a_submission_inside_a_run_finds_the_queue_without_what_the_tick_admits() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))
    told: list[Any] = []
    executor.tells[1] = lambda: told.append(p.submit(request(2)).dropped)
    assert sorted(ids(p.drain())) == ["r0", "r1", "r2"]
    assert told == [()]


def test_of_a_full_queue_a_submission_inside_a_run_drops_the_oldest_that_waits() -> None:
    p, executor = telling(1)
    p.submit(request(0))
    p.tick()
    p.submit(request(1))
    told: list[Any] = []
    executor.tells[2] = lambda: told.extend(p.submit(request(2)).dropped)
    assert ids(p.drain()) == ["r0", "r2"]
    assert [(each.id, each.reason) for each in told] == [("r1", DropReason.QUEUE_FULL)]


def test_another_length_inside_a_run_drops_what_waits_at_once_and_what_runs_at_the_next_tick() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))
    p.tick()
    p.submit(request(2))
    told: list[Any] = []
    executor.tells[2] = lambda: told.extend(p.submit(request(3, T + 1)).dropped)
    assert p.tick() == []
    assert [(each.id, each.reason) for each in told] == [("r2", DropReason.LENGTH_CHANGED)]
    ended = p.tick()
    assert [(each.id, each.reason) for each in ended.dropped] == [
        ("r0", DropReason.LENGTH_CHANGED),
        ("r1", DropReason.LENGTH_CHANGED),
    ]
    assert ids(p.drain()) == ["r3"]
    assert (p.stats().dropped, p.stats().finished) == (3, 1)


def test_what_finishes_in_the_tick_that_runs_is_handed_out_whatever_was_submitted_meanwhile() -> None:
    p, executor = telling(2)
    p.submit(request(0))
    p.tick()
    p.submit(request(1))
    p.tick()
    executor.tells[3] = lambda: p.submit(request(2, T + 1))
    assert ids(p.tick()) == ["r0"]
    ended = p.drain()
    assert (ids(ended), ids(ended.dropped)) == (["r2"], ["r1"])


def test_a_request_that_a_tick_admits_may_be_displaced_inside_that_tick() -> None:
    p, executor = telling(2)
    p.submit(request(0))
    executor.tells[1] = lambda: p.submit(request(1, T + 1))
    ended = p.drain()
    assert (ids(ended), ids(ended.dropped)) == (["r1"], ["r0"])


def test_what_displaces_a_request_inside_a_run_first_is_the_reason_that_is_named() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))
    executor.tells[1] = lambda: (p.cancel("r0"), p.submit(request(2, T + 1)))
    assert [each.reason for each in p.drain().dropped] == [DropReason.CANCELLED, DropReason.LENGTH_CHANGED]


def test_a_tick_inside_a_tick_is_refused_by_name_and_harms_nothing() -> None:
    p, executor = telling(2)
    p.submit(request(0))

    def inside() -> None:
        with pytest.raises(RuntimeError, match="inside a tick"):
            p.tick()

    executor.tells[1] = inside
    assert ids(p.drain()) == ["r0"]


def test_a_pipeline_may_be_closed_inside_a_run() -> None:
    p, executor = telling(1)
    p.submit(request(0))
    executor.tells[STEPS] = p.close
    assert ids([*p.tick(), *p.tick(), *p.tick()]) == ["r0"]
    assert (p.slots, len(p._cache)) == ((), 0)


def test_a_tick_inside_which_the_pipeline_is_closed_names_what_left_with_the_one_before() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))
    executor.tells = {1: lambda: p.cancel("r0"), 2: p.close}
    assert [ids(p.tick().dropped) for _ in range(2)] == [[], ["r0"]]


def test_a_tick_that_fails_puts_back_what_it_took_before_what_came_meanwhile() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))

    def fails() -> None:
        p.submit(request(2))
        raise MemoryError

    executor.tells[1] = fails
    with pytest.raises(MemoryError):
        p.tick()
    assert p.stats().queued == 3
    assert ids(p.drain()) == ["r0", "r1", "r2"]


def test_what_is_displaced_inside_a_tick_that_fails_is_named_by_the_next_tick() -> None:
    p, executor = telling(2)
    p.submit(request(0))
    p.tick()
    p.submit(request(1))

    def fails() -> None:
        p.submit(request(2, T + 1))
        raise MemoryError

    executor.tells[2] = fails
    with pytest.raises(MemoryError):
        p.tick()
    ended = p.drain()
    assert (ids(ended), ids(ended.dropped)) == (["r2"], ["r0", "r1"])


# Cancelling.


def test_a_request_that_waits_is_cancelled_at_once() -> None:
    p, _ = telling(1)
    p.submit(request(0))
    (dropped,) = p.cancel("r0")
    assert (dropped.id, dropped.reason) == ("r0", DropReason.CANCELLED)
    assert (p.drain(), p.stats().dropped) == ([], 1)


def test_a_request_in_flight_is_cancelled_at_once_between_two_ticks_and_at_the_next_tick_inside_one() -> None:
    p, executor = telling(2)
    for seed in range(2):
        p.submit(request(seed))
    p.tick()
    assert ids(p.cancel("r0")) == ["r0"]
    assert ids(slot for slot in p.slots if slot) == ["r1"]
    executor.tells[2] = lambda: told.append(p.cancel("r1"))
    told: list[Any] = []
    p.tick()
    ended = p.tick()
    assert told == [()]
    assert [(each.id, each.reason) for each in ended.dropped] == [("r1", DropReason.CANCELLED)]
    assert (ended, p.stats().in_flight, p.stats().dropped) == ([], 0, 2)


def test_a_name_that_nobody_has_cancels_nothing_and_one_that_several_have_cancels_all() -> None:
    p, _ = telling(4)
    for seed, name in enumerate(("a", "b", "a")):
        p.submit(request(seed, id=name))
    assert p.cancel("c") == ()
    assert ids(p.cancel("a")) == ["a", "a"]
    assert ids(p.drain()) == ["b"]


# Threads.


def asked(seed: int, frames: int = T, **fields: Any) -> Request:
    return Request([condition(seed, 3)], fixed(7, frames, 2 * D), seed, **fields)


@lru_cache
def alone(seed: int, frames: int) -> Tensor:
    p, _ = telling(1)
    return oracle.run(EagerExecutor(AffineDecoder()), asked(seed, frames), p.config, LENGTH)


class Told:
    """What several threads asked of a pipeline, and what became of every request."""

    def __init__(self, p: StreamPipeline) -> None:
        self.pipeline = p
        self.submitted: list[Any] = []
        self.ended: list[Any] = []
        self.finished: list[Finished] = []

    def tells(self, seed: int, times: int) -> Callable[[], None]:
        drawn = random.Random(seed)

        def tell() -> None:
            p = self.pipeline
            for number in range(times):
                kind = drawn.choice(["submit"] * 5 + ["depth", "control", "gain", "stats", "cancel"])
                if kind == "submit":
                    name = f"{seed}-{number}"
                    made = asked(drawn.randrange(5), T + (drawn.random() < 0.1), id=name)
                    self.submitted.append(name)
                    self.ended += ids(p.submit(made).dropped)
                elif kind == "depth":
                    self.ended += ids(p.set_depth(drawn.randint(1, 4)))
                elif kind == "cancel" and self.submitted:
                    self.ended += ids(p.cancel(drawn.choice(self.submitted)))
                elif kind == "control":
                    p.set_shared_curve("guidance_scale", drawn.choice([None, 2.0]))
                elif kind == "gain":
                    p.set_channel_gain(None)
                self.adds_up()

        return tell

    def adds_up(self) -> None:
        s = self.pipeline.stats()
        assert s.submitted == s.finished + s.failed + s.dropped + s.in_flight + s.queued

    def ticks(self, going: Callable[[], bool]) -> Callable[[], None]:
        def tick() -> None:
            while going():
                self.keep(self.pipeline.tick())
            self.keep(self.pipeline.drain())

        return tick

    def keep(self, made: Any) -> None:
        self.finished += made
        self.ended += [*ids(made), *ids(made.dropped), *ids(made.failed)]

    def check(self) -> None:
        assert Counter(self.ended) == Counter(self.submitted)
        self.adds_up()
        for each in self.finished:
            assert_identical(each.latent, alone(each.seed, each.latent.shape[1]), f"request {each.id}")


def scheduled(seed: int, tellers: int = 7, times: int = 12) -> tuple[Told, Scheduler]:
    scheduler = Scheduler(seed)
    p, _ = telling(3)
    p._lock, p._ticking._lock, p._running._lock = (scheduler.lock() for _ in range(3))  # type: ignore[assignment]
    told, left = Told(p), [tellers]

    def counted(tell: Callable[[], None]) -> Callable[[], None]:
        def work() -> None:
            try:
                tell()
            finally:
                left[0] -= 1

        return work

    tellers_ = [counted(told.tells(100 * seed + number, times)) for number in range(tellers)]
    scheduler.run(told.ticks(lambda: left[0] > 0), *tellers_)
    return told, scheduler


@pytest.mark.parametrize("seed", range(30))
def test_eight_threads_that_a_seed_switches_lose_no_request_and_no_bit(seed: int) -> None:
    told, scheduler = scheduled(seed)
    told.check()
    assert scheduler.switches > 50


def test_a_seed_makes_the_same_switches_again() -> None:
    first, second = (
        (told.submitted, ids(told.finished), scheduler.switches) for told, scheduler in (scheduled(3), scheduled(3))
    )
    assert first == second


def test_eight_threads_lose_no_request_and_no_bit() -> None:
    p, _ = telling(4)
    told = Told(p)
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        return run

    tellers = [threading.Thread(target=guarded(told.tells(seed, 150))) for seed in range(7)]
    ticker = threading.Thread(target=guarded(told.ticks(lambda: any(each.is_alive() for each in tellers))))
    for each in (*tellers, ticker):
        each.start()
    for each in (*tellers, ticker):
        each.join()
    assert errors == []
    told.check()
    assert len(told.submitted) > 300
    assert told.finished


def test_several_threads_that_tick_take_turns() -> None:
    p, _ = telling(4)
    told = Told(p)
    for seed in range(4):
        p.submit(asked(seed, id=seed))
        told.submitted.append(seed)
    threads = [threading.Thread(target=told.ticks(lambda: False)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    told.check()


@pytest.mark.parametrize("call", ["length", "cancel", "depth"])
@pytest.mark.parametrize("when", ["waits", "has read"])
def test_what_is_told_before_a_tick_takes_anything_is_done_at_once(call: str, when: str) -> None:
    p, _ = telling(2)
    p.submit(request(0))
    p.tick()
    p.submit(request(1))
    calls: dict[str, Callable[[], Any]] = {
        "length": lambda: p.submit(request(2, T + 1)).dropped,
        "cancel": lambda: (*p.cancel("r0"), *p.cancel("r1")),
        "depth": lambda: p.set_depth(1),
    }
    told: list[Any] = []
    read = p._verdicts.due

    def tell() -> None:
        told.extend(calls.pop(call)() if call in calls else ())

    def then(*given: Any) -> Any:
        made = read(*given)
        tell()
        return made

    if when == "waits":
        p._pace.wait = tell  # type: ignore[method-assign]
    else:
        p._verdicts.due = then  # type: ignore[method-assign]
    ended = p.drain()
    assert sorted([*ids(told), *ids(ended)]) == (["r0", "r1", "r2"] if call == "length" else ["r0", "r1"])
    assert ended.dropped == ()
