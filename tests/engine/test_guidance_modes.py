"""The record of every guidance mode, as docs/requests.md has it."""

from __future__ import annotations

from harness.engine import GuidanceMode
from harness.engine.guidance_modes import NegativeSource

ROWS, KEPT, NOISE = NegativeSource.ROWS, NegativeSource.KEPT, NegativeSource.INITIAL_NOISE


def test_every_mode_has_the_documented_sources_and_keeps_what_they_need() -> None:
    told = {
        str(mode): (
            [mode.source_at(step) for step in (0, 1, 2, 999)],
            (mode.needs_negatives, mode.keeps_first, mode.keeps_initial_noise),
        )
        for mode in GuidanceMode
    }
    assert told == {
        "full": ([ROWS, ROWS, ROWS, ROWS], (True, False, False)),
        "initialize": ([ROWS, KEPT, KEPT, KEPT], (True, True, False)),
        "self": ([NOISE, NOISE, NOISE, NOISE], (False, False, True)),
    }
    assert list(told) == ["full", "initialize", "self"]
    assert [str(source) for source in NegativeSource] == ["rows", "kept", "initial_noise"]
