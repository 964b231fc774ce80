"""One request's failure is its own: it is named, the others end with the bits that they have without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from torch import Tensor

from harness.engine import StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from tests.engine.builders import fixed, pipeline, request


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
