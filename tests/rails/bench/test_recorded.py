"""The cost of a recording: two streams in turn, of which one is recorded."""

from __future__ import annotations

from pathlib import Path

from harness.parity.traces.engine_replay import replayed_pipeline
from harness.rails.bench.load import Load
from harness.rails.bench.recorded import recorded, recorded_ticks
from tests.parity.traces.rings import executor

LOAD = Load(decoder="affine", duration=1.0, depth=2, steps=4, ticks=8, warmup=4)


def test_both_streams_make_the_same_bits_and_the_trace_of_one_of_them_replays(tmp_path: Path) -> None:
    steps: list[str] = []
    found = recorded(LOAD, tmp_path / "a", steps.append)
    assert (found.same, len(steps)) == (True, recorded_ticks(LOAD))
    assert found.bytes_a_tick > 0
    assert replayed_pipeline(tmp_path / "a", executor).ticks == 12
