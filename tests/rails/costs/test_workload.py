"""A workload's ring is fed like a stream: which requests it takes, in which tick, and what comes out of it when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.engine import Switches
from harness.engine.config import PipelineConfig
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.request import Guidance, Request, normal, required
from harness.engine.session import Stream
from harness.engine.switches import PLAIN_PATH
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Guided, Masked, Script, Submit, Text, Toward
from harness.parity.compare import assert_identical
from harness.rails.costs.workload import KINDS, STEPS, STREAMS, Asked, Ring, StreamRing, Workload, is_due

P, N = (Text(1, 7),), (Text(2, 5),)


def test_the_requests_of_each_kind_of_ring_are_these() -> None:
    assert STEPS == 8
    full, self_, initialize = (Guided(2.5, n, mode) for n, mode in ((N, "full"), ((), "self"), (N, "initialize")))
    assert dict(KINDS) == {
        "plain": (Submit(texts=P),),
        "cfg_full": (Submit(texts=P, guided=full),),
        "rcfg_initialize": (Submit(texts=P, guided=initialize),),
        "rcfg_self": (Submit(texts=P, guided=self_),),
        "mixed": (
            Submit(texts=P, guided=full, velocity_scale=(0.9, 1.1)),
            Submit(texts=P, guided=self_, noise_injection=0.1),
            Submit(texts=P, guided=initialize, source=5, masked=Masked(6, every=2)),
            Submit(texts=P, source=5, toward=Toward(7, strength=0.3), denoise=0.6),
        ),
    }
    assert list(KINDS) == ["plain", "cfg_full", "rcfg_initialize", "rcfg_self", "mixed"]


def test_the_arguments_of_each_kind_of_stream_are_these() -> None:
    assert list(STREAMS) == ["plain", "source", "cfg_full", "rcfg_initialize", "rcfg_self"]
    assert dict(STREAMS) == {
        "plain": Asked(1.0, None),
        "source": Asked(0.6, None),
        "cfg_full": Asked(1.0, GuidanceMode.FULL),
        "rcfg_initialize": Asked(1.0, GuidanceMode.INITIALIZE),
        "rcfg_self": Asked(1.0, GuidanceMode.SELF),
    }
    assert Asked().guidance() is None
    assert (Asked(mode=GuidanceMode.FULL).guidance(), type(Asked(mode=GuidanceMode.FULL).guidance())) == (2.5, float)
    for mode in (GuidanceMode.INITIALIZE, GuidanceMode.SELF):
        made = Asked(mode=mode).guidance()
        assert isinstance(made, Guidance)
        assert (made.mode, required(made.scale).uniform, tuple(made.negatives)) == (mode, 2.5, ())


PERIODS = {
    ("plain", False): {1: 8, 2: 8, 3: 8, 4: 8, 6: 8, 8: 8},
    ("mixed", False): {1: 32, 2: 16, 3: 32, 4: 8, 6: 16, 8: 8},
    ("plain", True): {1: 8, 2: 8, 3: 8, 4: 8, 6: 8, 8: 8},
    ("source", True): {1: 8, 4: 8},
}


def test_a_period_is_over_when_every_place_has_held_every_kind_of_request() -> None:
    found = {
        (kind, streamed): {depth: Workload(kind, depth, streamed=streamed).period for depth in depths}
        for (kind, streamed), depths in PERIODS.items()
    }
    assert found == PERIODS


@pytest.mark.parametrize("dcw", [False, True])
@pytest.mark.parametrize("switches", [Switches(), PLAIN_PATH, Switches(fused_cfg=False)])
def test_a_workload_s_pipeline_has_its_depth_its_correction_and_its_switches(dcw: bool, switches: Switches) -> None:
    made = Workload("plain", 3, dcw, switches).config
    said = (made.depth, made.steps, made.encoder_length, made.switches, made.solver, made.shift)
    assert said == (3, 8, 64, switches, PipelineConfig().solver, 3.0)
    assert (made.dcw is not None) == dcw
    if made.dcw is not None:
        assert (made.dcw.mode, made.dcw.wavelet, [s.uniform for s in made.dcw.scalers]) == (
            "double", "haar", [pytest.approx(0.05), pytest.approx(0.02)]
        )  # fmt: skip


def test_a_workload_is_a_ring_of_16_frames_without_correction_and_with_every_switch_on() -> None:
    assert Workload("plain", 4) == Workload("plain", 4, False, Switches(), 16, False)


# When a request is due.


def times(depth: int, steps: int, ticks: int) -> list[int]:
    """Ticks before which a request enters a ring whose requests take `steps` ticks; the tick that takes it counts."""
    entered: list[int] = []
    for tick in range(ticks):
        while True:
            flying = sum(tick < at + steps for at in entered)
            if not is_due(SimpleNamespace(ticks=tick, in_flight=flying, queued=0), len(entered), depth, steps):  # type: ignore[arg-type]
                break
            entered.append(tick)
    return entered


@pytest.mark.parametrize(("depth", "steps", "wanted"), [
    (1, 8, [0, 8, 16, 24]),
    (2, 8, [0, 4, 8, 12, 16, 20, 24, 28]),
    (3, 8, [0, 2, 4, 8, 10, 12, 16, 18, 20, 24, 26, 28]),
    (4, 8, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]),
    (8, 8, list(range(32))),
])  # fmt: skip
def test_a_ring_fills_at_equal_distances_and_then_takes_a_request_at_every_free_place(
    depth: int, steps: int, wanted: list[int]
) -> None:
    assert times(depth, steps, 32) == wanted


@pytest.mark.parametrize(("in_flight", "queued", "due"), [
    (0, 0, True), (3, 0, True), (2, 1, True), (0, 3, True), (4, 0, False), (3, 1, False), (0, 4, False), (5, 0, False)
])  # fmt: skip
@pytest.mark.parametrize("submitted", [4, 5, 100])
def test_a_full_ring_takes_nothing_and_what_waits_counts(
    in_flight: int, queued: int, due: bool, submitted: int
) -> None:
    assert is_due(SimpleNamespace(ticks=0, in_flight=in_flight, queued=queued), submitted, 4, 8) is due  # type: ignore[arg-type]


@pytest.mark.parametrize(("ticks", "submitted", "due"), [
    (0, 0, True), (0, 1, False), (1, 1, False), (2, 1, True), (3, 1, True), (3, 2, False), (4, 2, True), (5, 3, False),
    (6, 3, True), (0, 4, True),
])  # fmt: skip
def test_a_ring_that_fills_waits_for_the_next_request_s_tick(ticks: int, submitted: int, due: bool) -> None:
    assert is_due(SimpleNamespace(ticks=ticks, in_flight=0, queued=0), submitted, 4, 8) is due  # type: ignore[arg-type]


@pytest.mark.parametrize(("ticks", "submitted", "due"), [(0, 0, True), (0, 1, False), (1, 1, True), (2, 3, False)])
def test_a_ring_deeper_than_its_requests_are_long_fills_by_one_a_tick(ticks: int, submitted: int, due: bool) -> None:
    assert is_due(SimpleNamespace(ticks=ticks, in_flight=0, queued=0), submitted, 4, 2) is due  # type: ignore[arg-type]


# Rings.


def executor() -> EagerExecutor:
    return EagerExecutor(AffineDecoder(16), max_rows=16)


class Taking:
    """In place of a pipeline: keeps what is submitted and has a place free for so many."""

    def __init__(self, free: int) -> None:
        self.free, self.taken = free, list[Request]()

    def stats(self) -> Any:
        return SimpleNamespace(ticks=100, in_flight=0, queued=max(0, len(self.taken) - self.free))

    def submit(self, request: Request) -> None:
        self.taken.append(request)


def taken(workload: Workload, count: int, **sizes: Any) -> list[Request]:
    ring = Ring(workload, executor(), **sizes)
    ring.pipeline = Taking(count - workload.depth)  # type: ignore[assignment]
    ring.feed()
    return ring.pipeline.taken  # type: ignore[attr-defined, no-any-return]


def test_a_ring_s_requests_are_those_of_its_kind_in_turn_with_seeds_from_1_on_and_one_context() -> None:
    requests = taken(Workload("mixed", 4, frames=10), 9, channels=3, encoder_dim=5)
    assert [request.seed for request in requests] == list(range(1, 10))
    assert {id(request.context_latents) for request in requests} == {id(requests[0].context_latents)}
    assert_identical(requests[0].context_latents, torch.zeros(1, 10, 6))
    props = Props(Script(frames=10, channels=3, encoder_dim=5))
    for number, request in enumerate(requests):
        wanted = props.request(KINDS["mixed"][number % 4])
        assert (request.denoise, request.frames) == (wanted.denoise, 10)
        assert (request.guidance and request.guidance.mode) == (wanted.guidance and wanted.guidance.mode)
        assert [normal(request.velocity_scale) is None, normal(request.noise_injection) is None] == [
            normal(wanted.velocity_scale) is None,
            normal(wanted.noise_injection) is None,
        ]
        assert [request.source is None, request.x0_target is None, request.latent_mask is None] == [
            wanted.source is None,
            wanted.x0_target is None,
            wanted.latent_mask is None,
        ]
        (condition,) = request.conditions
        assert condition is requests[0].conditions[0]
        assert_identical(condition.encoder_hidden_states, props.condition(P[0], 10).encoder_hidden_states)


def test_a_ring_has_4_channels_and_an_encoder_of_16_unless_others_are_named() -> None:
    (request,) = taken(Workload("plain", 1), 1)
    assert request.context_latents.shape == (1, 16, 8)
    assert request.conditions[0].encoder_hidden_states.shape == (1, 7, 16)


def test_every_tensor_of_a_ring_is_on_its_device() -> None:
    ring = Ring(Workload("plain", 1), executor(), device="meta")
    made = (ring._context, ring._props.latent(1, 16), ring._props.drawn(1, 2, 3))
    assert {tensor.device.type for tensor in made} == {"meta"}


OUT = {
    ("plain", 1): [(7, 1), (15, 2), (23, 3)],
    ("plain", 4): [(7, 1), (9, 2), (11, 3), (13, 4), (15, 5), (17, 6), (19, 7), (21, 8), (23, 9)],
    # Every fourth request of a mixed ring starts from its source at a denoise of 0.6, in as many steps.
    ("mixed", 8): [(7 + n, 1 + n) for n in range(17)],
}


@pytest.mark.parametrize(("kind", "depth"), OUT)
def test_a_ring_hands_out_each_request_after_its_steps(kind: str, depth: int) -> None:
    ring = Ring(Workload(kind, depth, frames=5), executor())
    out = [(tick, finished) for tick in range(24) for finished in ring.tick()]
    assert [(tick, finished.seed) for tick, finished in out] == OUT[kind, depth]
    assert {tuple(finished.latent.shape) for _, finished in out} == {(1, 5, 4)}


def test_a_ring_s_advance_feeds_nothing() -> None:
    ring = Ring(Workload("plain", 2, frames=5), executor())
    assert ring.advance() == [] and ring.pipeline.stats().admitted == 0
    ring.feed()
    assert (ring.pipeline.stats().queued, ring.pipeline.stats().ticks) == (1, 1)
    ring.advance()
    assert (ring.pipeline.stats().admitted, ring.pipeline.stats().ticks) == (1, 2)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_warm_up_is_a_request_s_steps_and_one_period_and_leaves_a_full_ring(streamed: bool) -> None:
    workload = Workload("plain" if streamed else "mixed", 2, frames=5, streamed=streamed)
    ring = StreamRing(workload, AffineDecoder(16), executor()) if streamed else Ring(workload, executor())
    ring.warm_up()
    stats = ring.pipeline.stats()
    entered = workload.period // 4 + 2
    found = (stats.ticks, stats.admitted, stats.finished, stats.in_flight)
    assert found == (8 + workload.period, entered, entered - 1, 1)
    ring.feed()
    ring.advance()
    after = ring.pipeline.stats()
    assert (after.admitted, after.finished, after.in_flight) == (entered + 1, entered - 1, 2)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_s_ring_ticks_with_a_request_where_one_is_due_and_without_one_elsewhere(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    tick = Stream.tick

    def noted(self: Stream, **words: Any) -> Any:
        asked.append(words)
        return tick(self, **words)

    monkeypatch.setattr(Stream, "tick", noted)
    ring = StreamRing(Workload(kind, 2, frames=5, streamed=True), AffineDecoder(16), executor())
    out = []
    for number in range(14):
        ring.feed()
        assert len(asked) == number
        out += [(number, finished.seed, tuple(finished.latent.shape)) for finished in ring.advance()]
    assert [number for number, words in enumerate(asked) if words] == [0, 4, 8, 12]
    assert out == [(7, 1, (1, 5, 4)), (11, 2, (1, 5, 4))]
    submitted = [words for words in asked if words]
    assert [words.keys() for words in submitted] == [{"seed", "denoise", "guidance"}] * 4
    assert [words["seed"] for words in submitted] == [1, 2, 3, 4]
    assert {words["denoise"] for words in submitted} == {STREAMS[kind].denoise}
    guidances = [words["guidance"] for words in submitted]
    assert all(each is guidances[0] for each in guidances)
    wanted = STREAMS[kind].guidance()
    assert type(guidances[0]) is type(wanted)
    if isinstance(wanted, Guidance):
        assert (guidances[0].mode, required(guidances[0].scale).uniform) == (wanted.mode, 2.5)
    else:
        assert guidances[0] == wanted


def test_a_stream_s_ring_has_the_prompt_a_context_of_zeros_and_a_source() -> None:
    workload = Workload("plain", 3, dcw=True, switches=PLAIN_PATH, frames=10, streamed=True)
    ring = StreamRing(workload, AffineDecoder(5), EagerExecutor(AffineDecoder(5)), channels=3, encoder_dim=5)
    template, props = ring._stream._template, Props(Script(frames=10, channels=3, encoder_dim=5))
    assert_identical(template.context_latents, torch.zeros(1, 10, 6))
    assert_identical(template.source, props.latent(5, 10))
    (condition,) = template.conditions
    assert_identical(condition.encoder_hidden_states, props.condition(P[0], 10).encoder_hidden_states)
    config = ring.pipeline.config
    assert (config.depth, config.steps, config.switches, config.dcw is None) == (3, 8, PLAIN_PATH, False)
    usual = StreamRing(Workload("plain", 1, streamed=True), AffineDecoder(16), executor())._stream._template
    assert (usual.context_latents.shape, usual.conditions[0].encoder_hidden_states.shape) == ((1, 16, 8), (1, 7, 16))
