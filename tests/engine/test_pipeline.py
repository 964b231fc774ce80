from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.engine import (
    Condition,
    DropReason,
    Guidance,
    InvalidInput,
    LatentMask,
    PipelineClosed,
    PipelineConfig,
    Stats,
    StreamPipeline,
    Switches,
    X0Target,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.schedule import timesteps
from harness.parity.compare import assert_identical, difference
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request


def held(p: StreamPipeline) -> Any:
    return p.slots, p._state.queue, p._state.controls, p.stats(), p.encoder_length, p.depth


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


@pytest.mark.parametrize("depth", [0, 9, 1.5])
def test_a_refused_depth_changes_nothing(depth: Any) -> None:
    p = pipeline()
    before = held(p)
    with pytest.raises(InvalidInput):
        p.set_depth(depth)
    assert held(p) == before


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


def test_a_closed_pipeline_says_so() -> None:
    with pipeline() as p:
        p.submit(request())
    p.close()
    calls = [p.tick, p.drain, lambda: p.submit(request()), lambda: p.set_depth(1), lambda: p.set_dcw(None)]
    calls += [lambda: p.set_channel_gain(None), lambda: p.set_shared_curve("momentum", None)]
    for call in calls:
        with pytest.raises(PipelineClosed):
            call()
    assert (p.stats().submitted, p.stats().queued) == (1, 0)


def test_what_is_finished_names_its_request() -> None:
    p = pipeline()
    p.submit(request(4))
    (finished,) = p.drain()
    assert (finished.id, finished.seed, finished.steps, finished.denoise) == ("r4", 4, 3, 1.0)
    assert (finished.ticks_in_flight, finished.latent.shape) == (3, (1, T, D))


def test_stats_count_what_was_committed() -> None:
    p = pipeline(depth=1)
    for seed in (1, 2):
        p.submit(request(seed, guidance=Guidance(2.0, [condition(9)])))
    p.drain()
    p.tick()
    s = p.stats()
    assert (s.ticks, s.submitted, s.admitted, s.finished, s.dropped) == (4, 2, 1, 1, 1)
    assert (s.decoder_runs, s.decoder_rows, s.depth, s.in_flight, s.queued) == (3, 6, 1, 0, 0)
    assert (s.conditioning.hits, s.conditioning.misses) == (2, 1)


def test_a_larger_depth_admits_more_on_the_next_tick() -> None:
    p = pipeline(depth=1)
    p.submit(request(1))
    p.tick()
    p.set_depth(2)
    for seed in (2, 3):
        p.submit(request(seed))
    p.tick()
    assert [slot.id for slot in p.slots] == ["r1", "r2"]
    assert p.stats().queued == 1


def test_a_smaller_depth_admits_nothing_beyond_it() -> None:
    p = pipeline(depth=2, steps=2)
    for seed in (1, 2):
        p.submit(request(seed))
    p.tick()
    p.set_depth(1)
    p.submit(request(3))
    p.tick()
    p.tick()
    assert [slot.id for slot in p.slots] == ["r3"]


def test_the_encoder_length_stays_and_a_longer_condition_is_refused() -> None:
    p = pipeline()
    p.submit(request(1, tokens=5))
    assert p.encoder_length == 64
    with pytest.raises(InvalidInput, match="65 tokens, expected at most encoder_length = 64"):
        p.submit(request(2, guidance=Guidance(2.0, [condition(2, 65)])))
    p.submit(request(3, tokens=64))
    assert p.encoder_length == 64


def test_a_decoder_without_a_mask_refuses_a_caller_s_mask() -> None:
    masked = request(conditions=[condition(tokens=3, encoder_mask=torch.tensor([[1, 0, 1]]))])
    with pytest.raises(InvalidInput, match="encoder_mask.*takes no mask"):
        pipeline(executor=EagerExecutor(Maskless())).submit(masked)


def test_no_tick_writes_into_a_tensor_of_the_ring_or_of_a_request() -> None:
    source = fixed(5)
    p = pipeline(steps=4)
    p.submit(request(1, guidance=Guidance(3.0, [condition(9)], "initialize"), noise_injection=0.2))
    p.submit(request(2, source=source, denoise=0.7, latent_mask=LatentMask(0.5, source)))
    while p.stats().queued or p.stats().in_flight:
        seen = [tensor for slot in p.slots if slot for tensor in slot.state().values()]
        seen += [source, *(slot.request.context_latents for slot in p.slots if slot)]
        versions, copies = [t._version for t in seen], [t.clone() for t in seen]
        p.tick()
        assert [t._version for t in seen] == versions
        assert_identical(seen, copies)


def test_a_shared_curve_of_another_length_is_refused_when_set_and_at_submit() -> None:
    p = pipeline()
    p.set_shared_curve("momentum", torch.zeros(T + 1))
    with pytest.raises(InvalidInput, match="6 frames, expected 7 frames, as the shared control momentum"):
        p.submit(request())
    p.set_shared_curve("momentum", None)
    p.submit(request())
    with pytest.raises(InvalidInput, match="momentum: got a curve of 7 frames"):
        p.set_shared_curve("momentum", torch.zeros(T + 1))


def test_a_channel_gain_of_other_channels_is_refused_at_submit() -> None:
    p = pipeline()
    p.set_channel_gain(torch.ones(1, 1, D + 1) * 2)
    with pytest.raises(InvalidInput) as refused:
        p.submit(request())
    assert str(refused.value) == (
        "context_latents: got 4 latent channels, expected 5 channels, as the channel gain in force has "
        "(set it to None first)"
    )
    p.set_channel_gain(None)
    p.submit(request())
    with pytest.raises(InvalidInput, match=r"^channel_gain: got .* \[1, 1, 5\] on cpu, expected .* \[1, T, 4\]$"):
        p.set_channel_gain(torch.ones(1, 1, D + 1))
    with pytest.raises(InvalidInput, match=r"^channel_gain: got .* \[1, 2, 4\] on cpu, expected 1 or 6 frames$"):
        p.set_channel_gain(torch.ones(1, 2, D))


def test_a_channel_gain_of_another_length_is_refused_at_submit() -> None:
    p = pipeline()
    p.set_channel_gain(torch.full((1, T + 1, D), 2.0))
    with pytest.raises(InvalidInput, match="6 frames, expected 7 frames, as the channel gain in force has"):
        p.submit(request())


def test_a_first_request_that_is_refused_fixes_no_sizes() -> None:
    p = pipeline()
    p.set_channel_gain(torch.full((1, 1, D + 1), 2.0))
    with pytest.raises(InvalidInput):
        p.submit(request())
    p.submit(request(context_latents=torch.ones(1, T, 2 * D + 2)))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("waiting", [0, 1, 2, 3, 4])
def test_a_smaller_depth_drops_the_oldest_that_wait_beyond_it_and_so_does_the_next_submission(
    depth: int, waiting: int
) -> None:
    p = pipeline(depth=4)
    for seed in range(waiting):
        p.submit(request(seed))
    dropped = p.set_depth(depth)
    assert {d.reason for d in dropped} <= {DropReason.QUEUE_FULL}
    assert p.stats().queued == min(waiting, depth)
    names = [*(f"r{seed}" for seed in range(waiting)), "r9"]
    assert [d.id for d in dropped] == names[: max(waiting - depth, 0)]
    dropped += p.submit(request(9)).dropped
    assert [d.id for d in dropped] == names[: max(len(names) - depth, 0)]
    assert [queued.id for queued in p._state.queue] == names[max(len(names) - depth, 0) :]
    assert p.stats().queued == min(waiting + 1, depth)


@given(
    lives=st.lists(st.sampled_from([1.0, 0.0, 0.5]), min_size=3, max_size=9),
    depths=st.lists(st.integers(1, 4), min_size=4, max_size=12),
)
@settings(max_examples=40)
@example(lives=[0.0, 1.0, 1.0], depths=[3, 3, 3, 3])
@example(lives=[0.0, 1.0, 1.0, 0.0], depths=[3, 1, 1, 2])
def test_a_slot_keeps_its_place_as_long_as_it_is_in_flight(lives: list[float], depths: list[int]) -> None:
    """Whoever finishes beside it, and whatever becomes of the depth: the ring is never closed up."""
    p, places = pipeline(depth=3), {}
    for number, depth in enumerate(depths):
        for seed in range(number, len(lives), len(depths)):
            p.submit(request(seed, source=fixed(3), denoise=lives[seed]))
        p.set_depth(depth)
        p.tick()
        for index, slot in enumerate(p.slots):
            if slot is not None:
                assert places.setdefault(slot.id, index) == index
                assert slot.step == p.stats().ticks - slot.admitted_at


def test_after_a_shrink_the_queue_holds_no_more_than_the_new_depth() -> None:
    p = pipeline(depth=3)
    for seed in range(3):
        p.submit(request(seed))
    p.tick()
    p.set_depth(1)
    dropped = [[each.id for each in p.submit(request(seed)).dropped] for seed in range(3, 6)]
    assert dropped == [[], ["r3"], ["r4"]]


def test_an_observer_that_fails_at_the_commit_leaves_the_pipeline_as_it_was() -> None:
    failing = [True]

    def observe(stage: str, index: int, name: str, tensor: Tensor) -> None:
        if stage == "commit" and failing.pop():
            failing.append(False)
            raise RuntimeError("full disk")
        if not failing:
            failing.append(False)

    p = StreamPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(depth=2, steps=3), observe=observe)
    p.submit(request())
    before = held(p)
    with pytest.raises(RuntimeError, match="full disk"):
        p.tick()
    assert held(p) == before
    twin = pipeline()
    twin.submit(request())
    assert_identical(p.drain()[0].latent, twin.drain()[0].latent)


