"""What a tick of a full ring does and leaves undone, counted: decoder runs, rebuilt conditions, host reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness import registry
from harness.engine import (
    DCW,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    Session,
    StreamPipeline,
    Switches,
    X0Target,
)
from harness.engine.decoders import AffineDecoder, Decoder
from harness.engine.executors import Executor
from harness.rails.costs.counters import HostReads
from harness.registry import COMPARED
from tests.engine.builders import D, E, T, condition, fixed
from tests.fakes import Counting

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

DEPTH, STEPS = 4, 8
PROMPT, NEGATIVE, CONTEXT = condition(1, 5), condition(2, 3), fixed(7, T, 2 * D)
KINDS = list(map(str, COMPARED))


def request(seed: int, **fields: Any) -> Request:
    """One of a stream's requests, which share their conditions."""
    guidance = fields.pop("guidance", Guidance(3.0, [NEGATIVE]))
    return Request([fields.pop("prompt", PROMPT)], CONTEXT, seed, guidance=guidance, **fields)


class Ring:
    """A full ring whose slots are at different steps, fed whenever a place is free."""

    def __init__(self, executor: Executor, **config: Any) -> None:
        self.counted = Counting(executor)
        self.pipeline = StreamPipeline(self.counted, PipelineConfig(depth=DEPTH, steps=STEPS, **config))
        self.fields: dict[str, Any] = {}
        self.seed = 0
        for _ in range(STEPS):
            self.tick()
        assert self.steps() == {2, 4, 6}  # the fourth has just finished

    def steps(self) -> set[int]:
        return {slot.step for slot in self.pipeline.slots if slot is not None}

    def feed(self) -> None:
        """A new request every second tick: depth 4, 8 steps."""
        if self.pipeline.stats().ticks % (STEPS // DEPTH) == 0:
            self.seed += 1
            self.pipeline.submit(request(self.seed, **self.fields))

    def tick(self) -> None:
        self.feed()
        self.pipeline.tick()


def ring(kind: str = "eager", decoder: Decoder | None = None, **config: Any) -> Ring:
    return Ring(registry.executor(kind, decoder or AffineDecoder(E)), **config)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fused", "runs"), [(True, [8]), (False, [4, 4])])
def test_a_guided_tick_is_one_run_fused_and_two_in_passes(kind: str, fused: bool, runs: list[int]) -> None:
    steady = ring(kind, switches=Switches(fused_cfg=fused))
    for _ in range(2 * STEPS):
        steady.counted.rows.clear()
        steady.tick()
        assert steady.counted.rows == runs


@pytest.mark.parametrize("fused", [True, False])
def test_conditions_are_not_rebuilt_unless_a_slot_with_others_is_admitted(fused: bool) -> None:
    steady = ring(switches=Switches(fused_cfg=fused))
    runs = 1 if fused else 2
    before = steady.pipeline.stats().conditioning
    for _ in range(2 * STEPS):
        steady.tick()
    after = steady.pipeline.stats().conditioning
    assert (after.misses - before.misses, after.hits - before.hits) == (0, 2 * STEPS * runs)


def test_a_slot_with_other_conditions_costs_one_rebuild_when_it_is_admitted() -> None:
    steady = ring()
    for number in range(STEPS):
        admits = steady.pipeline.stats().ticks % 2 == 0
        steady.fields = {"prompt": condition(100 + number, 5)}
        before = steady.pipeline.stats().conditioning.misses
        steady.tick()
        assert steady.pipeline.stats().conditioning.misses - before == (1 if admits else 0)


def test_without_the_cache_conditions_are_rebuilt_at_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.engine import execute as module  # noqa: PLC0415 its name is taken above

    built = []
    original = module.build

    def counting(*arguments: Any) -> Any:
        built.append(1)
        return original(*arguments)

    monkeypatch.setattr(module, "build", counting)
    steady = ring(switches=Switches(cached_conditioning=False))
    built.clear()
    for _ in range(STEPS):
        steady.tick()
    assert len(built) == STEPS
    assert steady.pipeline.stats().conditioning.hits == 0


SOURCE = fixed(5)
BUSY: dict[str, dict[str, Any]] = {
    "full guidance": {},
    "guidance by a curve, rescaled": {
        "guidance": Guidance(torch.linspace(1, 4, T), [NEGATIVE], rescale=0.5, eta=0.3, momentum=0.5)
    },
    "initialize": {"guidance": Guidance(3.0, [NEGATIVE], "initialize")},
    "self": {"guidance": Guidance(3.0, mode="self")},
    "scaled and injected": {"velocity_scale": 0.9, "noise_injection": torch.linspace(0, 0.3, T)},
    "masked": {"latent_mask": LatentMask(torch.arange(T) % 2, SOURCE, lambda step, total: 1 - step / total)},
    "targeted": {"x0_target": X0Target(SOURCE, strength=0.5)},
    "gated": {"x0_target": X0Target(SOURCE, curve=0.5, gate=0.2)},
    "from a source by a curve": {"source": SOURCE, "sde_curve": torch.linspace(0, 1, T), "denoise": 1.0},
    "neutral throughout": {
        "velocity_scale": 1.0,
        "noise_injection": torch.zeros(T),
        "latent_mask": LatentMask(1.0, SOURCE),
        "x0_target": X0Target(SOURCE),
    },
}


@pytest.fixture(name="controls", params=["own", "shared"])
def _controls(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    shared = {"velocity_scale": torch.linspace(0.9, 1.1, T), "guidance_scale": 2.0, "rescale": 0.2, "momentum": 0.1}
    yield shared if request.param == "shared" else {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", BUSY.values(), ids=BUSY)
def test_a_tick_reads_no_tensor_on_the_host(kind: str, fields: dict[str, Any], controls: dict[str, Any]) -> None:
    steady = ring(kind, dcw=DCW())
    steady.fields = fields
    for name, value in controls.items():
        steady.pipeline.set_shared_curve(name, value)
    steady.pipeline.set_channel_gain(torch.full((1, 1, D), 1.5))
    for _ in range(STEPS):
        steady.feed()
        with HostReads() as reads:
            steady.pipeline.tick()
        assert reads.seen == {}


ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "from a source": {"denoise": 0.6},
    "guided by a number": {"guidance": 2.5},
    "guided by a number against a negative": {"guidance": 2.5, "negative": NEGATIVE},
    "guided by a record": {"guidance": Guidance(torch.linspace(1, 4, T), [NEGATIVE], rescale=0.5)},
    "initialize": {"guidance": Guidance(2.5, mode="initialize")},
    "self": {"guidance": Guidance(2.5, mode="self"), "denoise": 0.6},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_whole_tick_of_a_stream_reads_no_tensor_on_the_host(asked: dict[str, Any]) -> None:
    config = PipelineConfig(depth=DEPTH, steps=STEPS, dcw=DCW())
    with Session(AffineDecoder(E)) as session:
        stream = session.stream([PROMPT], CONTEXT, config=config, source=SOURCE)
        stream.tick(seed=0, **asked)
        for seed in range(1, STEPS):
            with HostReads() as reads:
                stream.tick(seed=seed, **asked)
            assert reads.seen == {}


@pytest.mark.parametrize("written", [CONTEXT, SOURCE], ids=["context", "source"])
def test_a_tensor_that_was_written_to_is_read_by_one_tick_of_a_stream(written: torch.Tensor) -> None:
    with Session(AffineDecoder(E)) as session:
        stream = session.stream([PROMPT], CONTEXT, source=SOURCE)
        stream.tick(seed=0)
        written.copy_(written.clone())
        counts = []
        for seed in (1, 2):
            with HostReads() as reads:
                stream.tick(seed=seed)
            counts.append(sum(reads.seen.values()))
    assert counts == [1, 0]


@pytest.mark.parametrize("solver", ["ode", "sde"])
def test_a_tick_of_the_real_architecture_reads_no_tensor_on_the_host(solver: str) -> None:
    tiny = registry.decoder("tiny")
    draw = torch.Generator().manual_seed(0)
    prompt, context = torch.randn(1, 5, 32, generator=draw), torch.randn(1, 8, 16, generator=draw)
    config = PipelineConfig(depth=2, steps=3, solver=solver, dcw=DCW())
    with StreamPipeline(registry.executor("eager", tiny, pin_rows=4), config) as pipeline:
        pipeline.submit(Request([type(PROMPT)(prompt)], context, 1, guidance=Guidance(2.0, [type(PROMPT)(prompt)])))
        for _ in range(3):
            with HostReads() as reads:
                finished = pipeline.tick()
            # diffusers moves its time embedding to where the latents are, and here that is the CPU.
            assert reads.seen.keys() <= {"torch.Tensor.to"}
    assert len(finished) == 1


@pytest.mark.parametrize("what", ["a request's", "shared", "correction", "gain"])
def test_the_plain_twin_of_host_gates_reads_what_it_asks(what: str) -> None:
    steady = ring(switches=Switches(host_gates=False), dcw=DCW() if what == "correction" else None)
    if what == "a request's":
        steady.fields = {"velocity_scale": 0.5}
        steady.tick()
        steady.tick()
    if what == "shared":
        steady.pipeline.set_shared_curve("velocity_scale", 0.5)
    if what == "gain":
        steady.pipeline.set_channel_gain(torch.ones(1, 1, D))
    with HostReads() as reads:
        steady.pipeline.tick()
    assert reads.operators["aten::_local_scalar_dense"] > 0
