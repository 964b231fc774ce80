from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine import DCW, Condition, Guidance, InvalidInput, LatentMask, PipelineConfig, Request, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity import reference
from harness.parity.compare import ParityError
from harness.parity.scenarios import SCENARIOS, Player, executor
from tests.parity.journal import JournaledPipeline


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def journaled(name: str) -> JournaledPipeline:
    scenario = SCENARIOS[name]
    config = PipelineConfig(**{"depth": 3, "steps": 4, **scenario.config})
    pipeline = JournaledPipeline(executor(scenario), config)
    scenario.script(Player(pipeline, scenario.sizes))
    return pipeline


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_request_of_the_battery_ends_with_the_bits_it_has_alone(name: str) -> None:
    journaled(name).assert_oracle_agrees(executor(SCENARIOS[name]))


def test_the_oracle_notices_a_control_that_is_one_tick_late() -> None:
    pipeline = journaled("mixed_ring")
    pipeline.journal.insert(0, pipeline.journal[0])
    with pytest.raises(ParityError):
        pipeline.assert_oracle_agrees(executor(SCENARIOS["mixed_ring"]))


def test_the_oracle_wants_controls_for_every_step() -> None:
    request = Request((Condition(torch.ones(1, 2, 8)),), torch.ones(1, 3, 4), 1)
    with pytest.raises(InvalidInput, match="controls_per_step"):
        reference.run(EagerExecutor(AffineDecoder()), request, PipelineConfig(), 8, [])


T, D, E = 7, 2, 8


def fixed(seed: int, frames: int, width: int) -> torch.Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


seeds = st.integers(0, 2**64 - 1)
curves = st.one_of(
    st.sampled_from([0.0, 1.0]), st.floats(0.0, 2.0, width=32), seeds.map(lambda s: fixed(s, T, 1).abs())
)
ranges = st.sampled_from([None, (0.0, 0.5), (0.25, 1.0), (0.9, 0.95)])


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    states = fixed(draw(seeds), draw(st.integers(1, 16)), E)
    return Condition(states, temporal_weight=draw(st.none() | curves), step_range=draw(ranges))


@st.composite
def guidances(draw: st.DrawFn) -> Guidance:
    return Guidance(
        scale=draw(curves) if draw(st.booleans()) else draw(st.floats(-1.0, 8.0, width=32)),
        negatives=draw(st.lists(conditions(), min_size=1, max_size=2)),
        mode=draw(st.sampled_from(["full", "initialize", "self"])),
        momentum=draw(st.sampled_from([-0.75, 0.0, 0.5])),
        rescale=draw(st.none() | curves),
        norm_threshold=draw(st.sampled_from([None, 0.5, 2.5])),
        eta=draw(st.sampled_from([0.0, 0.3])),
    )


@st.composite
def targets(draw: st.DrawFn) -> X0Target:
    latent = fixed(draw(seeds), T, D)
    if draw(st.booleans()):
        return X0Target(latent, curve=draw(curves), gate=draw(st.sampled_from([0.0, 0.4, 1.0])))
    return X0Target(latent, strength=draw(curves))


@st.composite
def masks(draw: st.DrawFn) -> LatentMask:
    mask = draw(st.sampled_from([1.0, torch.arange(T) % 2, torch.arange(T) > 3]))
    fading = draw(st.sampled_from([None, lambda step, total: 1.0 - step / total]))
    return LatentMask(mask, fixed(draw(seeds), T, D), fading)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    source = draw(st.none() | seeds.map(lambda s: fixed(s, T, D)))
    mask = draw(st.none() | masks())
    sourced = source is not None or mask is not None
    seed = draw(seeds)
    return Request(
        conditions=draw(st.lists(conditions(), min_size=1, max_size=3)),
        context_latents=fixed(seed, T, 2 * D),
        seed=seed,
        denoise=draw(st.sampled_from([1.0, 0.99, 0.5, 0.0])) if sourced else 1.0,
        source=source,
        guidance=draw(st.none() | guidances()),
        velocity_scale=draw(st.none() | curves),
        noise_injection=draw(st.none() | curves),
        sde_curve=draw(st.none() | curves) if sourced else None,
        initial_noise=draw(st.none() | curves) if sourced else None,
        x0_target=draw(st.none() | targets()),
        latent_mask=mask,
    )


configs = st.builds(
    PipelineConfig,
    depth=st.integers(1, 4),
    steps=st.integers(1, 6),
    shift=st.sampled_from([1.0, 3.0]),
    solver=st.sampled_from(["ode", "sde"]),
    encoder_length=st.just(16),
    dcw=st.sampled_from([None, DCW(), DCW("low", 0.2), DCW("high", 0.2, wavelet="db2"), DCW("pix"), DCW(a=0.0)]),
)
controls = st.tuples(
    st.sampled_from(
        ["velocity_scale", "noise_injection", "sde_curve", "guidance_scale", "momentum", "rescale", "x0_strength"]
    ),
    st.none() | curves,
)
events = st.lists(
    st.one_of(
        requests(),
        st.just("tick"),
        controls,
        st.sampled_from([None, DCW("high"), DCW(b=0.0)]).map(lambda d: ("dcw", d)),
        st.sampled_from([None, 0.9]).map(lambda g: ("gain", g)),
        st.integers(1, 4).map(lambda d: ("depth", d)),
    ),
    max_size=14,
)


def play(pipeline: JournaledPipeline, event: Any) -> None:
    if isinstance(event, Request):
        pipeline.submit(event)
    elif event == "tick":
        pipeline.tick()
    elif event[0] == "dcw":
        pipeline.set_dcw(event[1])
    elif event[0] == "gain":
        pipeline.set_channel_gain(None if event[1] is None else torch.full((1, 1, D), event[1]))
    elif event[0] == "depth":
        pipeline.set_depth(event[1])
    else:
        pipeline.set_shared_curve(*event)


@given(first=requests(), config=configs, script=events, max_rows=st.sampled_from([4, 8]))
def test_whatever_happens_around_a_request_its_bits_are_those_it_has_alone(
    first: Request, config: PipelineConfig, script: list[Any], max_rows: int
) -> None:
    pipeline = JournaledPipeline(EagerExecutor(AffineDecoder(), max_rows=max_rows), config)
    for event in [first, "tick", *script]:
        play(pipeline, event)
    pipeline.drain()
    pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1))


def test_duplicate_requests_give_equal_bytes_and_ids_of_their_own() -> None:
    request = Request((Condition(fixed(1, 3, E)),), fixed(2, T, 2 * D), 5)
    pipeline = JournaledPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(depth=2, steps=3))
    ids = {pipeline.submit(request).id, pipeline.submit(replace(request)).id}
    pipeline.drain()
    assert len(ids) == 2
    pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder()))
