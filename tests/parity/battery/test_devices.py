"""Every tensor that a script or a scenario makes is made on the device that was named, and not on the default one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from harness.engine import Outcomes
from harness.parity import battery
from harness.parity.battery.player import Player, Sizes
from harness.parity.battery.props import Props
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Guided, Masked, Script, Submit, Text, Toward, Wavelets

HERE = str(Path(battery.__file__).parent)
MAKERS = {"linspace", "arange", "full", "tensor", "zeros", "ones", "empty", "eye", "as_tensor"}


class Made(TorchFunctionMode):
    """Notes the devices that the battery's own lines name when they make a tensor; None where they name none."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str | None] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if sys._getframe(1).f_code.co_filename.startswith(HERE) and func.__name__ in MAKERS:
            self.devices.append(None if named.get("device") is None else str(named["device"]))
        return func(*args, **named)


class Still:
    """In place of a pipeline: takes everything, is always empty and finishes nothing."""

    slots = ()

    def stats(self) -> Any:
        return SimpleNamespace(in_flight=0, queued=0)

    def tick(self) -> Outcomes:
        return Outcomes()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_every_tensor_of_every_scenario_is_on_the_device_of_its_sizes() -> None:
    for scenario in SCENARIOS.values():
        with Made() as made:
            scenario.script(Player(Still(), Sizes(16, 4, 16, "cpu")))  # type: ignore[arg-type]
        assert set(made.devices) <= {"cpu"}, scenario.name


LEVEL = (0.25, 0.75)
EVERY = Submit(
    texts=(Text(weight=LEVEL, hidden=2),),
    guided=Guided(LEVEL, (Text(2, 4, LEVEL, hidden=1),), momentum=LEVEL, rescale=LEVEL),
    velocity_scale=LEVEL,
    toward=Toward(curve=LEVEL),
    masked=Masked(level=LEVEL, every=2),
)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_every_tensor_of_a_script_is_on_the_device_of_its_props(device: torch.device | str) -> None:
    props = Props(Script(), device)
    with Made() as made:
        props.request(EVERY)
        props.gain(LEVEL)
        props.gain(0.5)
        props.dcw(Wavelets(a=LEVEL, b=LEVEL))
    assert len(made.devices) >= 12 and set(made.devices) == {"cpu"}
