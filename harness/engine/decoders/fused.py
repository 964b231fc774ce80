"""Norms of a decoder's layer with what stands before and after them, as operators: on a GPU each is one kernel.

The plain forms in this module are the operators on a CPU, and what the kernels are held to. They have the formulas of
diffusers, in its order. Tensors are `[N, S, H]`, tables `[1, 6, H]` and modulations `[N, 6, H]`: shift, scale and gate
of the attention, then of the feed-forward part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Dtypes that the kernels compute; another dtype is computed by the plain form."""

NONE = -1
"""In place of a number in the table: there is no such factor."""


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The formula of diffusers' `RMSNorm` over the last dimension, with a weight that broadcasts."""
    made = x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + eps)
    return (made.to(weight.dtype) if weight.dtype in (torch.float16, torch.bfloat16) else made) * weight


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `[N, S, heads, width]`; the same products and sums as in diffusers' `apply_rotary_emb`, half by half.

    Both halves of the width have the same angles, so the second halves of `cos` and `sin` are not read.
    """
    first, second = x.float().chunk(2, -1)
    cos, sin = (each[None, :, None].chunk(2, -1)[0] for each in (cos, sin))
    return torch.cat([(first * cos + (-second) * sin).to(x.dtype), (second * cos + first * sin).to(x.dtype)], -1)


def plain_residual_norm(
    hidden: Tensor,
    made: Tensor,
    tables: tuple[Tensor, Tensor],
    modulation: Tensor,
    weight: Tensor,
    eps: float,
    numbers: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The plain form of `residual_norm`."""
    return residual_by(lambda x: rms(x, weight, eps), hidden, made, tables, modulation, numbers)


