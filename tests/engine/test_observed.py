"""What an observer of a tick is told: every tensor of every stage of every slot, by its name and in its place."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from harness.engine import DCW, Guidance, PipelineConfig, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.compare import assert_identical, difference
from tests.engine.builders import condition, fixed, request

INPUTS = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_mask", "context_latents")
Name = tuple[str, int, str]


class Recording(EagerExecutor):
    """Keeps a copy of every batch and of every velocity."""

    def __init__(self, max_rows: int) -> None:
        super().__init__(AffineDecoder(), max_rows)
        self.ran: list[tuple[dict[str, Tensor], Tensor]] = []

    def run(self, batch: Batch) -> Tensor:
        velocity = super().run(batch)
        self.ran.append(({name: tensor.clone() for name, tensor in batch.tensors().items()}, velocity.clone()))
        return velocity


# A guided slot that keeps its negative velocity, one that ends at once, and one of two conditions.
REQUESTS = (
    request(1, guidance=Guidance(3.0, [condition(9, 2), condition(10, 7)], "initialize")),
    request(2, source=fixed(4), denoise=0.0),
    request(3, conditions=[condition(5, 4), condition(6, 1)]),
)
A, B, C, D = (0, "positive[0]"), (1, "positive[0]"), (2, "positive[0]"), (2, "positive[1]")
E, F = (0, "negative[0]"), (0, "negative[1]")
STATES = {0: ["x", "average", "kept_negative"], 1: ["x"], 2: ["x"]}
COMBINED = {0: ["velocity", "average", "kept_negative"], 1: ["velocity"], 2: ["velocity"]}


def expected(runs: list[list[tuple[int, str]]], places: list[int]) -> list[Name]:
    names: list[Name] = []
    for rows in runs:
        names += [("gather", index, f"{row}.{name}") for index, row in rows for name in INPUTS]
        names += [("decoder", *row) for row in rows]
    names += [("combine", index, name) for index in places for name in COMBINED[index]]
    names += [("step", index, "x") for index in places]
    names += [("dcw", index, "x") for index in places]
    return names + [("commit", index, name) for index in places for name in STATES[index]]


@pytest.mark.parametrize("integrator", ["foreach", "per_slot"])
@pytest.mark.parametrize(
    ("max_rows", "runs"),
    [(8, [[[A, B, C, D, E, F]], [[A, C, D]]]), (3, [[[A, B, C], [D], [E, F]], [[A, C, D]]])],
    ids=["one run", "three runs"],
)
def test_an_observer_is_told_every_tensor_of_a_tick_once_and_in_order(
    max_rows: int, runs: list[list[list[tuple[int, str]]]], integrator: str
) -> None:
    seen: list[tuple[Name, Tensor]] = []

    def observe(stage: Any, index: int, name: str, tensor: Tensor) -> None:
        seen.append(((str(stage), index, name), tensor.clone()))

    executor = Recording(max_rows)
    config = PipelineConfig(3, 3, dcw=DCW("pix", 0.5), switches=Switches(integrator=integrator))
    p = StreamPipeline(executor, config, observe=observe)
    for each in REQUESTS:
        p.submit(each)
    for rows, places in zip(runs, ([0, 1, 2], [0, 2]), strict=True):
        seen.clear()
        executor.ran.clear()
        ended = [f.latent for f in p.tick()]
        assert [name for name, _ in seen] == expected(rows, places)
        told = dict(seen)
        for run, (batch, velocity) in zip(rows, executor.ran, strict=True):
            assert len(run) == len(velocity)
            for place, (index, row) in enumerate(run):
                for name in INPUTS:
                    assert_identical(told["gather", index, f"{row}.{name}"], batch[name][place : place + 1])
                assert_identical(told["decoder", index, row], velocity[place : place + 1])
        for index, slot in enumerate(p.slots):
            if index in places:
                states = slot.state() if slot is not None else {"x": ended[0]}
                assert_identical({name: told["commit", index, name] for name in STATES[index]}, states)
                assert_identical(told["dcw", index, "x"], states["x"])
                for name in STATES[index][1:]:
                    assert_identical(told["combine", index, name], states[name])
                # At time 0 nothing is corrected.
                assert (difference(told["dcw", index, "x"], told["step", index, "x"]) is None) is (index == 1)
        assert_identical(told["combine", 0, "average"], p.slots[0].average)  # type: ignore[union-attr]
