"""A closed-form decoder: fast, without weights, and with rows that cannot influence each other."""

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
    """A decoder whose velocity is affine in the latent, with coefficients that depend on all other inputs.

    For one row with latent `h [T, D]`, time `t`, source latents `src` and chunk mask `chunk` (the two halves of the
    context, `[T, D]` each), encoder states `e [L, E]` and encoder mask `m [L]`, all in float32:

        token[l] = sum_e (8 / (8 + e % 16)) * e[l, e] / sqrt(E)
        P = soft(sum_l m[l] * (8 / (8 + l)) * (token[l] + 1/8) / 4)        attended tokens, weighted by position
        Q = soft(4 * sum_l token[l] / L)                                   all tokens, padding included
        soft(z) = z / (1 + |z|)
        r[i, j] = (i + 1) / T - (j + 1) / D

        v = (1/2 + t/4 + P/4 + Q/2) * h
          + (3/8 - t/4 + P/2) * src
          + (1/4 + t/8 - 3/8 * P + Q/4) * chunk
          + (1/8 + P/4 + Q/2) * r

    The velocity depends on padding, so that tests find padding defects. The `1/8` in `P` makes the velocity depend on
    the mask even if the masked tokens are zero. `Q` makes the velocity depend on the number of padding tokens.

    Positive and negative conditions change all four coefficients, so that the difference of their velocities is neither
    constant over `[T, D]` nor parallel to one of the two velocities. The coefficient of `h` stays in (-1/2, 3/2), so
    that a loop over any number of steps is bounded.

    The bits of a row do not depend on other rows: all operations are elementwise, with one rounding each, and none
    combines two rows. Sums halve their axis again and again, because the order of additions in torch's `sum` may depend
    on batch size, thread count and CPU capability.

    Attributes:
        takes_mask: True.
        encoder_dim: the encoder width `E`; None if the decoder takes any width.
        null_embedding: `[1, 1, E]` float32, a fixed ramp that stands for "no condition"; None without `encoder_dim`.
    """

    takes_mask = True

    def __init__(self, encoder_dim: int | None = None) -> None:
        """Make a decoder.

        Args:
            encoder_dim: the encoder width `E`, at least 1; needed only for a null embedding.

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
            hidden_states: latents `[N, T, D]`.
            timestep: times `[N]` in [0, 1].
            encoder_hidden_states: encoder states `[N, L, E]`.
            encoder_mask: `[N, L]`, False or 0 on padding.
            context_latents: `[N, T, 2*D]`: source latents, then chunk mask.

        Raises:
            InvalidInput: `context_latents` is not `[N, T, 2*D]`.
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
    """The velocity `v` of the class's formula; `attended` is `P`, `everything` is `Q`, `ramp` is `r`."""
    return (
        (0.5 + t * 0.25 + attended * 0.25 + everything * 0.5) * h
        + (0.375 - t * 0.25 + attended * 0.5) * src
        + (0.25 + t * 0.125 - attended * 0.375 + everything * 0.25) * chunk
        + (0.125 + attended * 0.25 + everything * 0.5) * ramp
    )


def _summaries(encoder: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`P` and `Q` of the class's formula, `[N]` each, from encoder states `[N, L, E]` and mask `[N, L]`."""
    length, width = encoder.shape[1:]
    token = _fold(encoder * _decay(width, 16, encoder.device)) * (1 / math.sqrt(width))
    weighted = (token + 0.125) * _decay(length, length, encoder.device)
    attended = _fold(torch.where(mask, weighted, torch.zeros_like(weighted))) * 0.25
    return _soft(attended), _soft(_fold(token) * (4 / length))


def _fold(x: Tensor) -> Tensor:
    """Sum over the last axis by halving the axis; the order of additions depends on the length of the axis alone."""
    while (size := x.shape[-1]) > 1:
        half = size // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        x = folded if size % 2 == 0 else torch.cat([folded, x[..., -1:]], dim=-1)
    return x[..., 0]


def _soft(z: Tensor) -> Tensor:
    return z / (1 + z.abs())


def _kept(make: Maker) -> Maker:
    """Cache the results of `make`; a call inside `torch.export` is not cached, as its result is part of the graph."""
    kept = lru_cache(maxsize=64)(make)

    @wraps(make)
    def given(size: int, other: int, device: torch.device) -> Tensor:
        # During export the sizes are symbols, and a traced tensor must not outlive the trace.
        return (make if torch.compiler.is_exporting() else kept)(size, other, device)

    return given


@_kept
def _decay(size: int, period: int, device: torch.device) -> Tensor:
    """The weights `8 / (8 + i % period)` for i from 0 to `size - 1`, `[size]`."""
    with torch.inference_mode(False):  # the cached tensor must be usable outside inference mode
        index = torch.arange(size, device=device) % period
        return torch.full((size,), 8.0, dtype=torch.float32, device=device) / (8.0 + index.float())


@_kept
def _ramp(frames: int, channels: int, device: torch.device) -> Tensor:
    """`r` of the class's formula, `[frames, channels]`; each side is multiplied by one reciprocal."""

    with torch.inference_mode(False):  # the cached tensor must be usable outside inference mode
        rows, columns = (torch.arange(1, size + 1, device=device).float() * (1 / size) for size in (frames, channels))
        return rows.unsqueeze(1) - columns


def _null_embedding(width: int) -> Tensor:
    return ((torch.arange(width, device="cpu") % 8).float() - 3.0).mul(0.125).view(1, 1, width)
