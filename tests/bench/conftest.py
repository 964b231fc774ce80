"""A rail that ran says so; see `tests.bench.rails.unmeasured`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bench.rails import MEASURED, RAILS, Side, gate


@pytest.fixture(name="time_rail")
def _time_rail(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """`time_rail(name, first, twin, other)`: one of `RAILS`."""

    def check(name: str, first: Side, twin: Side, other: Side) -> None:
        gate(RAILS[name], first, twin, other, benchmark)
        request.config.stash.setdefault(MEASURED, set()).add(name)

    return check