@pytest.mark.parametrize("strength", [lambda _step, _total: 0.0, lambda step, total: step / total])
def test_a_latent_mask_may_have_strength_0_at_any_step(strength: Any) -> None:
    """Strength 0 keeps the original everywhere; it is not the same as no mask."""
    original, p = fixed(3), pipeline()
    p.submit(request(latent_mask=LatentMask(0.5, original, strength)))
    (finished,) = p.drain()
    plain = pipeline()
    plain.submit(request())
    assert difference(finished.latent, plain.drain()[0].latent) is not None
    if strength(1, 2) == 0.0:
        assert torch.allclose(finished.latent, original, atol=1e-5)


@pytest.mark.parametrize("cut", [(..., slice(0, 1)), (slice(None), slice(0, 1)), (slice(0, 1),)])
def test_a_velocity_of_another_shape_is_refused_and_never_broadcast(cut: Any) -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        return AffineDecoder()(**inputs)[cut]

    p = pipeline(executor=EagerExecutor(decoder))
    p.submit(request(1))
    p.submit(request(2))
    with pytest.raises(Exception, match="the executor returned"):
        p.tick()


@pytest.mark.parametrize("gates", [True, False])
def test_a_number_that_float32_rounds_to_a_neutral_value_is_neutral(gates: bool) -> None:
    made = []
    for strength in (1e-60, 0.0):
        p = pipeline(switches=Switches(host_gates=gates))
        p.submit(request(x0_target=X0Target(fixed(3), strength=strength)))
        made.append(p.drain()[0].latent)
    assert_identical(made[0], made[1])


