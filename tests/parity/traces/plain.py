"""Small rings that need nothing of the extras."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.parity.traces import record


class Plain:
    """The smallest ring: a tick adds one."""

    def __init__(self) -> None:
        self.x, self.ticks = torch.zeros(3), 0

    def step(self, event: Any) -> Any:
        self.x = self.x + (1 if event is None else event)
        self.ticks += 1
        return self.x

    def state(self) -> Any:
        return self.x


class Counter:
    """A ring of any make: adds its events and a random number of every kind to one tensor."""

    def __init__(self, width: int = 3) -> None:
        self.x, self.ticks, self.dice = torch.zeros(width), 0, np.random.default_rng(1)

    def step(self, event: Any) -> Any:
        if event == "fail":
            raise ValueError("the event says so")
        drawn = torch.rand(()) + random.random() + float(np.random.rand()) + float(self.dice.random())
        self.x = self.x + drawn + (0 if event is None else event["add"] * event["by"])
        self.ticks += 1
        return {"made": self.x * 2, "none": None}

    def state(self) -> Any:
        return [self.x]

    def generators(self) -> list[Any]:
        return [self.dice]


def counted(path: Path, events: int = 6) -> Path:
    """A trace of a `Counter`."""
    with record(Counter(), path) as ring:
        for number in range(events):
            ring.step(None if number % 2 else {"add": torch.arange(3.0) + number, "by": 0.1})
    return path
