"""A ring that needs torch alone."""

from __future__ import annotations

from typing import Any

import torch


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
