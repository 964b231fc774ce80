"""A small ring that takes scripts; `wrong` names a defect of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.parity.foreign.records import Cancel, Depth, Features, Live, Submit, Tick

STEPS = 3


class Pool:
    """A ring whose requests go from a seeded latent to a result in `STEPS` ticks."""

    def __init__(self, wrong: str = "", **declared: Any) -> None:
        self.wrong, self.declared = wrong, declared
        self.depth, self.bias, self.ticks = 2, 0.0, 0
        self.queue: list[Submit] = []
        self.slots: dict[int, Submit] = {}
        self.at: dict[int, int] = {}
        self.x = torch.zeros(4, 3)
        self.mean = torch.zeros(4, 3)
        self.report: Any = None

    def features(self) -> Features:
        asked: Mapping[str, Any] = {"seed": (1, 2), "gain": (1.0, 0.5), "mean": (False, True)}
        known: dict[str, Any] = {"live": {"bias": (0.0, 0.25)}, "depths": (2, 1, 3), "cancel": True}
        return Features(**{"request": asked, **known, **self.declared})

    def event(self, operation: object) -> object:
        return operation

    def step(self, event: Any) -> Any:
        match event:
            case Submit():
                self.queue.append(event)
            case Live(value=value):
                self.bias = value
            case Depth(depth=depth):
                self.depth = depth
                if self.wrong == "depth reorders":
                    self.queue.reverse()
            case Cancel(number=number):
                self._cancel(number)
            case Tick():
                return self._tick()
        return None

    def state(self) -> Any:
        return {"x": self.x, "mean": self.mean, "bias": torch.tensor(self.bias)}

    def flying(self) -> dict[int, int]:
        return {slot: submit.number for slot, submit in self.slots.items()}

    def waiting(self) -> list[int]:
        return [submit.number for submit in self.queue]

    def finished(self, output: Any) -> dict[int, object]:
        return {int(name): tree for name, tree in (output or {}).items()}

    def observe(self, callback: Any) -> None:
        self.report = callback

    def _cancel(self, number: int) -> None:
        self.queue = [each for each in self.queue if each.number != number]
        gone = [slot for slot, each in self.slots.items() if each.number == number]
        for slot in gone:
            del self.slots[slot if self.wrong != "cancel frees another slot" else min(self.slots)]

    def _tick(self) -> dict[str, Tensor]:
        for slot in range(self.depth):
            if slot not in self.slots and self.queue:
                self._admit(slot, self.queue.pop(0))
        self.ticks += 1
        return {
            str(submit.number): x for submit, x in [self._move(slot) for slot in sorted(self.slots)] if x is not None
        }

    def _admit(self, slot: int, submit: Submit) -> None:
        self.slots[slot], self.at[slot] = submit, 0
        self.x[slot] = torch.randn(3, generator=torch.Generator().manual_seed(submit.values["seed"]))
        if self.wrong == "draws from the global generator":
            self.x[slot] += torch.rand(3)
        if self.wrong != "mean leaks":
            self.mean[slot] = 0

    def _move(self, slot: int) -> tuple[Submit, Tensor | None]:
        submit = self.slots[slot]
        velocity = self._told("decode", slot, self.x[slot] * 0.75 + self._rough())
        if submit.values["mean"]:
            self.mean[slot] = (self.mean[slot] + velocity) / 2
            velocity = self._told("mean", slot, self.mean[slot].clone())
        bias = self.bias if self.wrong != "bias acts in the first step alone" or self.at[slot] == 0 else 0.0
        late = self.wrong == "a neighbour is heard" and len(self.slots) > 2
        self.x[slot] = self._told("step", slot, self.x[slot] - velocity * submit.values["gain"] / STEPS + bias + late)
        self.at[slot] += 1
        if self.at[slot] < STEPS:
            return submit, None
        del self.slots[slot]
        if self.wrong == "a result is thrown away" and submit.values["mean"]:
            return submit, None
        return submit, self.x[slot].clone()

    def _rough(self) -> float:
        return len(self.slots) * 1e-7 if self.wrong == "rough" else 0.0

    def _told(self, stage: str, slot: int, tensor: Tensor) -> Tensor:
        told: Tensor = tensor if self.report is None else self.report(stage, slot, "value", tensor)
        return told


class AtOnce(Pool):
    """A ring that admits as soon as a slot is free: at the submission, or at the end of a tick."""

    def step(self, event: Any) -> Any:
        made = super().step(event)
        for slot in range(self.depth):
            if slot not in self.slots and self.queue:
                self._admit(slot, self.queue.pop(0))
        return made
