"""Exact counts of the work of a tick.

`growth` is `harness.rails.costs.rails.growth`, imported on first use: counters alone need no engine.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `growth` on first use."""
    if name == "growth":
        from harness.rails.costs.rails import growth  # noqa: PLC0415 - imports the engine

        return growth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
