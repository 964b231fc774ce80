from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import BatchTooLarge, InvalidInput, PipelineClosed
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, OnnxExecutor, StaticExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import assert_identical


def batch(rows: int) -> Batch:
    def stacked(first: int, frames: int, width: int) -> Tensor:
        return torch.cat([noise(first + row, Purpose.INITIAL, 0, (1, frames, width)) for row in range(rows)])

    return Batch(
        hidden_states=stacked(1, 10, 8),
        timestep=torch.linspace(0.2, 0.9, 8)[:rows],
        encoder_hidden_states=stacked(20, 6, 32),
        encoder_mask=torch.ones(rows, 6, dtype=torch.bool),
        context_latents=stacked(40, 10, 16),
    )


def test_with_pinned_rows_a_row_s_bits_do_not_depend_on_how_many_run_with_it() -> None:
    executor = EagerExecutor(AceStepDecoder.preset("tiny", 0), pin_rows=8)
    alone = executor.run(batch(1)).clone()
    for rows in range(2, 9):
        assert_identical(executor.run(batch(rows))[:1], alone)


def test_pinned_rows_bound_the_rows_of_a_run() -> None:
    assert EagerExecutor(AffineDecoder(), max_rows=8, pin_rows=4).max_rows == 4


def test_more_rows_than_allowed_are_refused() -> None:
    with pytest.raises(BatchTooLarge, match="3 rows"):
        EagerExecutor(AffineDecoder(), max_rows=2).run(batch(3))


def test_a_decoder_without_a_mask_is_called_without_it() -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        assert "encoder_mask" not in inputs
        return inputs["hidden_states"]

    decoder.takes_mask = False
    assert not EagerExecutor(decoder).takes_mask
    assert_identical(EagerExecutor(decoder).run(batch(2)), batch(2).hidden_states)


def test_a_closed_executor_says_so() -> None:
    executor = EagerExecutor(AffineDecoder())
    executor.close()
    with pytest.raises(PipelineClosed):
        executor.run(batch(1))


@pytest.mark.parametrize("fields", [{"max_rows": 0}, {"pin_rows": 0}, {"max_rows": True}])
def test_row_counts_are_checked(fields: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        EagerExecutor(AffineDecoder(), **fields)


def test_with_pinned_rows_a_row_s_bits_do_not_depend_on_what_runs_with_it() -> None:
    executor = EagerExecutor(AceStepDecoder.preset("tiny", 0), pin_rows=4)
    alone = executor.run(batch(1)).clone()
    three = {name: tensor[[0, 3, 2]] for name, tensor in batch(4).tensors().items()}
    assert_identical(executor.run(Batch(**three))[:1], alone)


def test_pinned_runs_have_as_many_rows_as_they_say() -> None:
    seen = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.append(inputs["hidden_states"].shape[0])
        return inputs["hidden_states"]

    executor = EagerExecutor(decoder, pin_rows=4)
    assert [executor.run(batch(rows)).shape[0] for rows in (1, 3, 4)] == [1, 3, 4]
    assert seen == [4, 4, 4]
    with pytest.raises(BatchTooLarge, match="5 rows"):
        executor.run(batch(5))


@pytest.mark.parametrize("pin_rows", [None, 4])
def test_inputs_are_never_written_to(pin_rows: int | None) -> None:
    given = batch(3)
    copies = {name: tensor.clone() for name, tensor in given.tensors().items()}
    EagerExecutor(AceStepDecoder.preset("tiny", 0), pin_rows=pin_rows).run(given)
    assert_identical(given.tensors(), copies)


def test_closing_twice_is_fine() -> None:
    executor = EagerExecutor(AffineDecoder())
    executor.close()
    executor.close()


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
def test_a_run_outside_a_tick_keeps_no_graph_either(kind: type[EagerExecutor]) -> None:
    weight = torch.nn.Parameter(torch.ones(8))

    def decoder(**inputs: Tensor) -> Tensor:
        return AffineDecoder()(**inputs) * weight

    out = kind(decoder).run(batch(2))
    assert not out.requires_grad
    assert_identical(out, EagerExecutor(AffineDecoder()).run(batch(2)))


ROWS = {"max_rows": 8, "pin_rows": None}
DEFAULTS: dict[Any, dict[str, Any]] = {
    EagerExecutor: ROWS,
    StaticExecutor: {**ROWS, "max_shapes": 8, "stream": None},
    OnnxExecutor: {**ROWS, "threads": 1, "max_shapes": 8},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_an_executor_has_the_documented_defaults(kind: Any) -> None:
    known = inspect.signature(kind).parameters.values()
    assert {each.name: each.default for each in known if each.default is not inspect.Parameter.empty} == DEFAULTS[kind]


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
def test_a_velocity_is_a_plain_tensor_without_a_gradient_that_may_be_written_and_computed_with(kind: Any) -> None:
    decoder = AceStepDecoder.preset("tiny", 0)
    velocity = kind(decoder, max_rows=2).run(batch(2))
    assert (velocity.is_inference(), velocity.requires_grad, velocity.grad_fn) == (False, False, None)
    before = velocity._version
    velocity.add_(1.0)
    assert velocity._version == before + 1
    scale = torch.ones(1, requires_grad=True)
    (velocity * scale).sum().backward()
    assert scale.grad is not None


NAMES = ["hidden_states", "timestep", "encoder_hidden_states", "encoder_mask", "context_latents"]


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
def test_a_decoder_gets_every_input_by_name_in_order_and_the_rows_that_are_missing_repeat_the_first(
    kind: type[EagerExecutor],
) -> None:
    seen: list[dict[str, Tensor]] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.append({name: tensor.clone() for name, tensor in inputs.items()})
        return inputs["hidden_states"]

    executor = kind(decoder, pin_rows=5)
    for rows in (3, 1, 5):
        executor.run(batch(rows))
        padded = {name: torch.cat([t, *[t[:1]] * (5 - rows)]) for name, t in batch(rows).tensors().items()}
        assert_identical(seen[-1], padded)
        assert list(seen[-1]) == list(padded) == NAMES


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
def test_the_smaller_of_both_numbers_of_rows_bounds_a_batch_and_the_message_tells_it(kind: type[EagerExecutor]) -> None:
    executor = kind(AffineDecoder(), max_rows=2, pin_rows=4)
    assert executor.max_rows == 2
    assert executor.run(batch(2)).shape[0] == 2
    with pytest.raises(BatchTooLarge) as refused:
        executor.run(batch(4))
    assert str(refused.value) == "a batch of 4 rows: the executor's max_rows is 2"
    executor.close()
    with pytest.raises(PipelineClosed, match="^the executor is closed$"):
        executor.run(batch(4))


def test_a_batch_is_equal_to_itself_alone_and_cannot_be_changed() -> None:
    one, other = batch(2), batch(2)
    assert one == one  # noqa: PLR0124 - the comparison is what is asked
    assert one != other
    assert len({one, other, one}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.timestep = other.timestep  # type: ignore[misc]
