"""Operators of a layer's norms: on a CPU the formulas of diffusers, to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
from torch import Tensor

from harness.engine.decoders import fused
from harness.engine.decoders.fused import NONE
from harness.parity.compare import assert_identical

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ROWS, LENGTH, WIDTH, HEAD = 3, 5, 48, 16
NUMBERS = [(5, 0), (2, NONE), (NONE, 3), (NONE, NONE)]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]


def norm(weight: Tensor) -> RMSNorm:
    made = RMSNorm(weight.shape[0], eps=1e-6)
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    return made


def residuals(dtype: torch.dtype) -> list[Tensor]:
    states, table = (ROWS, LENGTH, WIDTH), (1, 6, WIDTH)
    return drawn(dtype, states, states, table, table, (ROWS, 6, WIDTH), (WIDTH,))


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_and_its_norm_are_those_of_diffusers(dtype: torch.dtype, numbers: tuple[int, int]) -> None:
    hidden, made, before, own, modulation, weight = residuals(dtype)
    gate, shift = numbers
    gates, shifts = (before + modulation).chunk(6, dim=1), (own + modulation).chunk(6, dim=1)
    expected = (hidden + (made if gate == NONE else made * gates[gate])).type_as(hidden)
    normed = norm(weight)(expected)
    if shift != NONE:
        normed = normed * (1 + shifts[shift + 1]) + shifts[shift]
    found = fused.residual_norm(hidden, made, (before, own), modulation, weight, 1e-6, numbers)
    assert_identical(found, (expected, normed.type_as(hidden)))


def heads(dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x, query, key, cos, sin = drawn(dtype, (ROWS, LENGTH, 8, HEAD), (HEAD,), (HEAD,), *[(LENGTH, HEAD // 2)] * 2)
    return x, (query, key), (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("counts", [(4, 2), (4, 0), (1, 7)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_are_normed_and_rotated_as_by_diffusers(
    dtype: torch.dtype, counts: tuple[int, int], rotate: bool
) -> None:
    x, weights, rotation = heads(dtype)
    parts = x[:, :, : counts[0]], x[:, :, counts[0] : sum(counts)]
    expected = torch.cat([norm(weight)(part) for weight, part in zip(weights, parts, strict=True)], 2)
    if rotate:
        expected = apply_rotary_emb(expected, rotation, use_real=True, use_real_unbind_dim=-2, sequence_dim=1)
    assert_identical(fused.normed_heads(x, weights, rotation if rotate else None, 1e-6, counts), expected)


def test_an_operator_writes_to_nothing_that_it_is_given() -> None:
    given = residuals(torch.float32)
    before = [each.clone() for each in given]
    hidden, made, first, own, modulation, weight = given
    fused.residual_norm(hidden, made, (first, own), modulation, weight, 1e-6, (5, 0))
    assert_identical(given, before)


@pytest.mark.parametrize("numbers", NUMBERS)
def test_the_operators_are_what_a_compiler_takes_them_for(numbers: tuple[int, int]) -> None:
    given = residuals(torch.bfloat16)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.harness.residual_norm.default, (*given, 1e-6, *numbers), test_utils=tests)
    x, weights, rotation = heads(torch.bfloat16)
    torch.library.opcheck(
        torch.ops.harness.normed_heads.default, (x, *weights, *rotation, 1e-6, 4, 2), test_utils=tests
    )
