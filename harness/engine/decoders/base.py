"""What a decoder is: a callable from one batch of rows to their velocities."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """Any callable with this signature, called by keyword. It never writes to what it is given: inputs are cached.

    A decoder that cannot take `encoder_mask` has the attribute `takes_mask = False` and is called without it.
    """

    def __call__(
        self,
        *,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_mask: Tensor,
        context_latents: Tensor,
    ) -> Tensor:
        """The velocity `[N, T, D]`.

        Args:
            hidden_states: `[N, T, D]` float32.
            timestep: `[N]` float32; the decoder casts it as it likes.
            encoder_hidden_states: `[N, L, E]`.
            encoder_mask: `[N, L]` bool, False on padding.
            context_latents: `[N, T, C]` with `C = 2*D`.
        """
        ...
