"""Whatever faults in a call, every request that was submitted ends once, and no bit is wrong; a seed says where.

`python -m tests.faults` injects as many as wanted.
"""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from torch import Tensor

from harness.engine import Guidance, Outcomes, PipelineConfig, Session, StreamPipeline, once
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.parcels import Parcel, handed_out
from harness.engine.records import tensors
from harness.parity.baselines.platform import ROOT
from harness.parity.compare import assert_identical
from tests.engine.builders import E, T, condition, fixed, pipeline, request
from tests.engine.test_velocities import Spoiling
from tests.faults.crowd import Crowd
from tests.faults.interrupts import Interrupt
from tests.faults.script import Script, Told

# What is traced here is traced for the faults.
pytestmark = pytest.mark.no_cover


def ids(ended: Iterable[Any]) -> list[Any]:
    return [each.id for each in ended]


def ends(*made: Any) -> list[Any]:
    """The names of everything that left."""
    return [name for each in made for part in (each, each.failed, each.dropped) for name in ids(part)]


KEEPS = ("pipeline.py", "keeping.py", "parcels.py", "state.py", "turns.py", "verdicts.py", "session.py", "results.py")
"""Files in which a line may come between two parts of a change."""


def at_every_line(work: Callable[[Interrupt], object], files: Sequence[str] = KEEPS) -> Counter[str]:
    """Call `work` with an interrupt at the first line, the second one and so on; return how many by file."""
    places, at = Counter[str](), 0
    while True:
        at += 1
        interrupt = Interrupt(at, KeyboardInterrupt("injected"), files)
        work(interrupt)
        if interrupt.where is None:
            return places
        places[interrupt.where[0]] += 1


def raised(interrupt: Interrupt, work: Callable[[], Any], instead: Any = None) -> Any:
    """What `work` returned; where the interrupt came out, something instead."""
    try:
        return interrupt.call(work)
    except KeyboardInterrupt:
        return instead


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_scripts_with_faults_lose_no_request_no_result_and_no_bit(first: int) -> None:
    told = Told()
    for seed in range(first, first + 30):
        made = Script(seed).run()
        assert made.passes, f"seed {seed}: {made}"
        told.add(made)
    assert told.faults > 300
    assert told.finished > 50
    assert len(told.by_place) > 200


def test_a_seed_injects_the_same_faults_again_in_another_process() -> None:
    """In one process, what the engine remembers of tensors would move the lines that a later run comes to."""
    code = "from tests.faults.script import Script; print(vars(Script(7).run()))"
    command = [sys.executable, "-c", code]
    first, second = (subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout for _ in range(2))
    assert first == second
    assert int(first.split(b",")[0].removeprefix(b"{'faults': ")) > 10


def test_the_entry_of_a_function_is_spared_and_each_of_its_lines_is_not() -> None:
    """A trace function that raises at an entry makes CPython 3.11 free objects that are still used."""
    interrupt = Interrupt(1, KeyboardInterrupt(), ["records.py"])
    with pytest.raises(KeyboardInterrupt):
        interrupt.call(lambda: list(tensors([])))
    code = tensors.__code__
    lines = sorted({line for _start, _end, line in code.co_lines() if line is not None and line > code.co_firstlineno})
    assert interrupt.where == ("records.py", lines[0], "tensors")
    never = Interrupt(files=["records.py"])
    never.call(lambda: bool(tensors([])))
    assert never.lines == 0


def test_calls_from_eight_threads_lose_no_request_no_result_and_no_bit() -> None:
    crowd = Crowd(1, 4000)
    told = crowd.run()
    assert told.passes, str(told)
    assert crowd.calls == 4000
    assert told.finished > 300


def ring() -> StreamPipeline:
    """A ring whose next tick finishes one request, moves one and admits one."""
    p = pipeline(3, 2, EagerExecutor(AffineDecoder(), 3))
    p.submit(request(0, source=fixed(3), denoise=0.4))
    p.submit(request(1, source=fixed(3), denoise=0.4))
    p.tick()
    p.submit(request(2, guidance=Guidance(2.0, [condition(9)])))
    p.submit(request(3))
    return p