def residual_by(
    norm: Callable[[Tensor], Tensor],
    hidden: Tensor,
    made: Tensor,
    tables: tuple[Tensor, Tensor],
    modulation: Tensor,
    numbers: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The plain form of `residual_norm` with a norm of the caller's."""
    gate, shift = numbers
    if gate != NONE:
        made = made * (tables[0] + modulation)[:, gate : gate + 1]
    hidden = (hidden + made).type_as(hidden)
    normed = norm(hidden)
    if shift != NONE:
        rows = tables[1] + modulation
        normed = normed * (1 + rows[:, shift + 1 : shift + 2]) + rows[:, shift : shift + 1]
    return hidden, normed.type_as(hidden)


def plain_normed_heads(
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    rotation: tuple[Tensor, Tensor] | None,
    eps: float,
    heads: tuple[int, int],
) -> Tensor:
    """The plain form of `normed_heads`."""
    weight = torch.cat([each.expand(count, -1) for each, count in zip(weights, heads, strict=True)])
    normed = rms(x[:, :, : sum(heads)], weight, eps)
    return normed if rotation is None else rotated(normed, *rotation)


def residual_norm(
    hidden: Tensor,
    made: Tensor,
    tables: tuple[Tensor, Tensor],
    modulation: Tensor,
    weight: Tensor,
    eps: float,
    numbers: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Add a residual to hidden states, norm the sum, and shift and scale it; return the sum and the norm.

    Args:
        hidden: hidden states.
        made: the residual.
        tables: the table that the residual's gate is read of, and the one that shift and scale are read of.
        modulation: projection of the time.
        weight: of the norm, `[H]`.
        eps: of the norm.
        numbers: the gate's number in its table, and the shift's, which the scale follows; `NONE` where there is none.
    """
    result: tuple[Tensor, Tensor] = torch.ops.harness.residual_norm(
        hidden, made, *tables, modulation, weight, eps, *numbers
    )
    return result


def normed_heads(
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    rotation: tuple[Tensor, Tensor] | None,
    eps: float,
    heads: tuple[int, int],
) -> Tensor:
    """Norm queries and keys, the first heads of one tensor, and rotate them, `[N, S, queries + keys, width]`.

    Args:
        x: `[N, S, at least queries + keys, width]`.
        weights: of the norms of queries and of keys, `[width]` each.
        rotation: cosine and sine, `[S, width]` each, whose halves are equal; None: nothing is rotated.
        eps: of both norms.
        heads: numbers of queries and of keys.
    """
    cos, sin = rotation or (None, None)
    made: Tensor = torch.ops.harness.normed_heads(x, *weights, cos, sin, eps, *heads)
    return made


def _residual_norm(  # noqa: PLR0913 - an operator takes no tuples
    hidden: Tensor,
    made: Tensor,
    gate_table: Tensor,
    table: Tensor,
    modulation: Tensor,
    weight: Tensor,
    eps: float,
    gate: int,
    shift: int,
) -> tuple[Tensor, Tensor]:
    if not _by_kernel(hidden, made, gate_table, table, modulation, weight):
        return plain_residual_norm(hidden, made, (gate_table, table), modulation, weight, eps, (gate, shift))
    hidden, made, modulation = (each.contiguous() for each in (hidden, made, modulation))
    rows, length, width = hidden.shape
    settled, normed = torch.empty_like(hidden), torch.empty_like(hidden)
    arguments = (hidden, made, gate_table, table, modulation, weight, settled, normed, length, eps, gate, shift, width)
    block = 1 << (width - 1).bit_length()
    with torch.cuda.device(hidden.device):
        _kernels().residual_norm[(rows * length,)](*arguments, block, num_warps=4, enable_fp_fusion=False)
    return settled, normed


def _normed_heads(
    x: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    eps: float,
    queries: int,
    keys: int,
) -> Tensor:
    rotation = None if cos is None or sin is None else (cos, sin)
    heads, half = queries + keys, x.shape[-1] // 2
    if not _by_kernel(x, query_weight, key_weight, *(rotation or ())) or half & (half - 1):
        return plain_normed_heads(x, (query_weight, key_weight), rotation, eps, (queries, keys))
    rows, length, _heads, width = x.shape
    if x.stride(3) != 1 or x.stride(2) != width or x.stride(0) != length * x.stride(1):
        x = x.contiguous()
    made = x.new_empty(rows, length, heads, width)
    block = 8
    arguments = (x, query_weight, key_weight, cos, sin, made, length, x.stride(1), eps, queries, heads, half, block)
    with torch.cuda.device(x.device):
        grid = (rows * length, -(-heads // block))
        _kernels().normed_heads[grid](*arguments, rotation is not None, num_warps=2, enable_fp_fusion=False)
    return made


def _by_kernel(first: Tensor, *others: Tensor) -> bool:
    """Say whether the kernels compute this: on a GPU, with one dtype for all."""
    same = all(each.dtype == first.dtype for each in others)
    return first.is_cuda and first.dtype in KERNEL_DTYPES and same


def _kernels() -> Any:
    from harness.engine.kernels import decoder_triton  # noqa: PLC0415 - Triton is there on a GPU alone

    return decoder_triton


def _like(hidden: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    return hidden.new_empty(hidden.shape), hidden.new_empty(hidden.shape)


def _like_heads(x: Tensor, *others: Any) -> Tensor:
    queries, keys = others[-2:]
    return x.new_empty(*x.shape[:2], queries + keys, x.shape[-1])


_SCHEMAS = (
    "residual_norm(Tensor hidden, Tensor made, Tensor gate_table, Tensor table, Tensor modulation, Tensor weight, "
    "float eps, int gate, int shift) -> (Tensor, Tensor)",
    "normed_heads(Tensor x, Tensor query_weight, Tensor key_weight, Tensor? cos, Tensor? sin, float eps, int queries, "
    "int keys) -> Tensor",
)
_CALLS: tuple[tuple[Any, Any], ...] = ((_residual_norm, _like), (_normed_heads, _like_heads))
_LIBRARY: Any = torch.library.Library("harness", "DEF")  # type: ignore[no-untyped-call]
for _schema, (_call, _fake) in zip(_SCHEMAS, _CALLS, strict=True):
    _name = _LIBRARY.define(_schema)
    for _key in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _call, _key)
    torch.library.register_fake(f"harness::{_name}", _fake, lib=_LIBRARY)
