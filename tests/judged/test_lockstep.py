"""Lockstep of two pipelines: what parts them, and the nearest case that must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Request
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.request import Condition, Guidance, LatentMask, X0Target
from harness.parity.battery.scripts import Drain, Script, Submit, Tick
from harness.parity.compare import NothingCompared
from harness.parity.proofs.lockstep import Lockstep, Parted, run

FRAMES, CHANNELS, WIDTH = 6, 4, 16
SCRIPT = Script((Submit(1), Drain()))


def request() -> Request:
    """One with every tensor that an engine does not copy."""

    def drawn(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)

    return Request(
        [Condition(drawn(1, 3, WIDTH))],
        drawn(1, FRAMES, 2 * CHANNELS),
        seed=1,
        denoise=0.5,
        source=drawn(1, FRAMES, CHANNELS),
        guidance=Guidance(2.0, negatives=[Condition(drawn(1, 2, WIDTH))]),
        x0_target=X0Target(drawn(1, FRAMES, CHANNELS), strength=0.5),
        latent_mask=LatentMask(0.5, drawn(1, FRAMES, CHANNELS)),
    )


def conditions(asked: Request) -> Any:
    return asked.conditions[0]


def negatives(asked: Request) -> Any:
    assert asked.guidance is not None
    return asked.guidance.negatives[0]


INPUTS: dict[str, Callable[[Request], Any]] = {
    "context_latents": lambda r: r.context_latents,
    "source": lambda r: r.source,
    "condition 0": lambda r: conditions(r).encoder_hidden_states,
    "condition 1": lambda r: negatives(r).encoder_hidden_states,
    "x0_target": lambda r: r.x0_target.latent,
    "latent_mask": lambda r: r.latent_mask.original,
}


class Act:
    """A decoder that does something to a tensor at its second run: once both pipelines have read it."""

    def __init__(self, tensor: Tensor, act: Callable[[Tensor], Any]) -> None:
        self.plain, self.tensor, self.act, self.runs = AffineDecoder(WIDTH), tensor, act, 0

    def __call__(self, **inputs: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == 2:
            self.act(self.tensor)
        return self.plain(**inputs)


def drive(asked: Request, *decoders: Any) -> None:
    first, second = (EagerExecutor(decoder) for decoder in decoders)
    with Lockstep((first, SCRIPT.config()), (second, SCRIPT.config())) as lockstep:
        lockstep.submit(asked)
        lockstep.drain()


@pytest.mark.parametrize("inference", [False, True], ids=["", "an inference tensor"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", INPUTS)
def test_a_side_that_writes_to_an_input_is_named_and_one_that_reads_it_is_not(
    name: str, side: int, inference: bool
) -> None:
    with torch.inference_mode(inference):
        asked = request()
    reading = Act(INPUTS[name](asked), lambda x: x.sum())
    drive(asked, reading, AffineDecoder(WIDTH))
    assert reading.runs > 2
    with torch.inference_mode(inference):
        asked = request()
    tensor = INPUTS[name](asked)
    changed = tensor.clone()
    changed.view(-1)[-1] = 3.0

    def write(x: Tensor) -> None:
        with torch.inference_mode(inference):
            x.copy_(changed)

    sides: list[Any] = [AffineDecoder(WIDTH), AffineDecoder(WIDTH)]
    sides[side] = Act(tensor, write)
    with pytest.raises(Parted, match=f"writes to request 0's {name}:"):
        drive(asked, *sides)


@pytest.mark.parametrize("tick", [0, 1, 3])
def test_one_ulp_of_one_row_parts_them_at_its_tick_and_the_same_on_both_sides_does_not(tick: int) -> None:
    def nudged(at: int) -> Any:
        runs: list[int] = []

        def decode(**inputs: Tensor) -> Tensor:
            out = AffineDecoder()(**inputs)
            runs.append(1)
            if len(runs) == at + 1:
                out[0, 0, 0] = torch.nextafter(out[0, 0, 0], torch.tensor(9.0))
            return out

        return EagerExecutor(decode)

    def play(first: Any, second: Any) -> None:
        with Lockstep((first, SCRIPT.config()), (second, SCRIPT.config())) as lockstep:
            SCRIPT.play(lockstep)

    play(nudged(tick), nudged(tick))
    with pytest.raises(Parted) as found:
        play(nudged(tick), EagerExecutor(AffineDecoder()))
    assert (found.value.tick, found.value.stage) == (tick, "decoder")


def test_a_script_of_ticks_compares_nothing_and_with_one_request_it_does() -> None:
    with pytest.raises(NothingCompared):
        run(Script((Tick(8),)), "integrator")
    assert run(Script((Submit(1), Tick(1))), "integrator").compared > 0