def test_a_view_of_the_same_memory_is_another_condition() -> None:
    states, context = fixed(1, 9, E), fixed(7, T, 2 * D)
    made = []
    for cached in (True, False):
        p = pipeline(depth=1, switches=Switches(cached_conditioning=cached))
        for tokens in (9, 4):
            p.submit(request(conditions=[Condition(states[:, :tokens])], context_latents=context, id=tokens))
            made.append(p.drain()[0].latent)
    assert_identical(made[0], made[2])
    assert_identical(made[1], made[3])
    assert difference(made[0], made[1]) is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fields", [{"denoise": 0.5}, {"initial_noise": 0.5}, {"sde_curve": 0.5, "denoise": 0.5}])
def test_a_source_of_any_dtype_is_computed_in_float32(dtype: torch.dtype, fields: dict[str, float]) -> None:
    made = []
    for source in (fixed(3).to(dtype), fixed(3).to(dtype).float()):
        p = pipeline(solver="sde" if "sde_curve" in fields else "ode")
        p.submit(request(source=source, **fields))
        made.append(p.drain()[0].latent)
    assert made[0].dtype is torch.float32
    assert_identical(made[0], made[1])


def test_an_automatic_name_is_none_that_a_caller_has_used() -> None:
    p = pipeline()
    p.submit(request(id="request-1"))
    assert [p.submit(request(id=None)).id for _ in range(2)] == ["request-2", "request-3"]


