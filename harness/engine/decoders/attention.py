"""Attention of a decoder's layers: over a window, over everything, and over a condition.

Queries are `[N, S, heads, width]`, keys and values `[N, S, fewer heads, width]`; several query heads share one key. The
result is `[N, S, heads * width]`.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from harness.engine.decoders.decoder_switches import BandForm, FullForm

Band: TypeAlias = Tensor | BlockMask | None
"""A window: an additive bias `[1, 1, S, S]`, a mask of blocks, or None where every query attends every key."""

ALIGNMENT = 16
"""Rows of a bias start at a multiple of this number of elements: kernels read them in pieces of 16 bytes and more."""

BLOCK = 128
"""Queries and keys of one block of a mask of blocks."""


def band_bias(length: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An additive bias `[1, 1, S, S]`: 0 where `|query - key| <= window`, else the lowest number of the dtype.

    Its values are those of diffusers. Its rows are aligned, whatever S is.
    """
    index = torch.arange(length, device=device)
    key = torch.arange(-(-length // ALIGNMENT) * ALIGNMENT, device=device)
    outside = (index[:, None] - key[None, :]).abs() > window
    bias = torch.zeros(outside.shape, dtype=dtype, device=device).masked_fill(outside, torch.finfo(dtype).min)
    return bias[None, None, :, :length]


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as an additive bias `[N, 1, 1, L]`, as torch makes one of it in every call of attention; rows are aligned.

    Args:
        mask: bool `[N, L]`, False where a token is not attended.
        dtype: that of the queries.
    """
    length = mask.shape[1]
    padded = functional.pad(mask, (0, -length % ALIGNMENT), value=True)
    bias = torch.zeros(padded.shape, dtype=dtype, device=mask.device).masked_fill(~padded, -torch.inf)
    return bias[:, None, None, :length]


def band_blocks(length: int, window: int, device: torch.device) -> BlockMask:
    """The same window as a mask of blocks for FlexAttention. Blocks that are attended as a whole are named as such."""
    count = -(-length // BLOCK)
    partial, full = [], []
    for row in range(count):
        queries = range(row * BLOCK, min((row + 1) * BLOCK, length))
        partly, fully = [], []
        for column in range(count):
            keys = range(column * BLOCK, min((column + 1) * BLOCK, length))
            furthest = max(queries[-1] - keys[0], keys[-1] - queries[0])
            nearest = max(keys[0] - queries[-1], queries[0] - keys[-1], 0)
            # A block beyond the end is masked by its length, which a block that is attended as a whole is not.
            if furthest <= window and len(queries) == len(keys) == BLOCK:
                fully.append(column)
            elif nearest <= window:
                partly.append(column)
        partial.append(partly)
        full.append(fully)

    def within(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= window

    return BlockMask.from_kv_blocks(
        *_table(partial, device),
        *_table(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=within,
        seq_lengths=(length, length),
    )


def _table(blocks: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Number of key blocks of each query block, `[1, 1, rows]`, and their indices, `[1, 1, rows, rows]`."""
    count = torch.tensor([len(each) for each in blocks], dtype=torch.int32)
    index = torch.tensor([each + [0] * (len(blocks) - len(each)) for each in blocks], dtype=torch.int32)
    return count[None, None].to(device), index[None, None].to(device)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Attention as diffusers calls it: torch chooses the kernel.

    Args:
        query: see the module.
        key: see the module.
        value: see the module.
        scale: factor of the scores.
        mask: bool or additive, `[N or 1, 1, S or 1, keys]`; None: every key is attended.
    """
    q, k, v = _heads_first(query, key, value)
    grouped = query.shape[2] != key.shape[2]
    made = functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=grouped)
    return _heads_last(made)


def attend_band(query: Tensor, key: Tensor, value: Tensor, scale: float, band: Band, form: BandForm) -> Tensor:
    """Attention over a window in one of the forms; `band` is a mask of blocks for `FLEX`, else a bias."""
    if isinstance(band, BlockMask):
        q, k, v = _heads_first(query, key, value)
        made = flex_attention(q, k, v, block_mask=band, scale=scale, enable_gqa=query.shape[2] != key.shape[2])
        assert isinstance(made, Tensor)  # noqa: S101 - for mypy: a tuple comes only where more is asked for
        return _heads_last(made)
    if form is BandForm.CUDNN:
        return _by_cudnn(query, key, value, scale, band)
    if form is BandForm.REPEATED:
        times = query.shape[2] // key.shape[2]
        key, value = (each.repeat_interleave(times, 2) for each in (key, value))
    return attend(query, key, value, scale, band)


def attend_full(query: Tensor, key: Tensor, value: Tensor, scale: float, form: FullForm) -> Tensor:
    """Attention of every query over every key in one of the forms."""
    if form is FullForm.CUDNN:
        return _by_cudnn(query, key, value, scale, None)
    if form is FullForm.FLASH:
        q, k, v = _heads_first(query, key, value)
        made: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]  # noqa: SLF001
        return _heads_last(made)
    return attend(query, key, value, scale)


def _by_cudnn(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    q, k, v = _heads_first(query, key, value)
    # The operator itself, and not torch's choice: where cuDNN does not take a shape, this is an error and no fallback.
    op = torch.ops.aten._scaled_dot_product_cudnn_attention  # noqa: SLF001 it has no public name
    made: Tensor = op(q, k, v, bias, False, scale=scale)[0]
    return _heads_last(made)


def _heads_first(*given: Tensor) -> tuple[Tensor, ...]:
    """Views `[N, heads, S, width]`, as torch's attention takes them."""
    return tuple(each.permute(0, 2, 1, 3) for each in given)


def _heads_last(made: Tensor) -> Tensor:
    return made.permute(0, 2, 1, 3).flatten(2, 3)
