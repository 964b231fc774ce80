"""The interface of decoders: a callable that maps one batch of rows to the velocities of these rows."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """Any callable with this signature, called by keyword. A decoder must not write to its inputs, which are cached.

    Where executors of several threads share a decoder, it is called from several threads at once.

    A decoder without support for `encoder_mask` has the attribute `takes_mask = False` and is called without the mask.

    A decoder that keeps what it computed from its weights may have a method `weights_changed()`, which computes it
    anew. An executor's `update` calls the method after the weights changed.

    A decoder that can compute ahead what depends on the encoder states alone has the attribute `keeps_condition = True`
    and a method `condition(encoder_hidden_states)`, which maps `[N, L, E]` to `[N, L, W]`. The decoder takes the result
    in place of the encoder states, too. An executor of recorded runs calls the method where the encoder states of a run
    changed, and with the rows of the recorded run, so that a row's bits do not depend on how many rows were given.
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
        """The velocity `[N, T, D]` of every row, in any floating dtype.

        Args:
            hidden_states: latents `[N, T, D]`, float32.
            timestep: times `[N]` in [0, 1], float32; 1 is pure noise. The decoder may cast the times.
            encoder_hidden_states: encoder states `[N, L, E]`.
            encoder_mask: `[N, L]` bool, False on padding.
            context_latents: `[N, T, C]` with `C = 2*D`: source latents, then chunk mask.
        """
        ...
