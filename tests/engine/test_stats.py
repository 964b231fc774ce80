"""Every count of a pipeline after every event of a run in which rows are split, ticks fail and requests are dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Guidance, PipelineConfig, Stats, StreamPipeline, Switches, X0Target
from harness.engine.conditioning import CacheCounts, ConditioningCache
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.parity.compare import assert_identical
from tests.engine.builders import D, T, condition, fixed, pipeline, request
from tests.fakes import LoggedStream


class Failing(StaticExecutor):
    """Runs of at most four rows on a stream of its own; fails at the run `at` from now."""

    at = 0

    def __init__(self) -> None:
        super().__init__(AffineDecoder(), 4, stream=LoggedStream())

    def run(self, batch: Batch) -> Tensor:
        self.at -= 1
        if self.at == 0:
            raise MemoryError("out of memory")
        return super().run(batch)


def counts(p: StreamPipeline) -> dict[str, Any]:
    found = asdict(p.stats())
    return found | found.pop("conditioning")


def fails_at_the_second_run(p: StreamPipeline) -> None:
    p.executor.at = 2  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        p.tick()


GUIDED = request(1, velocity_scale=0.5, guidance=Guidance(2.0, [condition(9)]))
TARGETED = request(2, x0_target=X0Target(fixed(3), 0.5))
MIXED = request(3, conditions=[condition(3), condition(4)], source=fixed(4), sde_curve=0.5)


def submits(*requests: Any) -> Callable[[StreamPipeline], object]:
    return lambda p: [p.submit(each) for each in requests]


def clean(seed: int) -> Any:
    """A request of one step."""
    return request(seed, source=fixed(3), denoise=0.0)


# What a correction or a gain asks is counted as what a request's curve asks is.
TOLD: list[tuple[str, Callable[[StreamPipeline], object], dict[str, int]]] = [
    ("two requests", submits(GUIDED, TARGETED), {"submitted": 2, "queued": 2}),
    (
        "a run of three rows",
        StreamPipeline.tick,
        {"ticks": 1, "admitted": 2, "queued": -2, "in_flight": 2, "decoder_runs": 1, "decoder_rows": 3, "joins": 1}
        | {"euler_steps": 2, "gates": 2, "misses": 1},
    ),
    ("another request", submits(MIXED), {"submitted": 1, "queued": 1}),
    ("a gain of one", lambda p: p.set_channel_gain(torch.ones(1, 1, D)), {}),
    (
        "runs of four rows and of one, and a target that acts",
        StreamPipeline.tick,
        {"ticks": 1, "admitted": 1, "queued": -1, "in_flight": 1, "decoder_runs": 2, "decoder_rows": 5, "joins": 2}
        | {"euler_steps": 1, "gates": 4, "misses": 2},
    ),
    ("a failure", fails_at_the_second_run, {}),
    (
        "the same tick again, with the hits of the one that failed",
        StreamPipeline.tick,
        {"ticks": 1, "finished": 2, "in_flight": -2, "decoder_runs": 2, "decoder_rows": 5, "joins": 2}
        | {"euler_steps": 1, "gates": 4, "hits": 4},
    ),
    ("one too many", submits(*map(clean, (4, 5, 6, 7))), {"submitted": 4, "queued": 3, "dropped": 1}),
    ("a smaller depth", lambda p: p.set_depth(2), {"depth": -1, "queued": -1, "dropped": 1}),
    (
        "two that end at once beside the last step of another",
        StreamPipeline.tick,
        {"ticks": 1, "admitted": 2, "finished": 3, "queued": -2, "in_flight": -1, "decoder_runs": 1, "decoder_rows": 4}
        | {"joins": 1, "euler_steps": 2, "gates": 2, "misses": 1},
    ),
    ("a request that stays in flight", submits(request(8)), {"submitted": 1, "queued": 1}),
    (
        "its first step",
        StreamPipeline.tick,
        {"ticks": 1, "admitted": 1, "queued": -1, "in_flight": 1, "decoder_runs": 1, "decoder_rows": 1}
        | {"joins": 1, "euler_steps": 1, "gates": 2, "misses": 1},
    ),
    ("a depth below the place of that slot", lambda p: p.set_depth(1), {"depth": -1}),
    ("another length", submits(request(9), request(10, frames=T + 1)), {"submitted": 2, "dropped": 2, "queued": 1}),
    (
        "three ticks",
        StreamPipeline.drain,
        {"ticks": 3, "admitted": 1, "finished": 1, "queued": -1, "decoder_runs": 3, "decoder_rows": 3, "joins": 3}
        | {"euler_steps": 3, "gates": 6, "hits": 2, "misses": 1},
    ),
    ("a tick of nothing", StreamPipeline.tick, {"ticks": 1, "gates": 2}),
    ("the end", StreamPipeline.close, {}),
]


def test_every_event_changes_every_count_by_what_it_did() -> None:
    p = StreamPipeline(Failing(), PipelineConfig(depth=3, steps=3, dcw=DCW("low", 0.0)))
    told = counts(p)
    assert told == counts(p) | dict.fromkeys(told, 0) | {"depth": 3}
    for name, event, change in TOLD:
        if name == "another length":
            told["in_flight"] -= 1  # dropped from its place, with the one that waited
        told = {count: value + change.get(count, 0) for count, value in told.items()}
        event(p)
        assert counts(p) == told, name


def test_only_a_stream_of_its_own_is_joined() -> None:
    p = pipeline()
    p.submit(request())
    p.drain()
    assert p.stats() == Stats(3, 1, 1, 1, 0, 0, 3, 3, 0, 3, 0, 2, 0, 0, 0, CacheCounts(2, 1))


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
def test_more_batches_than_the_cache_holds_have_their_bits_and_are_counted(kind: type[EagerExecutor]) -> None:
    """Eight are kept. Nine in turn are each gone when their turn comes again, and a write is seen by the next one."""
    assert ConditioningCache().capacity == 8
    context, prompts, ended = fixed(7, T, 2 * D), [condition(seed) for seed in range(9)], []
    for cached in (True, False):
        written = [condition(50), *prompts[1:]]
        p = pipeline(1, 1, kind(AffineDecoder()), switches=Switches(cached_conditioning=cached))
        for turn in range(2):
            for seed, prompt in enumerate(written):
                p.submit(request(seed, conditions=[prompt], context_latents=context))
                ended += p.drain()
            written[0].encoder_hidden_states.mul_(2 + turn)
        for prompt in (written[8], written[1], written[0]):
            p.submit(request(3, conditions=[prompt], context_latents=context))
            ended += p.drain()
        assert p.stats().conditioning == (CacheCounts(2, 19, 11) if cached else CacheCounts())
    half = len(ended) // 2
    assert_identical([each.latent for each in ended[:half]], [each.latent for each in ended[half:]], "latents")


def test_a_submission_of_another_length_makes_a_ring_of_the_depth_that_is_asked_for() -> None:
    with pipeline(depth=4, steps=4) as p:
        for seed in range(4):
            p.submit(request(seed))
        p.tick()
        p.set_depth(2)
        assert (p.depth, len(p.slots)) == (2, 4)
        longer = request(9, context_latents=fixed(1, T + 2, 2 * D))
        assert len(p.submit(longer).dropped) == 4
        assert (p.depth, p.slots) == (2, (None, None))
        p.tick()
        assert len(p.slots) == 2
