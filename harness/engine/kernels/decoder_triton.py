"""Triton kernels of `harness.engine.decoders.fused`.

Every product and sum rounds by itself, where the plain form rounds; the kernels are compiled without fused
multiply-adds. Sums over a row are float32, in an order of their own.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rounded(x, like):  # type: ignore[no-untyped-def]
    """Round to the dtype of a pointer's elements, and go on in float32."""
    return x.to(like.dtype.element_ty).to(tl.float32)


@triton.jit
def _shifted(table, modulation, row, index: tl.constexpr, column, inside, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """One of the six shifts, scales and gates of a row of the batch, rounded."""
    own = tl.load(table + index * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(modulation + (row * 6 + index) * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    return _rounded(own + added, table)


@triton.jit(do_not_specialize=["length"])
def residual_norm(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - a kernel takes addresses
    hidden,
    made,
    gate_table,
    table,
    modulation,
    weight,
    settled,
    normed,
    length,
    eps,
    GATE: tl.constexpr,
    SHIFT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add a residual to one token's hidden states, and norm them. A negative `GATE` or `SHIFT` means none."""
    token = tl.program_id(0)
    row, start = token // length, token.to(tl.int64) * WIDTH
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    x = tl.load(hidden + start + column, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(made + start + column, mask=inside, other=0.0).to(tl.float32)
    if GATE >= 0:
        added = _rounded(added * _shifted(gate_table, modulation, row, GATE, column, inside, WIDTH), hidden)
    x = _rounded(x + added, hidden)
    tl.store(settled + start + column, x.to(settled.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    y = _rounded(_rounded(x * scale, hidden) * w, hidden)
    if SHIFT >= 0:
        factor = _rounded(1.0 + _shifted(table, modulation, row, SHIFT + 1, column, inside, WIDTH), hidden)
        y = _rounded(y * factor, hidden) + _shifted(table, modulation, row, SHIFT, column, inside, WIDTH)
    tl.store(normed + start + column, y.to(normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length"])
def normed_heads(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - as above
    x,
    query_weight,
    key_weight,
    cos,
    sin,
    made,
    length,
    stride,
    eps,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    ROTATE: tl.constexpr,
):
    """Norm some heads of one token, each with the weight of queries or of keys, and rotate them."""
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < HEADS) & (column < HALF)
    source = x + token.to(tl.int64) * stride + head * (2 * HALF) + column
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    scale = tl.rsqrt(total / (2 * HALF) + eps)[:, None]
    queries = head < QUERIES
    w_first = tl.where(queries, tl.load(query_weight + column), tl.load(key_weight + column)).to(tl.float32)
    w_second = tl.where(queries, tl.load(query_weight + HALF + column), tl.load(key_weight + HALF + column))
    first = _rounded(_rounded(first * scale, x) * w_first, x)
    second = _rounded(_rounded(second * scale, x) * w_second.to(tl.float32), x)
    if ROTATE:
        place = (token % length) * (2 * HALF) + column
        c, s = tl.load(cos + place).to(tl.float32), tl.load(sin + place).to(tl.float32)
        turned = first * c + (-second) * s
        second = second * c + first * s
        first = turned
    target = made + token.to(tl.int64) * (HEADS * 2 * HALF) + head * (2 * HALF) + column
    tl.store(target, first.to(made.dtype.element_ty), mask=inside)
    tl.store(target + HALF, second.to(made.dtype.element_ty), mask=inside)
