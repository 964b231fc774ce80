"""A steady ring leaves nothing to Python's garbage collector, whose pauses are longer than a tick."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from harness.rails.bench.throughput import Driver, Load

LOADS: dict[str, dict[str, Any]] = {
    "plain": {"dcw": False},
    "corrected and guided": {"dcw": True, "cfg": "full"},
    "kept negatives": {"dcw": True, "cfg": "initialize"},
    "from a source, a prompt for each": {"dcw": True, "denoise": 0.6, "fresh": True},
}


@pytest.mark.parametrize("kind", ["eager", "static", "cuda_graph"])
@pytest.mark.parametrize("name", LOADS)
def test_ticks_make_no_objects_that_only_a_collection_would_free(kind: str, name: str) -> None:
    driver = Driver(Load(decoder="affine", executor=kind, duration=0.4, warmup=16, **LOADS[name]))
    with driver.session:
        driver.warm_up()
        driver.stock(32)
        gc.collect()
        gc.disable()
        try:
            for _ in range(32):
                driver.tick()
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_a_cycle_would_be_seen() -> None:
    gc.collect()
    cycle: list[Any] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() == 1
