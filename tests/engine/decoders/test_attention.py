"""Windows: every form attends the keys that diffusers attends, and no other."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers import ace_step_transformer
from torch import Tensor

from harness.engine.decoders import attention
from harness.engine.decoders.decoder_switches import BandForm, FullForm
from harness.parity.compare import assert_identical

CPU = torch.device("cpu")
LENGTHS = [1, 3, 127, 128, 129, 255, 256, 300, 375, 512, 750]


def expected(length: int, window: int, dtype: torch.dtype = torch.float32) -> Tensor:
    mask: Tensor = ace_step_transformer._create_4d_mask(length, dtype, CPU, None, window, True, False)
    return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_bias_has_the_values_of_diffusers_and_aligned_rows(length: int, dtype: torch.dtype) -> None:
    for window in (1, 4, 128):
        bias = attention.band_bias(length, window, dtype, CPU)
        assert_identical(bias.contiguous(), expected(length, window, dtype))
        assert bias.stride(-1) == 1 and bias.stride(-2) % attention.ALIGNMENT == 0


@pytest.mark.parametrize("window", [1, 100, 127, 128, 129, 300])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_mask_of_blocks_attends_the_same_keys(length: int, window: int) -> None:
    made = attention.band_blocks(length, window, CPU)
    attended = torch.zeros(length, length, dtype=torch.bool)
    index = torch.arange(length)
    full = made.full_kv_num_blocks, made.full_kv_indices
    for whole, (counts, blocks) in ((False, (made.kv_num_blocks, made.kv_indices)), (True, full)):
        assert counts is not None and blocks is not None
        for row, count in enumerate(counts[0, 0].tolist()):
            for column in blocks[0, 0, row, :count].tolist():
                size = attention.BLOCK
                queries, keys = (slice(n * size, min((n + 1) * size, length)) for n in (row, column))
                inside = made.mask_mod(index[:1], index[:1], index[queries, None], index[None, keys])
                assert not attended[queries, keys].any(), "a block is listed once"
                attended[queries, keys] = True if whole else inside
    assert torch.equal(attended, expected(length, window)[0, 0] == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_mask_as_a_bias_hides_the_same_tokens_with_aligned_rows(dtype: torch.dtype) -> None:
    for length in (1, 7, 16, 200):
        mask = torch.rand(3, length, generator=torch.Generator().manual_seed(1)) < 0.6
        bias = attention.mask_bias(mask, dtype)
        assert bias.dtype == dtype and bias.shape == (3, 1, 1, length)
        assert bias.stride(0) % attention.ALIGNMENT == 0 and bias.stride(-1) == 1
        assert torch.equal(bias[:, 0, 0] == 0, mask) and torch.equal(bias[:, 0, 0].isneginf(), ~mask)


def heads(length: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, length, count, 16, generator=draw) for count in (4, 2, 2))
    return query, key, value


def by_hand(length: int, window: int) -> Tensor:
    query, key, value = (each.double() for each in heads(length))
    key, value = (each.repeat_interleave(2, 2) for each in (key, value))
    scores = torch.einsum("nqhd,nkhd->nhqk", query, key) * 0.25 + expected(length, window, torch.float64)
    return torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), value).flatten(2, 3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("form", [BandForm.BIAS, BandForm.REPEATED, BandForm.FLEX])
@pytest.mark.parametrize("length", [3, 13, 150])
def test_every_form_is_attention_over_the_window(form: BandForm, length: int) -> None:
    for window in (2, 40, 200):
        blocks = attention.band_blocks(length, window, CPU)
        band = blocks if form is BandForm.FLEX else attention.band_bias(length, window, torch.float32, CPU)
        made = attention.attend_band(*heads(length), 0.25, band, form)
        assert made.shape == (2, length, 64)
        assert (made - by_hand(length, window)).abs().max() < 2e-6


def test_without_a_window_every_key_is_attended() -> None:
    made = attention.attend_full(*heads(20), 0.25, FullForm.AUTO)
    assert (made - by_hand(20, 20)).abs().max() < 2e-6


def test_forms_that_are_of_a_gpu_alone_are_no_others_on_a_cpu() -> None:
    bias = attention.band_bias(20, 4, torch.float32, CPU)
    with pytest.raises(NotImplementedError, match="cudnn_attention"):
        attention.attend_band(*heads(20), 0.25, bias, BandForm.CUDNN)
    with pytest.raises(NotImplementedError, match="cudnn_attention"):
        attention.attend_full(*heads(20), 0.25, FullForm.CUDNN)
    with pytest.raises(NotImplementedError, match="flash_attention"):
        attention.attend_full(*heads(20), 0.25, FullForm.FLASH)
