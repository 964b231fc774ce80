"""A snapshot sees everything that a pipeline or a stream holds, and changes none of it."""

from __future__ import annotations

import threading
from collections import UserList
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.engine import Guidance, Session
from harness.engine.conditioning import ConditioningCache
from harness.engine.decoders import AffineDecoder
from harness.parity.bits import NotComparable
from harness.parity.compare import assert_identical, compare_trees
from harness.parity.snapshot import snapshot
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request


def running() -> Any:
    p = pipeline()
    p.submit(request(1, guidance=Guidance(2.5, [condition(9)], "initialize")))
    p.tick()
    p.submit(request(2))
    p.set_shared_curve("velocity_scale", torch.linspace(0.5, 1.0, T))
    return p


def differs(subject: object, before: dict[str, torch.Tensor], path: str) -> None:
    assert any(path in difference.name for difference in compare_trees(snapshot(subject), before))


def test_two_snapshots_of_what_did_not_change_are_the_same() -> None:
    p = running()
    assert_identical(snapshot(p), snapshot(p))


def test_every_attribute_of_a_pipeline_is_seen() -> None:
    p = running()
    before = snapshot(p)
    for name in vars(p):
        kept = getattr(p, name)
        setattr(p, name, "another")
        differs(p, before, name)
        setattr(p, name, kept)
    assert_identical(snapshot(p), before)


def test_an_attribute_that_is_new_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p.later = 0
    differs(p, before, "later")


def test_an_attribute_that_cannot_be_entered_is_refused_by_name() -> None:
    p = running()
    p.later = [threading.Lock()]
    with pytest.raises(NotComparable, match=r"\.later\[0\] cannot be part of a snapshot: "):
        snapshot(p)


def test_a_write_into_a_tensor_deep_inside_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p.slots[0].request.guidance.negatives[0].encoder_hidden_states[0, 0, 0] += 1
    differs(p, before, "negatives")


def test_an_equal_copy_in_the_place_of_an_object_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p._ring = (replace(p._ring[0]), *p._ring[1:])
    differs(p, before, "_ring")


def test_the_order_of_a_caches_uses_is_seen_and_a_snapshot_is_no_use() -> None:
    cache, contexts = ConditioningCache(2), [fixed(7, T, 2 * D)]
    one, other, third = ([condition(seed)] for seed in (1, 2, 3))
    cache(one, contexts, 8)
    cache(other, contexts, 8)
    before = snapshot(cache)
    cache(one, contexts, 8)
    cache.counts = replace(cache.counts, hits=0)
    differs(cache, before, "order")
    snapshot(cache)
    cache(third, contexts, 8)
    hits = cache.counts.hits
    cache(one, contexts, 8)
    assert cache.counts.hits == hits + 1


def test_a_stream_is_seen_with_its_session_and_its_pipeline() -> None:
    stream = Session(AffineDecoder(E)).stream([condition()], fixed(7, T, 2 * D))
    before = snapshot(stream)
    stream.tick(seed=1)
    for path in ("last_submission", "pipeline._ring", "pipeline._stats"):
        differs(stream, before, path)
    stream._session.null_condition(condition(1, 9))
    differs(stream, before, "_session._null")


def test_code_in_c_is_told_from_other_code() -> None:
    p = running()
    p.later = torch.relu
    before = snapshot(p)
    assert_identical(snapshot(p), before)
    p.later = torch.tanh
    differs(p, before, "later")


def test_an_attribute_of_a_sequence_is_seen() -> None:
    items: Any = UserList([1])
    before = snapshot(items)
    items.note = "new"
    differs(items, before, ".note")
