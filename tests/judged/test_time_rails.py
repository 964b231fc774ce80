"""A time rail: what is red, and the nearest case that must not be. Runs that leave rails out are in `tests/bench`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from harness.parity.baselines.platform import ROOT
from tests.bench import rails
from tests.bench.rails import Draw, Rail, gate
from tests.judged.rows import Gives, Row, both, nothing

GREEN, RED = Gives("green", 0), Gives("red", 1)
RAIL = Rail("some: first / other", 0.8)
BOUND = 1.0
"""1.25 of the usual 0.8."""


@dataclass
class Gate:
    """A rail whose draws have the ratios that a test gives, and the run around it."""

    patch: pytest.MonkeyPatch
    ratios: list[float] = field(default_factory=lambda: [0.8])
    disabled: bool = False
    measured: set[str] = field(default_factory=lambda: set(rails.RAILS))
    options: dict[Any, Any] = field(default_factory=dict)
    whole: bool = True

    def said(self) -> Gives:
        """Red where the rail's test fails or the run does."""
        left = iter(self.ratios)
        self.patch.setattr(rails, "draw", lambda *_: Draw(next(left), 0.0))
        benchmark = SimpleNamespace(disabled=self.disabled, extra_info={})
        try:
            gate(RAIL, *[lambda: None] * 3, benchmark)
        except AssertionError:
            return RED
        self.patch.setattr(rails, "whole", lambda _: self.whole)
        config: Any = SimpleNamespace(stash={rails.MEASURED: self.measured, **self.options})
        return RED if rails.unmeasured(config) else GREEN


def ratios(*values: float) -> Callable[[Gate], None]:
    def act(made: Gate) -> None:
        made.ratios = list(values)

    return act


def disabled(made: Gate) -> None:
    made.disabled = True


def without(name: str) -> Callable[[Gate], None]:
    return lambda made: made.measured.discard(name)


def left_out_on_purpose(made: Gate) -> None:
    without(next(iter(rails.RAILS)))(made)
    made.whole = False


ABOVE = math.nextafter(BOUND, 2.0)
TABLE = [
    Row("just beyond the bound twice", ratios(ABOVE, ABOVE), RED, "at the bound", ratios(BOUND), GREEN),
    Row("far beyond the bound, then just beyond it", ratios(9.0, ABOVE), RED,
        "then at the bound", ratios(9.0, BOUND), GREEN),
    Row("a disabled benchmark", disabled, RED, "an enabled one", nothing, GREEN),
    Row("a rail that was not measured", without(next(iter(rails.RAILS))), RED,
        "and that was left out on purpose", left_out_on_purpose, GREEN),
    Row("the last rail that was not measured", without(list(rails.RAILS)[-1]), RED,
        "a rail that there is not", without("no such rail"), GREEN),
]  # fmt: skip


@both(TABLE)
def test_time_rail(act: Callable[[Gate], Any], gives: Gives, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Gate(monkeypatch)
    act(made)
    assert made.said() == gives


def test_the_bound_is_that_of_the_docs() -> None:
    text = " ".join((ROOT / "docs" / "costs.md").read_text().split())
    assert "A rail fails beyond 1.25 of its usual ratio, twice in a row" in text
    assert RAIL.bound == BOUND == 1.25 * RAIL.usual


def test_the_second_draw_is_a_new_one_and_a_third_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Gate(monkeypatch, ratios=[ABOVE, ABOVE, 0.1])
    assert made.said() == RED
    made = Gate(monkeypatch, ratios=[0.1])
    assert made.said() == GREEN
