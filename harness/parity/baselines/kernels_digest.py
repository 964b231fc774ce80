"""A digest of what a GPU's libraries make of fixed inputs: products, attentions and reductions.

GPUs of one model, with one driver and one torch, may run different kernels, and then make different bits. No name or
version shows that. So the fingerprint of a GPU holds this digest: where it differs, captures and contracts of the one
GPU say nothing about the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

PRODUCTS = (
    (1, 256, 2048),
    (4, 2048, 2048),
    (8, 2048, 12288),
    (1500, 2048, 2048),
    (3000, 2048, 6144),
    (3000, 6144, 2048),
)
"""Rows, depth and columns of the products: time embeddings and layers of the 2B decoder at 4 and 8 rows, T = 750."""

ATTENTIONS = ((4, 16, 375, 375, 128), (8, 16, 375, 200, 128))
"""Rows, heads, queries, keys and width of the attentions, each with and without a mask."""

REDUCED = ((1, 750, 64), (8, 750, 64), (8, 40, 4))
"""Shapes `[N, T, D]` of the reductions over T."""


@lru_cache(maxsize=8)
def digest(device: torch.device) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all results, float32 and bfloat16. The host waits.

    It depends on torch's settings at the first call, such as TF32; the fingerprint holds those by themselves.
    """
    found = hashlib.sha256()
    with torch.no_grad():
        for name, made in results(device):
            found.update(f"{name} {made.dtype} {list(made.shape)}".encode())
            found.update(made.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def results(device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Every result by its name, in a fixed order."""
    generator = torch.Generator(device="cpu").manual_seed(1)

    def drawn(*size: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float32, device="cpu").to(device, dtype)

    for dtype in (torch.float32, torch.bfloat16):
        for rows, depth, columns in PRODUCTS:
            weight = drawn(columns, depth, dtype=dtype)
            yield f"product {rows}x{depth}x{columns}", functional.linear(drawn(rows, depth, dtype=dtype), weight)
        for rows, heads, queries, keys, width in ATTENTIONS:
            q = drawn(rows, heads, queries, width, dtype=dtype)
            k, v = (drawn(rows, heads, keys, width, dtype=dtype) for _ in range(2))
            query, key = (torch.arange(count, device="cpu") for count in (queries, keys))
            band = (query[:, None] - key[None]).abs() <= max(1, keys // 3)
            for mask in (None, band.to(device)):
                yield f"attention {mask is not None}", functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        for size in REDUCED:
            x = drawn(*size, dtype=dtype)
            for name, reduce in _REDUCTIONS.items():
                yield name, reduce(x)


_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(dim=1),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "wide sum": lambda x: x.double().sum(dim=1),
    "mean square": lambda x: x.float().pow(2).mean(dim=-1),
}
