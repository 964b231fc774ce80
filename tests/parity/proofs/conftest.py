"""Every example of a proof is drawn anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parity.strategies import each_drawn_anew


@pytest.fixture(autouse=True)
def _each_drawn_anew() -> Iterator[None]:
    with each_drawn_anew():
        yield
