from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import (
    Condition,
    DropReason,
    Guidance,
    InvalidInput,
    LatentMask,
    PipelineClosed,
    PipelineConfig,
    Request,
    StreamPipeline,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import assert_identical, difference

T, D, E = 6, 4, 8


def fixed(seed: int, frames: int, width: int) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def request(seed: int = 1, frames: int = T, tokens: int = 5, **fields: Any) -> Request:
    return Request(
        **{
            "conditions": [Condition(fixed(seed, tokens, E))],
            "context_latents": fixed(7, frames, 2 * D),
            "seed": seed,
            "id": f"r{seed}",
            **fields,
        }
    )


def pipeline(depth: int = 2, steps: int = 3, executor: Any = None, **fields: Any) -> StreamPipeline:
    return StreamPipeline(
        executor or EagerExecutor(AffineDecoder()), PipelineConfig(depth=depth, steps=steps, **fields)
    )


def held(p: StreamPipeline) -> Any:
    return p.slots, p._queue, p._controls, p.stats(), p.encoder_length, p.depth


class Flaky(EagerExecutor):
    """Fails at the runs it is told."""

    def __init__(self, failing: set[int], max_rows: int = 8) -> None:
        super().__init__(AffineDecoder(), max_rows)
        self.failing, self.runs = failing, 0

    def run(self, batch: Batch) -> Tensor:
        self.runs += 1
        if self.runs in self.failing:
            raise MemoryError("out of memory")
        return super().run(batch)


def test_a_request_finishes_after_its_steps() -> None:
    p = pipeline()
    p.submit(request())
    assert [len(p.tick()) for _ in range(4)] == [0, 0, 1, 0]
    assert p.stats().finished == 1


def test_a_full_queue_drops_its_oldest_and_says_so() -> None:
    p = pipeline(depth=1)
    p.submit(request(1))
    (dropped,) = p.submit(request(2)).dropped
    assert (dropped.id, dropped.reason) == ("r1", DropReason.QUEUE_FULL)


def test_another_length_displaces_what_is_queued_and_in_flight() -> None:
    p = pipeline(depth=1)
    p.submit(request(1))
    p.tick()
    p.submit(request(2))
    dropped = p.submit(request(3, frames=T + 1)).dropped
    assert [(d.id, d.reason) for d in dropped] == [("r1", DropReason.LENGTH_CHANGED), ("r2", DropReason.LENGTH_CHANGED)]
    assert [f.id for f in p.drain()] == ["r3"]


def test_slots_beyond_a_smaller_depth_finish() -> None:
    p = pipeline(depth=3)
    for seed in (1, 2, 3):
        p.submit(request(seed))
    p.tick()
    p.set_depth(1)
    assert sorted(str(f.id) for f in p.drain()) == ["r1", "r2", "r3"]
    assert len(p.slots) == 1


def test_a_depth_above_the_executor_s_rows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="max_depth = 8"):
        pipeline(depth=9)
    with pytest.raises(InvalidInput, match="max_depth = 8"):
        pipeline().set_depth(9)


BAD = [
    request(9, tokens=65),
    request(9, conditions=[Condition(torch.ones(1, 2, E + 1))]),
    request(9, context_latents=torch.ones(1, T, 2 * D + 2)),
    request(9, frames=T + 1),
    "no request",
]


@pytest.mark.parametrize("bad", BAD, ids=["tokens", "width", "channels", "control length", "type"])
def test_a_rejected_request_leaves_queue_ring_and_controls_as_they_were(bad: Any) -> None:
    p = pipeline()
    p.submit(request(1))
    p.tick()
    p.set_shared_curve("velocity_scale", torch.linspace(0.5, 1.0, T))
    p.submit(request(2))
    before = held(p)
    with pytest.raises(InvalidInput):
        p.submit(bad)
    assert all(a is b or a == b for a, b in zip(held(p), before, strict=True))


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_failed_tick_changes_nothing_and_can_be_run_again(failing: int) -> None:
    guided = request(1, guidance=Guidance(3.0, [Condition(fixed(8, 2, E))]))
    latents = []
    for runs in (set(), {failing}):
        p = pipeline(executor=Flaky(runs, max_rows=2))
        p.submit(guided)
        p.submit(request(2))
        while p.stats().in_flight or p.stats().queued:
            before = held(p)
            try:
                latents += [f.latent for f in p.tick()]
            except MemoryError:
                assert all(a is b or a == b for a, b in zip(held(p), before, strict=True))
    assert_identical(latents[2:], latents[:2], "latents")


def test_a_latent_that_was_handed_out_never_changes() -> None:
    p = pipeline(depth=3)
    p.submit(request(1, guidance=Guidance(3.0, [Condition(fixed(8, 2, E))], "initialize")))
    (finished,) = p.drain()
    copy = finished.latent.clone()
    for seed in range(20):
        p.submit(request(seed))
        p.tick()
        assert_identical(finished.latent, copy)


def test_a_shared_control_acts_on_the_next_tick_and_none_gives_it_back() -> None:
    ended = []
    for values in ([None, None, None], [None, 0.5, None], [None, 1.0, None]):
        p = pipeline()
        p.submit(request())
        for value in values:
            p.set_shared_curve("velocity_scale", value)
            finished = p.tick()
        ended.append(finished[0].latent)
    assert difference(ended[1], ended[0]) is not None
    assert_identical(ended[2], ended[0])


def test_an_unknown_control_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'velocity_scale'"):
        pipeline().set_shared_curve("volume", 1.0)


def test_the_first_submission_fixes_the_encoder_length() -> None:
    p = pipeline()
    p.submit(request(1, guidance=Guidance(2.0, [Condition(torch.ones(1, 65, E))])))
    assert p.encoder_length == 128


class Maskless(AffineDecoder):
    takes_mask = False

    def __call__(self, **inputs: Tensor) -> Tensor:
        length = inputs["encoder_hidden_states"].shape[:2]
        return super().__call__(encoder_mask=torch.ones(length, dtype=torch.bool), **inputs)


def test_a_decoder_without_a_mask_refuses_unequal_lengths_unless_zeros_are_asked_for() -> None:
    p = pipeline(executor=EagerExecutor(Maskless()))
    p.submit(request(1, tokens=5))
    with pytest.raises(InvalidInput, match="takes no mask"):
        p.submit(request(2, tokens=4))
    p = pipeline(executor=EagerExecutor(Maskless()), padding="zeros")
    p.submit(request(1, tokens=5))
    p.submit(request(2, tokens=4))
    assert len(p.drain()) == 2


def test_a_mask_strength_out_of_range_fails_the_tick_by_name() -> None:
    p = pipeline()
    p.submit(request(latent_mask=LatentMask(1.0, fixed(3, T, D), lambda step, total: 2.0)))
    with pytest.raises(InvalidInput, match="strength_at"):
        p.tick()
    assert p.stats().queued == 1


def test_a_closed_pipeline_says_so() -> None:
    with pipeline() as p:
        p.submit(request())
    p.close()
    with pytest.raises(PipelineClosed):
        p.tick()
