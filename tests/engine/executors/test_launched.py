"""Launches are told in the order in which they began, whatever the order of the profiler's list."""

from __future__ import annotations

from types import SimpleNamespace

from harness.engine.executors.launched import names


def event(name: str, start: float, kind: str = "CPU") -> SimpleNamespace:
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=kind), time_range=SimpleNamespace(start=start), is_user_annotation=0
    )


def test_launches_come_in_the_order_in_which_they_began() -> None:
    events = [event("aten::add", 2.0), event("own::product", 1.0), event("a mark", 0.0), event("kernel", 0.5, "CUDA")]
    assert names(events, on_gpu=False) == ("own::product", "aten::add")
    assert names([event("second", 9.0, "CUDA"), event("first", 3.0, "CUDA")], on_gpu=True) == ("first", "second")
