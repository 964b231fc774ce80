"""Shapes of decoder runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.engine import InvalidInput
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.executors import Shape
from harness.engine.executors.shapes import PreparesShapes
from harness.parity.compare import assert_identical
from tests.engine.executors.test_eager import batch

SHAPE = Shape(10, 6, 8, 32)
CPU = torch.device("cpu")


def test_a_batch_has_the_shape_of_its_tensors_and_any_number_of_rows() -> None:
    assert Shape.of(batch(1)) == Shape.of(batch(5)) == SHAPE
    given = batch(2)
    half = replace(given, encoder_hidden_states=given.encoder_hidden_states.half())
    assert Shape.of(half) == replace(SHAPE, encoder_dtype=torch.float16)
    half = replace(given, context_latents=given.context_latents.bfloat16())
    assert Shape.of(half) == replace(SHAPE, context_dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ["timestep", "encoder_mask", "context_latents"])
def test_a_batch_whose_tensors_do_not_fit_each_other_is_refused(name: str) -> None:
    given = batch(2)
    tensor = getattr(given, name)
    for wrong in (tensor[:1], tensor[..., :-1], tensor[None]):
        with pytest.raises(InvalidInput, match=rf"batch.{name}: got torch.* expected the shape \["):
            Shape.of(replace(given, **{name: wrong}))


@pytest.mark.parametrize("name", ["hidden_states", "encoder_hidden_states"])
def test_a_tensor_without_its_three_dimensions_is_named(name: str) -> None:
    given = batch(2)
    tensor = getattr(given, name)
    for wrong in (tensor[0], tensor[0, 0], tensor[None]):
        with pytest.raises(InvalidInput, match=rf"batch.{name}: got torch.* expected three dimensions"):
            Shape.of(replace(given, **{name: wrong}))


def test_a_batch_with_another_number_of_conditions_is_refused() -> None:
    given = batch(2)
    with pytest.raises(InvalidInput, match="batch.encoder_hidden_states"):
        Shape.of(replace(given, encoder_hidden_states=given.encoder_hidden_states[:1]))


@pytest.mark.parametrize(("field", "value", "said"), [
    *((name, 0, "an integer >= 1") for name in ("frames", "tokens", "channels", "encoder_dim")),
    ("frames", 1.5, "an integer >= 1"),
    *((name, torch.int64, "a floating dtype") for name in ("encoder_dtype", "context_dtype")),
    *((name, "float32", "a torch.dtype") for name in ("encoder_dtype", "context_dtype")),
])  # fmt: skip
def test_a_field_out_of_range_is_refused_by_name(field: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"shape.{field}: got .*expected {said}"):
        replace(SHAPE, **{field: value})


def test_its_words() -> None:
    shape = Shape(750, 200, 64, 2048, torch.bfloat16, torch.float16)
    assert str(shape) == "T=750, L=200, D=64, E=2048 (bfloat16 encoder, float16 context)"


def test_a_decoder_that_names_its_widths_has_a_shape() -> None:
    assert Shape.of_decoder(AceStepDecoder.preset("tiny", 0), 10, 6) == SHAPE
    with pytest.raises(InvalidInput, match="decoder: got AffineDecoder, expected a decoder with channels"):
        Shape.of_decoder(AffineDecoder(16), 10, 6)


def test_an_example_is_a_batch_of_the_shape_whose_rows_differ_and_is_always_the_same() -> None:
    shape = replace(SHAPE, encoder_dtype=torch.bfloat16, context_dtype=torch.float16)
    made = shape.example(8, CPU)
    assert Shape.of(made) == shape
    for name, tensor in made.tensors().items():
        assert_identical(tensor, getattr(shape.example(8, CPU), name))
        distinct = {tuple(row.flatten().float().tolist()) for row in tensor}
        assert len(distinct) == (6 if name == "encoder_mask" else 8), name
    assert made.encoder_mask.any(dim=1).all() and made.encoder_mask[0].all()
    assert made.timestep.tolist() == [1 - row / 8 for row in range(8)]
    assert made.hidden_states.dtype == torch.float32


def test_only_an_executor_with_both_methods_prepares_shapes() -> None:
    class Half:
        def prepare(self) -> None: ...

    assert not isinstance(Half(), PreparesShapes)
