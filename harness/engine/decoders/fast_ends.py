"""The ends of ACE-Step's transformer, before the first and after the last block, with accelerations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers.models.transformers import ace_step_transformer as diffusers
from torch import Tensor, nn
from torch.nn import functional

from harness.engine.decoders.attention import band_bias, mask_bias
from harness.engine.decoders.decoder_switches import BandForm, DecoderSwitches
from harness.engine.decoders.fast_layer import Pending, Shared, settle
from harness.engine.decoders.joined import check_plain
from harness.engine.versions import version


class Entry(NamedTuple):
    """Inputs of the first block, and of all blocks.

    Attributes:
        states: hidden states `[N, S, H]`.
        encoder: embedded encoder states `[N, L, H]`; None where keys and values are kept.
        time: embedding of the time `[N, H]`.
        shared: inputs that all blocks share.
        bias: the window as a bias `[1, 1, S, S]`; None where it has another form.
    """

    states: Tensor
    encoder: Tensor | None
    time: Tensor
    shared: Shared
    bias: Tensor | None


class KeptZero(nn.Module):
    """The second time's embedding and projection, at the time 0: a constant of the weights.

    The tensors are buffers, outside the state dict. New values are written to the same memory where dtype and device
    stay, so that a recorded run reads them.
    """

    embedding: Tensor | None
    projection: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("embedding", None, persistent=False)
        self.register_buffer("projection", None, persistent=False)
        self._of: list[tuple[Tensor, int | None]] = []

    def forward(self) -> tuple[Tensor, Tensor]:
        """Embedding `[1, H]` and projection `[1, 6, H]`."""
        if self.embedding is None or self.projection is None:
            raise RuntimeError("nothing is kept yet: call follow first")
        return self.embedding, self.projection

    def forget(self) -> None:
        """Compute the values anew at the next `follow`."""
        self._of.clear()

    def follow(self, transformer: Any) -> None:
        """Compute the values, unless the weights are those of the last call with the same version counters."""
        weights = list(transformer.time_embed_r.parameters())
        if self._is_of(weights):
            return
        with torch.inference_mode(False), torch.no_grad():
            zero = torch.zeros(1, dtype=weights[0].dtype, device=weights[0].device)
            embedding, projection = transformer.time_embed_r(zero)
        self.embedding = _written(self.embedding, embedding)
        self.projection = _written(self.projection, projection)
        # Aliases: while they are held, no other weight gets the same address.
        self._of = [(each.detach(), version(each)) for each in weights]

    def _is_of(self, weights: list[Tensor]) -> bool:
        return len(weights) == len(self._of) and all(
            before is not None and (kept.data_ptr(), kept.dtype, before) == (each.data_ptr(), each.dtype, version(each))
            for (kept, before), each in zip(self._of, weights, strict=True)
        )


class Head(nn.Module):
    """The inputs of the first block.

    Args:
        transformer: the transformer of diffusers, which holds the weights.
        switches: the accelerations.
    """

    def __init__(self, transformer: nn.Module, switches: DecoderSwitches) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self._switches = switches

    def check(self) -> None:
        """Check that the weights that are read past their modules say what these compute.

        Raises:
            InvalidInput: a module was replaced by another class or has a hook.
        """
        if self._switches.patch_products:
            check_plain("transformer.proj_in_conv", self.transformer.proj_in_conv, nn.Conv1d)

    def forward(
        self,
        hidden: Tensor,
        timestep: Tensor,
        encoder: Tensor | None,
        mask: Tensor,
        context: Tensor,
        zero: tuple[Tensor, Tensor] | None,
    ) -> Entry:
        """Compute the inputs of the first block, and of all blocks.

        Args:
            hidden: latents `[N, T, D]`.
            timestep: times `[N]`.
            encoder: encoder states `[N, L, E]`; None where keys and values are kept.
            mask: `[N, L]`, False or 0 where a token is not attended.
            context: `[N, T, 2*D]`.
            zero: embedding and projection of the second time; None: computed here.
        """
        model = self.transformer
        dtype = model.scale_shift_table.dtype
        time = timestep.to(dtype)
        embedding, projection = model.time_embed(time)
        zero_embedding, zero_projection = model.time_embed_r(time - time) if zero is None else zero
        joined = torch.cat([context.to(dtype), hidden.to(dtype)], dim=-1)
        joined = functional.pad(joined, (0, 0, 0, -joined.shape[1] % model.patch_size))
        states = self._patched(joined)
        cos, sin = diffusers._ace_step_rotary_freqs(  # noqa: SLF001 it has no public name
            states.shape[1], model.head_dim, model.rope_theta, states.device, states.dtype
        )
        mask = mask.to(torch.bool)
        attended = mask_bias(mask, states.dtype) if self._switches.banded_attention else mask[:, None, None, :]
        return Entry(
            states,
            None if encoder is None else model.condition_embedder(encoder.to(dtype)),
            embedding + zero_embedding,
            Shared(projection + zero_projection, cos, sin, attended),
            self._bias(states),
        )

    def _bias(self, states: Tensor) -> Tensor | None:
        """The bias of the window `[1, 1, S, S]`; None where the window has another form."""
        length, window = states.shape[1], self.transformer.config.sliding_window
        if not self._switches.banded_attention:
            bias: Tensor = diffusers._create_4d_mask(  # noqa: SLF001 it has no public name
                length, states.dtype, states.device, None, window, True, False
            )
            return bias
        if self._switches.band == BandForm.FLEX:
            return None
        return band_bias(length, window, states.dtype, states.device)

    def _patched(self, joined: Tensor) -> Tensor:
        conv = self.transformer.proj_in_conv
        if not self._switches.patch_products:
            states: Tensor = conv(joined.transpose(1, 2)).transpose(1, 2)
            # On a GPU products of hidden states with frames innermost read rows that are not aligned.
            return states.contiguous() if states.device.type == "cuda" else states
        # The columns of a patch in the order of the weight, which stays where it is: channel by channel.
        columns = torch.unflatten(joined, 1, (-1, self.transformer.patch_size)).transpose(2, 3).flatten(2)
        return functional.linear(columns, conv.weight.flatten(1), conv.bias)


class Tail(nn.Module):
    """The velocity, from the result of the last block.

    Args:
        transformer: the transformer of diffusers, which holds the weights.
        switches: the accelerations.
    """

    def __init__(self, transformer: nn.Module, switches: DecoderSwitches) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self._patches = switches.patch_products

    def check(self) -> None:
        """Check that the weights that are read past their modules say what these compute.

        Raises:
            InvalidInput: a module was replaced by another class or has a hook.
        """
        if self._patches:
            check_plain("transformer.proj_out_conv", self.transformer.proj_out_conv, nn.ConvTranspose1d)

    def forward(self, hidden: Tensor, pending: Pending, modulation: Tensor, time: Tensor, frames: int) -> Tensor:
        """The velocity `[N, T, D]`.

        Args:
            hidden: hidden states `[N, S, H]` of the last block, before its last residual.
            pending: this residual.
            modulation: projection of the time `[N, 6, H]`.
            time: embedding of the time `[N, H]`.
            frames: T.
        """
        model = self.transformer
        hidden = settle(hidden, pending, modulation)
        shift, scale = (model.scale_shift_table + time.unsqueeze(1)).chunk(2, dim=1)
        normed = (model.norm_out(hidden) * (1 + scale) + shift).type_as(hidden)
        return self._unpatched(normed)[:, :frames, :]

    def _unpatched(self, normed: Tensor) -> Tensor:
        conv = self.transformer.proj_out_conv
        if not self._patches:
            velocity: Tensor = conv(normed.transpose(1, 2)).transpose(1, 2)
            return velocity
        size = self.transformer.patch_size
        columns = functional.linear(normed, conv.weight.flatten(1).t(), conv.bias.repeat_interleave(size))
        return torch.unflatten(columns, -1, (-1, size)).transpose(2, 3).flatten(1, 2)


def _written(held: Tensor | None, values: Tensor) -> Tensor:
    """Write values to the memory of `held`, where it fits them; else return the values."""
    if held is None or (held.shape, held.dtype, held.device) != (values.shape, values.dtype, values.device):
        return values
    with torch.inference_mode(False), torch.no_grad():
        return held.copy_(values)
