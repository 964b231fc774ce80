"""Hypothesis strategies: scripts that use every feature, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from harness.engine import Switches
from harness.parity.script import (
    Control,
    Correct,
    Depth,
    Drain,
    Event,
    Gain,
    Guided,
    Level,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)

CONTROLS = ("velocity_scale", "noise_injection", "sde_curve", "guidance_scale", "momentum", "rescale", "x0_strength")
SCALARS = st.one_of(st.sampled_from([0.0, 1.0]), st.integers(-4, 24).map(lambda eighths: eighths / 8))
LEVELS: st.SearchStrategy[Level] = st.one_of(SCALARS, st.tuples(SCALARS, SCALARS))
# Small ones meet each other and share sources; the largest is the largest a request takes.
SEEDS = st.one_of(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**64 - 1))

WAVELETS = st.builds(
    Wavelets,
    mode=st.sampled_from(["low", "high", "double", "pix"]),
    a=st.sampled_from([0.0, 0.05, 0.3, (0.0, 0.2)]),
    b=st.sampled_from([0.0, 0.02, (0.1, 0.0)]),
    wavelet=st.sampled_from(["haar", "db2", "sym4", "bior2.2"]),
)


@dataclass(frozen=True)
class Case:
    """A script, how the switches that are not in question stand, and how many rows a run may have."""

    script: Script
    others: Switches
    max_rows: int


def texts(longest: int) -> st.SearchStrategy[Text]:
    ranges = st.sampled_from([None, (0.0, 0.5), (0.25, 1.0), (0.9, 0.95)])
    weights = st.none() | st.sampled_from([0.0, 0.5, (1.0, 0.0)])
    plain = st.builds(Text, seed=SEEDS, tokens=st.integers(1, longest), weight=weights, span=ranges)
    masked = st.builds(Text, seed=SEEDS, tokens=st.integers(min(2, longest), longest), hidden=st.just(longest > 1))
    return st.one_of(plain, masked)


@st.composite
def guided(draw: st.DrawFn, pool: st.SearchStrategy[Text]) -> Guided:
    return Guided(
        scale=draw(LEVELS),
        negatives=tuple(draw(st.lists(pool, min_size=1, max_size=2))),
        mode=draw(st.sampled_from(["full", "full", "initialize", "self"])),
        momentum=draw(st.sampled_from([-0.75, 0.0, 0.5, (0.0, -0.5)])),
        rescale=draw(st.none() | LEVELS),
        threshold=draw(st.sampled_from([None, 0.5, 2.5])),
        eta=draw(st.sampled_from([0.0, 0.3])),
    )


def targets() -> st.SearchStrategy[Toward]:
    gated = st.builds(Toward, seed=SEEDS, curve=LEVELS, gate=st.sampled_from([0.0, 0.4, 1.0]))
    return st.one_of(st.builds(Toward, seed=SEEDS, strength=LEVELS), gated)


MASKS = st.builds(
    Masked,
    seed=SEEDS,
    level=st.sampled_from([1.0, 0.0, 0.5, (0.0, 1.0)]),
    every=st.sampled_from([0, 2, 3]),
    fading=st.booleans(),
)


def rarely(values: st.SearchStrategy[Level]) -> st.SearchStrategy[Level | None]:
    return st.one_of(st.none(), st.none(), values)


@st.composite
def submissions(draw: st.DrawFn, pool: st.SearchStrategy[Text], frames: tuple[int, ...]) -> Submit:
    source, masked = draw(st.none() | SEEDS), draw(st.one_of(st.none(), st.none(), MASKS))
    sourced = source is not None or masked is not None
    return Submit(
        seed=draw(SEEDS),
        texts=tuple(draw(st.lists(pool, min_size=1, max_size=3))),
        frames=draw(st.sampled_from(frames)),
        denoise=draw(st.sampled_from([1.0, 1.0, 0.6, 0.3, 0.0])) if sourced else 1.0,
        source=source,
        guided=draw(st.none() | guided(pool)),
        velocity_scale=draw(rarely(LEVELS)),
        noise_injection=draw(rarely(LEVELS)),
        sde_curve=draw(rarely(LEVELS)) if sourced else None,
        initial_noise=draw(rarely(LEVELS)) if sourced else None,
        toward=draw(st.one_of(st.none(), st.none(), targets())),
        masked=masked,
    )


def changes(levels: st.SearchStrategy[Level]) -> st.SearchStrategy[Event]:
    """What a person does to a running pipeline."""
    return st.one_of(
        st.builds(Control, st.sampled_from(CONTROLS), st.none() | levels),
        st.builds(Gain, st.none() | LEVELS),
        st.builds(Correct, st.none() | WAVELETS),
        st.builds(Depth, st.integers(1, 8)),
    )


@st.composite
def scripts(draw: st.DrawFn, rewrites: bool = True) -> Script:
    """A script that ends with an empty ring; with `rewrites`, its caller may write into conditions in flight."""
    longest = draw(st.sampled_from([1, 16, 64, 300]))
    pool = st.sampled_from(draw(st.lists(texts(longest), min_size=1, max_size=4)))
    length = draw(st.integers(1, 24))
    # A per-frame control does not fit another length, and that a pipeline refuses it is claimed elsewhere.
    several = draw(st.booleans())
    requests = submissions(pool, (length, length + 1) if several else (length,))
    happening = [requests, requests, st.builds(Tick, st.integers(1, 3)), changes(SCALARS if several else LEVELS)]
    happening += [st.builds(Rewrite, pool, SEEDS)] if rewrites else []
    events = draw(st.lists(st.one_of(happening), min_size=3, max_size=14))
    return Script(
        events=(draw(requests), *events, Drain()),
        depth=draw(st.integers(1, 8)),
        steps=draw(st.integers(1, 12)),
        shift=draw(st.sampled_from([1.0, 3.0])),
        solver=draw(st.sampled_from(["ode", "ode", "sde"])),
        encoder_length=longest,
        dcw=draw(st.none() | WAVELETS),
        frames=length,
    )


SWITCHES = st.builds(
    Switches,
    fused_cfg=st.booleans(),
    cached_conditioning=st.booleans(),
    integrator=st.sampled_from(["per_slot", "foreach"]),
    host_gates=st.booleans(),
    joined_stream=st.booleans(),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(draw(scripts()), draw(SWITCHES), draw(st.integers(8, 20)))
