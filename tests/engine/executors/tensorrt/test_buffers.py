from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine.executors import Batch
from harness.engine.executors.tensorrt.buffers import ALIGNMENT, Buffers, aligned
from harness.parity.compare import assert_identical
from tests.engine.executors.test_eager import batch

CPU = torch.device("cpu")


def buffers(rows: int, frames: int, dtype: torch.dtype = torch.float32, **others: Any) -> Buffers:
    shapes = {
        "hidden_states": (rows, frames, 8), "timestep": (rows,), "encoder_hidden_states": (rows, 6, 32),
        "context_latents": (rows, frames, 16), "encoder_mask": (rows, 6),
    }  # fmt: skip
    kinds = {name: torch.bool if name == "encoder_mask" else dtype for name in shapes} | others
    made = {name: aligned(shape, kinds[name], CPU) for name, shape in shapes.items()}
    for tensor in made.values():
        tensor.fill_(1 if tensor.dtype is torch.bool else torch.nan)
    return Buffers(made, aligned((rows, frames, 8), dtype, CPU))


def longer(given: Batch, frames: int) -> Batch:
    """The batch with `frames` frames, those that it lacks zero."""
    tensors = given.tensors()
    for name in ("hidden_states", "context_latents"):
        rows, has, width = tensors[name].shape
        tensors[name] = torch.cat([tensors[name], torch.zeros(rows, frames - has, width)], dim=1)
    return Batch(**tensors)


def test_every_address_is_a_multiple_of_256_whatever_the_allocator_gives() -> None:
    kept = [aligned((size,), dtype, CPU) for size in range(1, 40) for dtype in (torch.bool, torch.float16, torch.int64)]
    assert {tensor.data_ptr() % ALIGNMENT for tensor in kept} == {0}
    plain = [torch.empty(size, dtype=torch.float16) for size in range(1, 40)]
    assert {tensor.data_ptr() % ALIGNMENT for tensor in plain} != {0}


def test_an_aligned_tensor_is_one_as_any_other() -> None:
    made = aligned((2, 3, 5), torch.bfloat16, CPU)
    assert (made.shape, made.dtype, made.is_contiguous()) == ((2, 3, 5), torch.bfloat16, True)
    assert made.untyped_storage().nbytes() >= 60


def test_a_buffer_that_was_made_in_inference_mode_can_be_written_outside_it() -> None:
    with torch.inference_mode():
        made = aligned((3,), torch.float32, CPU)
    made.zero_()


def test_a_batch_is_copied_as_it_is() -> None:
    target = buffers(3, 10)
    target.fill(batch(3))
    assert_identical(dict(target.inputs), batch(3).tensors())


def test_missing_rows_repeat_the_first() -> None:
    target = buffers(5, 10)
    target.fill(batch(3))
    repeated = {name: torch.cat([t, t[:1], t[:1]]) for name, t in batch(3).tensors().items()}
    assert_identical(dict(target.inputs), repeated)


def test_missing_frames_are_zero_in_every_row_even_after_a_batch_that_had_them() -> None:
    target = buffers(4, 12)
    target.fill(longer(batch(4), 12))
    target.inputs["hidden_states"].fill_(7)
    target.fill(batch(3))
    padded = longer(batch(3), 12)
    assert_identical(dict(target.inputs), {name: torch.cat([t, t[:1]]) for name, t in padded.tensors().items()})


def test_each_input_is_cast_to_its_own_dtype() -> None:
    target = buffers(2, 10, torch.float16, timestep=torch.float32)
    target.fill(batch(2))
    given = batch(2).tensors()
    expected = {n: t if n in ("timestep", "encoder_mask") else t.half() for n, t in given.items()}
    assert_identical(dict(target.inputs), expected)


def test_a_batch_with_gradients_leaves_none_in_the_buffers() -> None:
    target = buffers(2, 10)
    given = batch(2)
    target.fill(Batch(**{**given.tensors(), "hidden_states": given.hidden_states.requires_grad_()}))
    assert not target.inputs["hidden_states"].requires_grad


@pytest.mark.parametrize("inputs", [("timestep",)])
def test_an_input_that_the_engine_does_not_have_is_not_copied(inputs: tuple[str, ...]) -> None:
    target = Buffers({name: buffers(2, 10).inputs[name] for name in inputs}, torch.empty(0))
    target.fill(batch(2))
    assert_identical(target.inputs["timestep"], batch(2).timestep)


def test_addresses_are_aligned_as_tensorrt_asks() -> None:
    assert ALIGNMENT == 256
