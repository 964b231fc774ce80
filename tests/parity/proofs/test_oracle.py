from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from harness import registry
from harness.engine import DCW, Condition, Guidance, InvalidInput, PipelineConfig, Request, StreamPipeline, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, executor
from harness.parity.compare import ParityError, assert_identical, identical
from harness.parity.proofs import oracle
from harness.parity.proofs.oracle import StepControls
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


GUIDANCES: list[Guidance | None] = [
    None,
    Guidance(2.0, [condition(9)]),
    Guidance(2.0, [condition(9)], "initialize"),
    Guidance(2.0, mode="self"),
]


@pytest.mark.parametrize("guidance", GUIDANCES, ids=lambda g: g.mode if g else "none")
def test_every_state_of_a_request_is_that_of_its_slot(guidance: Guidance | None) -> None:
    """Latent, guidance average and kept negative velocity, from the initial state to the finished one."""
    asked, config = request(guidance=guidance), PipelineConfig(steps=3, depth=1, dcw=DCW())
    with StreamPipeline(EagerExecutor(AffineDecoder()), config) as pipeline:
        pipeline.submit(asked)
        finished = pipeline.tick()
        slots = [pipeline.slots[0]]
        while not finished:
            finished = pipeline.tick()
            slots.append(pipeline.slots[0])
        found = list(oracle.states(EagerExecutor(AffineDecoder()), asked, config, pipeline.encoder_length or 0))
    assert [state.step for state in found] == [0, 1, 2, 3]
    assert_identical(found[0].x, noise(asked.seed, Purpose.INITIAL, 0, (1, asked.frames, asked.channels)))
    assert found[0].average is None and found[0].kept_negative is None
    for state, slot in zip(found[1:3], slots, strict=False):
        assert slot is not None and slot.step == state.step
        kept = {"x": state.x, "average": state.average, "kept_negative": state.kept_negative}
        assert_identical({name: tensor for name, tensor in kept.items() if tensor is not None}, slot.state())
    assert_identical(found[3].x, finished[0].latent)
    assert (found[3].average is not None) == (guidance is not None)
    assert (found[3].kept_negative is not None) == (guidance is not None and guidance.mode == "initialize")


def test_without_controls_the_wavelet_correction_of_the_configuration_is_in_force_at_every_step() -> None:
    def ended(config: PipelineConfig, controls: list[StepControls] | None = None) -> Tensor:
        return oracle.run(EagerExecutor(AffineDecoder()), request(), config, 8, controls)

    config, plain = PipelineConfig(steps=3, dcw=DCW()), PipelineConfig(steps=3)
    assert_identical(ended(config), ended(plain, [StepControls(dcw=config.dcw)] * 3))
    assert_identical(ended(config, [StepControls()] * 3), ended(plain))
    ends = [ended(plain, [StepControls(dcw=config.dcw if on == step else None) for on in range(3)]) for step in (0, 2)]
    for other in (*ends, ended(plain)):
        assert not identical(ended(config), other)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_controls_than_of_steps_is_refused_in_words(count: int) -> None:
    controls = [StepControls()] * count
    with pytest.raises(InvalidInput) as caught:
        oracle.run(EagerExecutor(AffineDecoder()), request(), PipelineConfig(steps=2), 8, controls)
    wanted = InvalidInput("controls_per_step", f"{count} of them", "one for each of 2 steps")
    assert str(caught.value) == str(wanted)