def short() -> StreamPipeline:
    """A ring that is empty after one tick, and that has kept something before it."""
    p = pipeline(1, 1)
    p.submit(request(0))
    p.keep(p.tick())
    p.submit(request(1))
    return p


@pytest.mark.parametrize(
    ("call", "ring"), [(StreamPipeline.tick, ring), (StreamPipeline.drain, short)], ids=["tick", "drain"]
)
def test_an_interrupt_at_any_line_of_a_tick_loses_nothing_and_says_nothing_twice(call: Any, ring: Any) -> None:
    expected, kept = {each.id: each.latent for each in ring().drain()}, []

    def work(interrupt: Interrupt) -> None:
        p = ring()
        made = raised(interrupt, lambda: call(p), Outcomes())
        every = made.joined(p.drain())
        assert sorted(ends(every)) == sorted(expected), interrupt.where
        assert_identical({each.id: each.latent for each in every}, expected, str(interrupt.where))
        assert (p.stats().finished, p.collect()) == (len(expected), [])
        # The error holds its traceback, as a debugger or a shell does.
        kept.append(interrupt)

    assert {"pipeline.py", "keeping.py", "parcels.py", "state.py", "turns.py", "verdicts.py"} <= set(
        at_every_line(work)
    )


def test_an_interrupt_at_any_line_of_a_submission_leaves_it_whole_or_undone_and_names_what_it_displaced() -> None:
    def work(interrupt: Interrupt) -> None:
        p = pipeline(1, 2)
        p.submit(request(0))
        p.tick()
        p.submit(request(1))
        made = raised(interrupt, lambda: p.submit(request(2)))
        every = [*([] if made is None else ids(made.dropped)), *ends(p.drain())]
        displaced = p.stats().submitted == 3
        assert sorted(every) == ["r0", "r1", "r2"][: 3 if displaced else 2], interrupt.where
        assert p.stats().dropped == displaced

    assert at_every_line(work)["state.py"] > 10


@pytest.mark.parametrize("call", ["cancel", "set_depth"])
def test_an_interrupt_at_any_line_of_a_call_that_drops_requests_names_them_once(call: str) -> None:
    def work(interrupt: Interrupt) -> None:
        p = pipeline(2, 2)
        for seed in range(2):
            p.submit(request(seed))
        made = raised(interrupt, lambda: p.cancel("r0") if call == "cancel" else p.set_depth(1))
        assert sorted([*ids(made or ()), *ends(p.drain())]) == ["r0", "r1"], interrupt.where

    at_every_line(work)


def test_an_interrupt_at_any_line_of_a_collection_loses_nothing() -> None:
    def work(interrupt: Interrupt) -> None:
        p = pipeline(1, 1)
        p.submit(request(0))
        p.keep(p.tick())
        made = raised(interrupt, p.collect)
        assert ids([*(made or ()), *p.drain()]) == ["r0"], interrupt.where

    assert at_every_line(work)["parcels.py"] > 5


def test_an_interrupt_at_any_line_of_a_stream_s_tick_submits_once_and_loses_nothing() -> None:
    session = Session(AffineDecoder(E))
    stream = session.stream([condition()], fixed(7, T, 8), config=PipelineConfig(depth=1, steps=1), source=fixed(3))

    def work(interrupt: Interrupt) -> None:
        before = stream.pipeline.stats().submitted
        made = raised(interrupt, lambda: stream.tick(seed=5))
        if made is None:
            made = stream.tick(seed=5)
        assert [each.seed for each in made.joined(stream.drain())] == [5], interrupt.where
        assert stream.last_submission is not None
        assert stream.pipeline.stats().submitted == before + 1, interrupt.where

    assert at_every_line(work)["session.py"] > 10


