"""This project's pipeline, driven as a ring of somebody else's, with its own oracle as the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from harness.engine import Condition, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.switches import SWITCHES, Switches
from harness.parity.foreign import trial
from harness.parity.foreign.alone import NotAlone
from harness.parity.foreign.records import Cancel, Depth, Features, Live, Operation, Submit, Tick
from harness.parity.foreign.trial import Options, ScriptFailed
from harness.parity.proofs import oracle
from harness.parity.proofs.oracle import StepControls

pytestmark = pytest.mark.engine

CONFIG = PipelineConfig(depth=2, steps=3, encoder_length=6)
WAYS: Mapping[str, Sequence[Any]] = {"seed": (1, 2), "tokens": (4, 2), "scale": (None, 2.5), "noise": (None, 0.25)}


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def request(submit: Submit) -> Request:
    of, scale = submit.values, submit.values["scale"]
    condition = Condition(drawn(7, 1, of["tokens"], 8))
    guidance = None if scale is None else Guidance(scale, [Condition(drawn(8, 1, 3, 8))])
    fields = {"guidance": guidance, "noise_injection": of["noise"], "id": str(submit.number)}
    return Request([condition], torch.zeros(1, 5, 8), of["seed"], **fields)


class Ours:
    """A `StreamPipeline` as a ring that takes scripts."""

    def __init__(self, switches: Switches | None = None) -> None:
        self.executor = EagerExecutor(AffineDecoder(), max_rows=8)
        self.pipeline = StreamPipeline(self.executor, replace(CONFIG, switches=switches or Switches()))

    def features(self) -> Features:
        return Features(WAYS, live={"velocity_scale": (None, 0.5)}, depths=(2, 1, 3), cancel=True, drops=True)

    def event(self, operation: Operation) -> object:
        return operation

    def step(self, event: Any) -> Any:
        match event:
            case Submit():
                self.pipeline.submit(request(event))
            case Live(control, value):
                self.pipeline.set_shared_curve(control, value)
            case Cancel(number):
                self.pipeline.cancel(str(number))
            case Depth(depth):
                self.pipeline.set_depth(depth)
            case Tick():
                return {finished.id: finished.latent for finished in self.pipeline.tick()}
        return None

    def state(self) -> Any:
        return [None if slot is None else slot.x for slot in self.pipeline.slots]

    def flying(self) -> dict[int, int]:
        return {at: int(slot.id) for at, slot in enumerate(self.pipeline.slots) if slot is not None}

    def waiting(self) -> list[int]:
        return [int(queued.id) for queued in self.pipeline._state.queue]

    def finished(self, output: Any) -> dict[int, object]:
        return {int(id): latent for id, latent in (output or {}).items()}

    def reference(self, submit: Submit, controls: Sequence[Mapping[str, Any]]) -> object:
        steps = [StepControls({name: value for name, value in each.items() if value is not None}) for each in controls]
        return oracle.run(self.executor, request(submit), CONFIG, 6, steps)


def test_every_switch_and_the_oracle_agree_on_random_scripts() -> None:
    off = partial(Ours, Switches(**{name: switch.plain for name, switch in SWITCHES.items()}))
    proved = trial.run(off, Ours, 10, 0)
    assert proved.alone == proved.referred > 30


def test_the_oracle_finds_a_control_that_the_ring_misreads_alone_too() -> None:
    class Louder(Ours):
        def event(self, operation: Operation) -> object:
            loud = isinstance(operation, Live) and operation.value is not None
            return Live("velocity_scale", 0.75) if loud else operation

    with pytest.raises(ScriptFailed, match="does not end with the bits of the reference") as caught:
        trial.run(Louder, None, 10, 0, options=Options(runs=60))
    assert isinstance(caught.value.error, NotAlone) and len(caught.value.script.operations) <= 3
