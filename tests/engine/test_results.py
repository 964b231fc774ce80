"""What a pipeline hands out, whole: every field of every record, whenever a request came and however it ended."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import pytest
import torch

from harness.engine import (
    Dropped,
    DropReason,
    Finished,
    Submission,
    conditioning,
    config,
    controls,
    curve,
    geometry,
    results,
    switches,
)
from harness.engine import request as request_module
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from tests.engine.builders import D, T, fixed, pipeline, request


def told(finished: Finished) -> dict[str, Any]:
    latent = finished.latent
    return {each.name: getattr(finished, each.name) for each in fields(finished)} | {
        "latent": (latent.dtype, tuple(latent.shape), latent.is_contiguous(), latent.requires_grad)
    }


LATENT = (torch.float32, (1, T, D), True, False)
SOURCE = fixed(3)


def ended(id: str | int, seed: int, steps: int, denoise: float, ticks: int) -> dict[str, Any]:
    return {"id": id, "latent": LATENT, "seed": seed, "steps": steps, "denoise": denoise, "ticks_in_flight": ticks}


def test_what_ends_says_what_was_asked_and_how_long_it_took_from_its_own_admission() -> None:
    p = pipeline(depth=3, steps=2)
    p.tick()
    given = [("a", 2**64 - 1, 1.0), (7, 0, 0.0), ("", 5, 0.5), ("a", 6, 2.5), (-1, 7, 1e-6), (None, 8, 0.001)]
    for id, seed, denoise in given[:3]:
        p.submit(request(seed, id=id, denoise=denoise, source=SOURCE))
    found = [[told(f) for f in p.tick()]]
    for id, seed, denoise in given[3:]:
        p.submit(request(seed, id=id, denoise=denoise, source=SOURCE))
    found += [[told(f) for f in p.tick()] for _ in range(5)]
    assert found == [
        [ended(7, 0, 1, 0.0, 1)],
        [ended("a", 2**64 - 1, 2, 1.0, 2), ended("", 5, 2, 0.5, 2)],
        [ended(-1, 7, 1, 1e-6, 1), ended("a", 6, 2, 2.5, 2)],
        [ended("request-5", 8, 2, 0.001, 2)],
        [],
        [],
    ]
    assert [type(f["denoise"]) for batch in found for f in batch] == [float] * 6


def test_a_failed_tick_is_no_tick_in_flight() -> None:
    failing = [False]

    class Failing(EagerExecutor):
        def run(self, batch: Batch) -> torch.Tensor:
            if failing[0]:
                raise MemoryError
            return super().run(batch)

    p = pipeline(depth=1, steps=3, executor=Failing(AffineDecoder()))
    p.submit(request())
    p.tick()
    for _ in range(4):
        failing[0] = True
        with pytest.raises(MemoryError):
            p.tick()
        failing[0] = False
    assert [told(f) for f in p.drain()] == [ended("r1", 1, 3, 1.0, 3)]


def test_what_finishes_in_one_tick_comes_in_the_order_of_the_places_whatever_the_order_of_arrival() -> None:
    p = pipeline(depth=4, steps=3)
    p.submit(request(1))
    p.submit(request(2, denoise=0.0, source=SOURCE))
    p.submit(request(3, denoise=0.0, source=SOURCE))
    p.submit(request(4))
    assert [f.id for f in p.tick()] == ["r2", "r3"]
    p.submit(request(5))
    p.tick()
    p.submit(request(6, denoise=0.0, source=SOURCE))
    assert [f.id for f in p.tick()] == ["r1", "r6", "r4"]
    assert [f.id for f in p.drain()] == ["r5"]
    p.submit(request(7, denoise=0.0, source=SOURCE))
    p.submit(request(8))
    p.submit(request(9, denoise=0.0, source=SOURCE))
    assert [f.id for f in p.drain()] == ["r7", "r9", "r8"]
    assert p.drain() == []


def test_a_submission_names_everything_that_it_displaced_in_order() -> None:
    p = pipeline(depth=3, steps=4)
    for id in ("a", 1, None):
        assert p.submit(request(1, id=id)) == Submission("request-2" if id is None else id, ())
    p.tick()
    for id in ("b", "a", 2):
        p.submit(request(2, id=id))
    full, length = DropReason.QUEUE_FULL, DropReason.LENGTH_CHANGED
    assert p.submit(request(3, id="c")) == Submission("c", (Dropped("b", full),))
    assert p.set_depth(2) == (Dropped("a", full),)
    assert p.submit(request(3, id="d")) == Submission("d", (Dropped(2, full),))
    held = ("a", 1, "request-2", "c", "d")
    assert p.submit(request(4, T + 1, id=None)) == Submission("request-8", tuple(Dropped(id, length) for id in held))
    assert p.slots == (None, None)
    assert p.submit(request(5, T + 1, id="e")) == Submission("e", ())
    assert p.submit(request(6, T, id="f")) == Submission("f", (Dropped("request-8", length), Dropped("e", length)))
    assert [f.id for f in p.drain()] == ["f"]


def test_an_empty_pipeline_takes_another_length_and_displaces_nothing() -> None:
    p = pipeline(depth=1, steps=1)
    for frames in (T, T + 3, 1, T):
        assert p.submit(request(1, frames)).dropped == ()
        assert [tuple(f.latent.shape) for f in p.tick()] == [(1, frames, D)]


def test_the_reasons_of_a_drop_are_three() -> None:
    assert [str(reason) for reason in DropReason] == ["queue_full", "length_changed", "cancelled"]


MODULES = (conditioning, config, controls, curve, geometry, request_module, results, switches)
FROZEN = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
]


def test_every_record_of_the_engine_is_frozen() -> None:
    assert {kind.__name__ for kind in FROZEN} == {
        *("CacheCounts", "Condition", "Conditioning", "Controls", "Curve", "DCW", "Dropped", "Failed", "Finished"),
        *(
            "Geometry",
            "Guidance",
            "LatentMask",
            "PipelineConfig",
            "Request",
            "Stats",
            "Submission",
            "Switch",
            "Switches",
        ),
        "X0Target",
    }
    for kind in FROZEN:
        made = object.__new__(kind)
        for each in fields(kind):
            with pytest.raises(FrozenInstanceError):
                setattr(made, each.name, None)
