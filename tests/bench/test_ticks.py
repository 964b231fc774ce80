"""The fast path is no slower than the plain one, and a tick no slower beyond the decoder than it was.

Ratios within one process and one run, of medians of turns that alternate. `--benchmark-json` keeps the fast ring's
turns of 8 ticks, with ratio, bound and floor as extra information.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness import registry
from harness.engine import Switches
from harness.engine.decoders import AffineDecoder, Decoder
from harness.engine.executors import Batch, EagerExecutor, Executor
from harness.engine.switches import PLAIN_PATH
from harness.rails.bench.bare import Tap, merged
from harness.rails.costs.workload import KINDS, Ring, Workload
from tests.bench.rails import RAILS

# Traced, Python's share would be twice what it is, and beside other processes any share.
pytestmark = [pytest.mark.no_cover, pytest.mark.alone]

TICKS, FRAMES = 8, 128
ON = Switches()
RINGS = {**{kind: (kind, False) for kind in KINDS}, "dcw": ("plain", True)}
BARE = ("plain", "cfg_full", "dcw")


def ring(name: str, executor: Executor, decoder: Decoder, frames: int = 16, switches: Switches = ON) -> Ring:
    kind, dcw = RINGS[name]
    made = Ring(Workload(kind, 4, dcw, switches, frames), executor, *registry.widths(decoder))
    made.warm_up()
    return made


def rows(name: str, decoder: Decoder) -> Batch:
    """What the decoder gets in one tick."""
    tap = Tap(EagerExecutor(decoder, max_rows=16))
    fed = ring(name, tap, decoder, FRAMES)
    tap.batches.clear()
    fed.tick()
    return merged(tap.batches)


def turn(of: Ring) -> Callable[[], None]:
    def ticks() -> None:
        for _ in range(TICKS):
            of.tick()

    return ticks


@pytest.mark.parametrize("name", RINGS)
def test_fast_path_against_plain_path(name: str, time_rail: Callable[..., None]) -> None:
    decoder = AffineDecoder(16)
    sides = [turn(ring(name, EagerExecutor(decoder, 16), decoder, switches=s)) for s in (ON, ON, PLAIN_PATH)]
    time_rail(f"{name}: fast path / plain path", *sides)


@pytest.mark.parametrize("name", BARE)
def test_tick_against_bare_decoder(name: str, time_rail: Callable[..., None]) -> None:
    decoder = registry.decoder("tiny")
    inputs = rows(name, decoder).tensors()

    def bare() -> None:
        with torch.no_grad():
            for _ in range(TICKS):
                decoder(**inputs)

    rings = [turn(ring(name, EagerExecutor(decoder, 16), decoder, FRAMES)) for _ in range(2)]
    time_rail(f"{name}: tick / bare decoder", *rings, bare)


def test_every_rail_is_declared_once() -> None:
    assert len(RAILS) == len(RINGS) + len(BARE)
