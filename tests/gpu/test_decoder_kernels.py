"""Kernels of the accelerated decoder on a GPU: near to their plain forms, and each token by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import fused
from harness.engine.decoders.fused import NONE
from harness.parity.compare import assert_identical

CUDA = torch.device("cuda:0")
NUMBERS = [(5, 0), (2, NONE), (NONE, 3)]
DTYPES = {torch.float32: 2e-7, torch.bfloat16: 1e-3, torch.float16: 1e-4}
"""By dtype, how far a kernel may be from its plain form: a sum in another order rounds few elements to a neighbour."""


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=draw).to(CUDA, dtype) for shape in shapes]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def residuals(dtype: torch.dtype, rows: int, length: int, width: int) -> list[Tensor]:
    states, table = (rows, length, width), (1, 6, width)
    return drawn(dtype, states, states, table, table, (rows, 6, width), (width,))


@pytest.mark.parametrize("width", [64, 512, 2048, 96])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_and_its_norm_are_near_to_the_plain_form(
    dtype: torch.dtype, numbers: tuple[int, int], width: int
) -> None:
    hidden, made, before, own, modulation, weight = residuals(dtype, 3, 75, width)
    given = (hidden, made, (before, own), modulation, weight, 1e-6, numbers)
    settled, normed = fused.residual_norm(*given)
    expected, expected_norm = fused.plain_residual_norm(*given)
    assert_identical(settled, expected)
    assert error(normed, expected_norm) < DTYPES[dtype]


@pytest.mark.parametrize("numbers", NUMBERS)
def test_a_token_has_the_same_bits_with_any_others(numbers: tuple[int, int]) -> None:
    hidden, made, before, own, modulation, weight = residuals(torch.bfloat16, 8, 375, 2048)

    def normed(rows: slice) -> tuple[Tensor, Tensor]:
        parts = (each[rows].contiguous() for each in (hidden, made))
        return fused.residual_norm(*parts, (before, own), modulation[rows].contiguous(), weight, 1e-6, numbers)

    whole = normed(slice(None))
    for row in range(8):
        assert_identical(normed(slice(row, row + 1)), tuple(each[row : row + 1] for each in whole))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("counts", [(16, 8), (16, 0), (4, 2), (1, 7)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_are_near_to_the_plain_form_from_any_layout(
    dtype: torch.dtype, counts: tuple[int, int], rotate: bool
) -> None:
    total = sum(counts) + counts[1]
    for width in (16, 128):
        x, query, key, cos, sin = drawn(dtype, (2, 75, total, width), (width,), (width,), *[(75, width // 2)] * 2)
        rotation = (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)) if rotate else None
        expected = fused.plain_normed_heads(x, (query, key), rotation, 1e-6, counts)
        found = fused.normed_heads(x, (query, key), rotation, 1e-6, counts)
        assert error(found, expected) < DTYPES[dtype]
        turned = x.transpose(1, 2).contiguous().transpose(1, 2)
        assert_identical(fused.normed_heads(turned, (query, key), rotation, 1e-6, counts), found)


def test_a_dtype_without_a_kernel_is_computed_by_the_plain_form() -> None:
    hidden, made, before, own, modulation, weight = residuals(torch.float64, 2, 5, 64)
    given = (hidden, made, (before, own), modulation, weight, 1e-6, (5, 0))
    assert_identical(fused.residual_norm(*given), fused.plain_residual_norm(*given))
