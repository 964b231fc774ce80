from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from harness import registry
from harness.engine import Condition, Guidance, InvalidInput, PipelineConfig, Request, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, executor
from harness.parity.compare import ParityError, assert_identical
from harness.parity.proofs import oracle
from harness.registry import COMPARED
from tests.engine.builders import condition, fixed, request
from tests.parity.journal import JournaledPipeline
from tests.parity.strategies import Case, cases


def journaled(name: str, kind: str = "eager") -> JournaledPipeline:
    scenario = SCENARIOS[name]
    config = PipelineConfig(**{"depth": 3, "steps": 4, **scenario.config})
    pipeline = JournaledPipeline(executor(scenario, kind), config)
    scenario.script(Player(pipeline, scenario.sizes))
    return pipeline


@pytest.mark.parametrize("kind", [*registry.LIVE, "onnx"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_request_of_the_battery_ends_with_the_bits_it_has_alone(name: str, kind: str) -> None:
    """On an engine that was made ahead of time, alone on it."""
    alone = executor(SCENARIOS[name], kind if kind == "onnx" else "eager")
    journaled(name, kind).assert_oracle_agrees(alone)


def test_the_oracle_notices_a_control_that_is_one_tick_late() -> None:
    pipeline = journaled("mixed_ring")
    pipeline.journal.insert(0, pipeline.journal[0])
    with pytest.raises(ParityError):
        pipeline.assert_oracle_agrees(executor(SCENARIOS["mixed_ring"]))


def test_the_oracle_wants_controls_for_every_step() -> None:
    request = Request((Condition(torch.ones(1, 2, 8)),), torch.ones(1, 3, 4), 1)
    with pytest.raises(InvalidInput, match="controls_per_step"):
        oracle.run(EagerExecutor(AffineDecoder()), request, PipelineConfig(), 8, [])


class OneBuffer(EagerExecutor):
    """An executor that writes every velocity into the same memory, as one with static buffers does."""

    buffer: Tensor | None = None

    def run(self, batch: Batch) -> Tensor:
        made = super().run(batch)
        self.buffer = made.clone() if self.buffer is None else self.buffer.copy_(made)
        return self.buffer


def test_a_velocity_that_the_next_run_overwrites_is_kept() -> None:
    asked = request(conditions=[condition(1), condition(2)], guidance=Guidance(2.0, [condition(9)], "initialize"))
    expected = oracle.run(EagerExecutor(AffineDecoder()), asked, PipelineConfig(steps=3), 8)
    assert_identical(oracle.run(OneBuffer(AffineDecoder()), asked, PipelineConfig(steps=3), 8), expected)


@pytest.mark.parametrize("solver", ["ode", "sde"])
def test_a_target_without_strength_is_no_target(solver: str) -> None:
    config = PipelineConfig(steps=4, solver=solver)
    targets = [None, X0Target(fixed(3), strength=0.0)]
    ends = [oracle.run(EagerExecutor(AffineDecoder()), request(x0_target=target), config, 8) for target in targets]
    assert_identical(*ends)


def test_a_time_is_float32_whatever_the_default_dtype_is() -> None:
    seen: list[torch.dtype] = []

    class Seeing(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            seen.append(batch.timestep.dtype)
            return torch.zeros_like(batch.hidden_states)

    asked, on = request(), Seeing(AffineDecoder())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        oracle.run(on, asked, PipelineConfig(steps=2), 8)
    finally:
        torch.set_default_dtype(before)
    assert seen == [torch.float32] * 2


def test_a_row_s_mask_is_bool_with_the_caller_s_mask_and_without() -> None:
    seen: list[Tensor] = []

    class Seeing(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            seen.append(batch.encoder_mask)
            return torch.zeros_like(batch.hidden_states)

    masked = condition(2, 3, encoder_mask=torch.tensor([[True, True, False]]))
    oracle.run(Seeing(AffineDecoder()), request(conditions=[condition(1, 3), masked]), PipelineConfig(steps=1), 5)
    assert_identical(torch.cat(seen), torch.tensor([[True] * 3 + [False] * 2, [True] * 2 + [False] * 3]))


@pytest.mark.parametrize("kind", COMPARED)
def test_whatever_happens_around_a_request_its_bits_are_those_it_has_alone(kind: str) -> None:
    @given(case=cases(rewrites=False))
    def bits_are_those_it_has_alone(case: Case) -> None:
        executor = registry.executor(kind, AffineDecoder(), case.max_rows, case.pin_rows)
        pipeline = JournaledPipeline(executor, case.script.config(case.others))
        case.script.play(pipeline)
        pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1))

    bits_are_those_it_has_alone()
