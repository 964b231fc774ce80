"""A decoder in closed form: no weights, quick, and its rows cannot influence each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeAlias

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.errors import InvalidInput

Maker: TypeAlias = Callable[[int, int, torch.device], Tensor]


class AffineDecoder:
    """A velocity that is affine in the latent, with coefficients that every other input moves.

    For one row with latent `h [T, D]`, time `t`, source latents `src` and chunk mask `chunk` (the two halves of the
    context, `[T, D]` each), encoder states `e [L, E]` and encoder mask `m [L]`, all in float32:

        token[l] = sum_e (8 / (8 + e % 16)) * e[l, e] / sqrt(E)
        P = soft(sum_l m[l] * (8 / (8 + l)) * (token[l] + 1/8) / 4)        the attended tokens, in their places
        Q = soft(4 * sum_l token[l] / L)                                   all of them, padding included
        soft(z) = z / (1 + |z|)
        r[i, j] = (i + 1) / T - (j + 1) / D

        v = (1/2 + t/4 + P/4 + Q/2) * h
          + (3/8 - t/4 + P/2) * src
          + (1/4 + t/8 - 3/8 * P + Q/4) * chunk
          + (1/8 + P/4 + Q/2) * r

    `1/8` in `P` lets the mask show where the tokens that it hides are zero, and `Q` lets the amount of padding show,
    so a padding defect cannot pass for want of a decoder that reacts to it. Positive and negative conditions differ in
    all four coefficients, so their difference is neither constant over `[T, D]` nor parallel to either of them. The
    coefficient of `h` stays in (-1/2, 3/2): a loop over any number of steps is bounded.

    A row is pure by construction: nothing but elementwise operations of one rounding each, and none of them meets two
    rows. Sums are pairwise folds, because `sum` is free to pick its order by batch size, thread count and CPU
    capability.

    Attributes:
        takes_mask: True.
        encoder_dim: the encoder width `E` it was made for, None where it takes any.
        null_embedding: `[1, 1, E]` float32, a fixed ramp that stands for "no condition"; None without `encoder_dim`.
    """

    takes_mask = True

    def __init__(self, encoder_dim: int | None = None) -> None:
        """Make a decoder.

        Args:
            encoder_dim: the encoder width `E`, at least 1; needed for a null embedding only.

        Raises:
            InvalidInput: `encoder_dim` is not a positive integer.
        """
        self.encoder_dim = None if encoder_dim is None else checks.integer("encoder_dim", encoder_dim, 1)
        self.null_embedding = None if self.encoder_dim is None else _null_embedding(self.encoder_dim)

    def __call__(
        self,
        *,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_mask: Tensor,
        context_latents: Tensor,
    ) -> Tensor:
        """The velocity `[N, T, D]`, float32.

        Args:
            hidden_states: `[N, T, D]`.
            timestep: `[N]`.
            encoder_hidden_states: `[N, L, E]`.
            encoder_mask: `[N, L]`, False or 0 on padding.
            context_latents: `[N, T, 2*D]`: source latents, then chunk mask.

        Raises:
            InvalidInput: the context has not `2*D` channels.
        """
        frames, channels = hidden_states.shape[1:]
        if context_latents.shape[1:] != (frames, 2 * channels):
            expected = f"a tensor of shape [N, {frames}, {2 * channels}]"
            raise InvalidInput("context_latents", checks.describe(context_latents), expected)
        h, t, context = hidden_states.float(), timestep.float().view(-1, 1, 1), context_latents.float()
        src, chunk = context[..., :channels], context[..., channels:]
        attended, everything = _summaries(encoder_hidden_states.float(), encoder_mask.bool())
        ramp = _ramp(frames, channels, h.device)
        return _velocity(h, t, src, chunk, ramp, attended.view(-1, 1, 1), everything.view(-1, 1, 1))


def _velocity(
    h: Tensor, t: Tensor, src: Tensor, chunk: Tensor, ramp: Tensor, attended: Tensor, everything: Tensor
) -> Tensor:
    """The last formula of the class; `attended` is `P`, `everything` is `Q`, `ramp` is `r`."""
    return (
        (0.5 + t * 0.25 + attended * 0.25 + everything * 0.5) * h
        + (0.375 - t * 0.25 + attended * 0.5) * src
        + (0.25 + t * 0.125 - attended * 0.375 + everything * 0.25) * chunk
        + (0.125 + attended * 0.25 + everything * 0.5) * ramp
    )


def _summaries(encoder: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`P` and `Q` of the class, `[N]` each, from encoder states `[N, L, E]` and mask `[N, L]`."""
    length, width = encoder.shape[1:]
    token = _fold(encoder * _decay(width, 16, encoder.device)) * (1 / math.sqrt(width))
    weighted = (token + 0.125) * _decay(length, length, encoder.device)
    attended = _fold(torch.where(mask, weighted, torch.zeros_like(weighted))) * 0.25
    return _soft(attended), _soft(_fold(token) * (4 / length))


def _fold(x: Tensor) -> Tensor:
    """The sum over the last axis by halving it, so that the order of additions depends on its length alone."""
    while (size := x.shape[-1]) > 1:
        half = size // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        x = folded if size % 2 == 0 else torch.cat([folded, x[..., -1:]], dim=-1)
    return x[..., 0]


def _soft(z: Tensor) -> Tensor:
    return z / (1 + z.abs())


def _kept(make: Maker) -> Maker:
    """`make`, each of its results made once; a tracer gets a new one, which is part of its graph."""
    kept = lru_cache(maxsize=64)(make)

    @wraps(make)
    def given(size: int, other: int, device: torch.device) -> Tensor:
        # Sizes are symbols there, and a traced tensor must not outlive the trace.
        return (make if torch.compiler.is_exporting() else kept)(size, other, device)

    return given


@_kept
def _decay(size: int, period: int, device: torch.device) -> Tensor:
    """`8 / (8 + i % period)` for i below `size`."""
    with torch.inference_mode(False):  # it outlives the call
        index = torch.arange(size, device=device) % period
        return torch.full((size,), 8.0, device=device) / (8.0 + index.float())


@_kept
def _ramp(frames: int, channels: int, device: torch.device) -> Tensor:
    """`r` of the class: products with one reciprocal a side."""

    with torch.inference_mode(False):  # it outlives the call
        rows, columns = (torch.arange(1, size + 1, device=device).float() * (1 / size) for size in (frames, channels))
        return rows.unsqueeze(1) - columns


def _null_embedding(width: int) -> Tensor:
    return ((torch.arange(width) % 8).float() - 3.0).mul(0.125).view(1, 1, width)