def test_a_closed_pipeline_keeps_no_condition() -> None:
    p = pipeline()
    p.submit(request())
    p.tick()
    assert len(p._cache) == 1
    p.close()
    assert len(p._cache) == 0


@given(st.floats(0.0, 1.0), st.sampled_from([1, 3, 8]), st.floats(0.5, 5.0))
@example(0.66666, 8, 3.0)
@example(0.00004, 8, 3.0)
def test_a_request_takes_the_times_of_its_own_denoise(denoise: float, steps: int, shift: float) -> None:
    p = pipeline(depth=1, steps=steps, shift=shift)
    p.submit(request(denoise=denoise, source=torch.ones(1, T, D)))
    p.tick()
    (slot,) = p.slots
    times = timesteps(steps, denoise, shift)
    assert slot is None if len(times) == 2 else slot is not None and slot.times == times


class Elsewhere(Tensor):
    """A tensor that says that it is on another device, which is one where numbers can go."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cpu:1")


def elsewhere(*shape: int) -> Tensor:
    return torch.ones(shape).as_subclass(Elsewhere)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("source", lambda p: p.submit(request(source=elsewhere(1, T, D)))),
        ("x0_target.latent", lambda p: p.submit(request(x0_target=X0Target(elsewhere(1, T, D), 0.5)))),
        ("latent_mask.original", lambda p: p.submit(request(latent_mask=LatentMask(0.5, elsewhere(1, T, D))))),
        ("channel_gain", lambda p: p.set_channel_gain(elsewhere(1, T, D))),
    ],
)
def test_a_tensor_on_another_device_is_refused_by_name(field: str, call: Callable[[StreamPipeline], Any]) -> None:
    p = pipeline()
    p.submit(request())
    with pytest.raises(InvalidInput, match=f"{field}: got a tensor on cpu:1, expected a tensor on cpu,"):
        call(p)
    assert p.stats().submitted == 1


def test_the_counts_of_nothing_are_zero() -> None:
    assert set(asdict(replace(Stats(), conditioning=0)).values()) == {0}


def test_sizes_are_known_from_the_configuration_or_the_first_request_that_is_taken() -> None:
    told = []
    for configured in (None, 70):
        p = pipeline(encoder_length=configured)
        told.append([p.encoder_length])
        with pytest.raises(InvalidInput):
            p.submit("no request")  # type: ignore[arg-type]
        told[-1].append(p.encoder_length)
        p.submit(request(tokens=65))
        told[-1].append(p.encoder_length)
        p.close()
        told[-1].append(p.encoder_length)
    assert told == [[None, None, 128, 128], [70] * 4]
    p = pipeline(depth=3, executor=EagerExecutor(AffineDecoder(), 5))
    assert (p.depth, p.max_depth, p.slots) == (3, 5, (None,) * 3)
    p.set_depth(5)
    assert (p.depth, p.max_depth, p.slots) == (5, 5, (None,) * 5)
    p.set_depth(1)
    assert (p.depth, p.max_depth, p.slots) == (1, 5, (None,))
    p.close()
    assert (p.depth, p.max_depth, p.slots) == (1, 5, ())