def test_an_interrupt_at_any_line_of_a_stream_s_tick_submits_a_request_that_fails_in_it_once() -> None:
    def spoiled(**inputs: Tensor) -> Tensor:
        return AffineDecoder(E)(**inputs) * math.nan

    session = Session(spoiled)
    stream = session.stream([condition()], fixed(7, T, 8), config=PipelineConfig(depth=1, steps=1))

    def work(interrupt: Interrupt) -> None:
        before = stream.pipeline.stats().submitted
        made = raised(interrupt, lambda: stream.tick(seed=5))
        if made is None:
            made = stream.tick(seed=5)
        assert len(made.joined(stream.drain()).failed) == 1, interrupt.where
        assert stream.pipeline.stats().submitted == before + 1, interrupt.where

    assert at_every_line(work)["session.py"] > 10


def test_an_interrupt_at_any_line_names_a_request_that_failed_late_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "READ_LATER", {"cuda", "cpu"})

    def work(interrupt: Interrupt) -> None:
        p = pipeline(1, 3, Spoiling(math.nan, 0, 2, 3))
        p.submit(request(1))
        made = [p.tick() for _ in range(4)]
        made += [raised(interrupt, p.tick, Outcomes()), p.drain()]
        assert [ids(each.failed) for each in made if each.failed] == [["r1"]], interrupt.where
        assert sum(map(len, made)) == 1

    assert at_every_line(work)["verdicts.py"] > 5


def test_what_a_thread_that_ended_did_not_hand_out_is_handed_out_to_another_one() -> None:
    p = pipeline(1, 1)
    p.submit(request(0))

    thread = threading.Thread(target=lambda: p._ticked(Parcel()))
    thread.start()
    thread.join()
    assert ids(p.collect()) == ["r0"]


def test_what_another_thread_is_handing_out_is_left_to_it() -> None:
    p, made, there, done = pipeline(1, 1), [], threading.Event(), threading.Event()
    p.submit(request(0))

    def slow(parcel: Parcel) -> Outcomes:
        outcomes = p._ticked(parcel)
        there.set()
        assert done.wait(30)
        return outcomes

    thread = threading.Thread(target=lambda: made.extend(handed_out(slow)))
    thread.start()
    assert there.wait(30)
    assert p.collect() == []
    done.set()
    thread.join()
    assert (ids(made), p.collect()) == (["r0"], [])


def test_a_parcel_that_has_arrived_is_forgotten_by_the_next_call() -> None:
    p = pipeline(1, 1)
    for seed in range(20):
        p.submit(request(seed))
        p.tick()
    assert len(p._state.parcels) <= 2
    assert all(each.content is None for each in p._state.parcels)


def test_what_a_call_of_one_thread_has_failed_to_hand_out_another_thread_gets() -> None:
    p, made = pipeline(1, 1), list[Outcomes]()
    p.submit(request(0))

    def late(parcel: Parcel) -> None:
        p._ticked(parcel)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handed_out(late)
    thread = threading.Thread(target=lambda: made.append(p.collect()))
    thread.start()
    thread.join()
    assert [ids(each) for each in made] == [["r0"]]


class Telling(EagerExecutor):
    """Does something inside each run."""

    def __init__(self, tell: Callable[[], object]) -> None:
        super().__init__(AffineDecoder())
        self.tell = tell

    def run(self, batch: Batch) -> Tensor:
        self.tell()
        return super().run(batch)


def test_a_tick_that_fails_does_not_take_back_what_was_handed_out_meanwhile() -> None:
    p = pipeline(1, 1)
    p.submit(request(0))
    p.keep(p.tick())
    made: list[Any] = []

    def fails() -> None:
        made.extend(p.collect())
        raise MemoryError

    p.executor = Telling(fails)
    p.submit(request(1))
    with pytest.raises(MemoryError):
        p.tick()
    p.executor = EagerExecutor(AffineDecoder())
    assert ids([*made, *p.drain()]) == ["r0", "r1"]


def test_an_interrupt_while_a_failed_tick_is_tidied_up_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: Any) -> None:
        raise KeyboardInterrupt

    p = pipeline(1, 1, Telling(fails))
    p.submit(request(0))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(p._pace, "mark", fails)
        p.tick()
    assert (p.stats().queued, p.stats().in_flight) == (1, 0)
    p.executor = EagerExecutor(AffineDecoder())
    assert ids(p.drain()) == ["r0"]
