"""A small ring with two slots for the tests of lockstep; a test spoils one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Spoil = Callable[["Slots"], Any]


def untouched(_stage: str, _slot: int | None, _name: str, tensor: Tensor) -> Tensor:
    return tensor


class Bare:
    """A ring of two slots that has state; `spoil` acts on it before the tick `at`."""

    def __init__(self, at: int = -1, spoil: Spoil | None = None) -> None:
        self.x = [torch.zeros(3), torch.ones(3)]
        self.hidden = torch.ones(3)
        self.ticks, self.at, self.spoil = 0, at, spoil
        self.report: Any = untouched
        self.nudge: dict[tuple[str, int], float] = {}

    def step(self, event: Any) -> Any:
        if self.ticks == self.at and self.spoil:
            self.spoil(self)
        out = [self._slot(number, event) for number in (0, 1)]
        self.ticks += 1
        return {"out": out}

    def _slot(self, slot: int, event: Any) -> Tensor:
        rows = self._stage("gather", slot, self.x[slot] + event)
        velocity = self._stage("decode", slot, rows * 0.7 + self.hidden * 0)
        guided = self._stage("guidance", slot, velocity * 2)
        self.x[slot] = self._stage("step", slot, rows + guided)
        return self.x[slot]

    def _stage(self, stage: str, slot: int, value: Tensor) -> Tensor:
        reported: Tensor = self.report(stage, slot, "value", value + self.nudge.get((stage, slot), 0.0))
        return reported


class Slots(Bare):
    """The same with the whole protocol."""

    def state(self) -> Any:
        return {"x": self.x, "hidden": self.hidden}

    def observe(self, callback: Any) -> None:
        self.report = callback or untouched


class Silent(Bare):
    """The same with state and without stages."""

    def state(self) -> Any:
        return {"x": self.x, "hidden": self.hidden}


def nudged(stage: str, slot: int, by: float = 1e-4) -> Spoil:
    """Spoil one stage of one slot from then on."""
    return lambda ring: ring.nudge.update({(stage, slot): by})
