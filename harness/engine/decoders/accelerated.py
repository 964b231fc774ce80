"""`AceStepDecoder` with accelerations: the same weights and formulas, in fewer and larger pieces of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from diffusers import AceStepTransformer1DModel
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor, nn

from harness.engine import checks
from harness.engine.decoders import attention
from harness.engine.decoders.ace_step import (
    AceStepDecoder,
    CrossAttentionMask,
    OfTransformer,
    attention_backend,
    shallow,
)
from harness.engine.decoders.attention import Band
from harness.engine.decoders.base import Decoder
from harness.engine.decoders.decoder_switches import DecoderSwitches
from harness.engine.decoders.fast_ends import Head, KeptZero, Tail
from harness.engine.decoders.fast_layer import FastLayer, Pending
from harness.engine.decoders.joined import check_plain
from harness.engine.errors import InvalidInput

Change: TypeAlias = Callable[[nn.Module], object]


@dataclass(frozen=True)
class Parts:
    """The modules that compute, made of the modules of a transformer, which hold the weights.

    They are no children of the decoder: its children, and so its state dict, are those of the plain decoder.

    Attributes:
        head: what comes before the first layer.
        layers: one for each block of the transformer.
        tail: what comes after the last layer.
    """

    head: Head
    layers: tuple[FastLayer, ...]
    tail: Tail

    @classmethod
    def of(cls, transformer: Any, switches: DecoderSwitches) -> Parts:
        """The parts of a transformer."""
        hooks = (CrossAttentionMask,)
        layers = [
            FastLayer(f"transformer.layers.{index}", block, switches, sliding=kind == "sliding_attention", hooks=hooks)
            for index, (block, kind) in enumerate(zip(transformer.layers, transformer.layer_types, strict=True))
        ]
        return cls(Head(transformer, switches), tuple(layers), Tail(transformer, switches))

    def modules(self) -> tuple[nn.Module, ...]:
        """Every part, in the order of the computation."""
        return self.head, *self.layers, self.tail

    def are_of(self, transformer: Any) -> bool:
        """Say whether the parts are made of this transformer and its blocks as they are now."""
        blocks = zip_longest(self.layers, transformer.layers)
        return self.head.transformer is transformer and all(layer and layer.block is block for layer, block in blocks)

    def tie(self) -> None:
        """Follow the weights; see `FastLayer.tie`."""
        for layer in self.layers:
            layer.tie()
        self.head.check()
        self.tail.check()


def accelerated(decoder: AceStepDecoder, switches: DecoderSwitches) -> Decoder:
    """The decoder with accelerations; the decoder itself where all are off.

    The result shares every weight with `decoder`. See `AcceleratedDecoder` for what moves and for what is refused.

    Args:
        decoder: the decoder of diffusers' transformer.
        switches: the accelerations.

    Raises:
        InvalidInput: the transformer is not one whose weights say what it computes; the message names the module.
    """
    checks.instance("decoder", decoder, AceStepDecoder, "an AceStepDecoder")
    return AcceleratedDecoder(decoder, switches) if switches.on else decoder


class AcceleratedDecoder(OfTransformer):
    """A `Decoder` that computes the velocity of an `AceStepDecoder` from the same parameters, without autograd.

    **Weights.** `transformer` is that of the plain decoder: same module, same parameters, same names in the state dict.
    Weights that are multiplied as one lie one behind the other in one memory, and the parameters are parts of it. So
    whatever is written to a parameter in place acts on both decoders, without a copy that could be out of date. Making
    this decoder moves these parameters; so does the first call after they were moved or replaced (`to`, a deep copy,
    `load_state_dict(assign=True)`). Let an executor record the plain decoder after that, or call its `update`.

    With `kept_time`, the embedding of the time 0 is computed anew where a version counter or an address of its weights
    changed. A write through `tensor.data` moves no counter: call `weights_changed` after it, as an executor's `update`
    does.

    **Refusals.** A module that was replaced by another class (an adapter, a quantized layer), or has a hook, is refused
    by name where the acceleration would read its weights past it. So is an attention backend other than `native`.

    Args:
        decoder: the plain decoder.
        switches: the accelerations.

    Attributes:
        takes_mask: True.
        switches: the argument.
        transformer: the transformer of the plain decoder.
        null_embedding: that of the plain decoder.

    Raises:
        InvalidInput: see above.
    """

    takes_mask = True
    null_embedding: Tensor | None

    def __init__(self, decoder: AceStepDecoder, switches: DecoderSwitches) -> None:
        super().__init__()
        self.switches = switches
        self.transformer = decoder.transformer
        self.register_buffer("null_embedding", decoder.null_embedding, persistent=False)
        self.zero = KeptZero() if switches.kept_time else None
        self._blocks: dict[tuple[int, torch.device], Band] = {}
        self._change: Change | None = None
        self._parts = self._made()
        self.tie()

    def forward(
        self,
        *,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_mask: Tensor,
        context_latents: Tensor,
    ) -> Tensor:
        """The velocity `[N, T, D]` in the transformer's dtype.

        Args:
            hidden_states: latents `[N, T, D]`. All inputs except the mask are cast to the transformer's dtype.
            timestep: times `[N]` in [0, 1].
            encoder_hidden_states: encoder states `[N, L, E]`; with `kept_condition` also the result of `condition`.
            encoder_mask: `[N, L]`, False or 0 where a token is not attended.
            context_latents: `[N, T, 2*D]`: source latents, then chunk mask.

        Raises:
            InvalidInput: encoder states of another width, or a module that is refused.
        """
        kept = self._is_kept(encoder_hidden_states)
        with torch.no_grad():
            self.tie()
            zero = None if self.zero is None else self.zero()
            encoder = None if kept else encoder_hidden_states
            states, encoder, time, shared, bias = self._parts.head(
                hidden_states, timestep, encoder, encoder_mask, context_latents, zero
            )
            band = self._band(states, bias)
            conditions = self._conditions(encoder_hidden_states.to(self.dtype)) if kept else None
            pending: Pending | None = None
            for index, layer in enumerate(self._parts.layers):
                condition = encoder if conditions is None else conditions[index]
                states, made = layer(states, pending, shared, band if layer.sliding else None, condition)
                pending = Pending(made, layer.block.scale_shift_table)
            velocity: Tensor = self._parts.tail(states, pending, shared.modulation, time, hidden_states.shape[1])
        return velocity

    def condition(self, encoder_hidden_states: Tensor) -> Tensor:
        """Keys and values of every layer's cross-attention, `[N, L, layers * 2 * kv]` in the transformer's dtype.

        `forward` takes the result in place of the encoder states. It holds for the weights as they are now.

        Args:
            encoder_hidden_states: encoder states `[N, L, E]`.

        Raises:
            InvalidInput: `kept_condition` is off, or a module is refused.
        """
        if not self.switches.kept_condition:
            raise InvalidInput("switches.kept_condition", False, "True")
        with torch.no_grad():
            self.tie()
            embedded = self.transformer.condition_embedder(encoder_hidden_states.to(self.dtype))
            return torch.cat([part for layer in self._parts.layers for part in layer.condition(embedded)], -1)

    def tie(self) -> None:
        """Follow what changed in the transformer since the last call; nothing is computed where nothing changed.

        Raises:
            InvalidInput: a module is refused.
        """
        name = attention_backend().value
        if name != AttentionBackendName.NATIVE.value:
            raise InvalidInput("attention backend", repr(name), "'native'")
        if not self._parts.are_of(self.transformer):
            self._parts = self._made()
        self._parts.tie()
        if self.zero is not None:
            self.zero.follow(self.transformer)

    def weights_changed(self) -> None:
        """Compute anew whatever is kept of the weights, however they were changed."""
        if self.zero is not None:
            self.zero.forget()
        self.tie()

    def with_layers(self, change: Change) -> AcceleratedDecoder:
        """A decoder that shares every weight with this one, and for whose parts `change` was called.

        The parts are the input, each layer and the output. What `change` sets on them, such as a compiled call, does
        not act on this decoder.
        """
        twin = shallow(self)
        twin._change = change  # noqa: SLF001 - a copy of this decoder
        twin._parts = twin._made()  # noqa: SLF001 - a copy of this decoder
        return twin

    @property
    def keeps_condition(self) -> bool:
        """Whether executors call `condition`; see `Decoder`."""
        return self.switches.kept_condition

    @property
    def kept_dim(self) -> int:
        """Width of what `condition` returns."""
        config = self.transformer.config
        return int(len(self.transformer.layers) * 2 * config.num_key_value_heads * config.head_dim)

    def _made(self) -> Parts:
        check_plain("transformer", self.transformer, AceStepTransformer1DModel)
        if self.switches.kept_condition and self.kept_dim == self.encoder_dim:
            raise InvalidInput("switches.kept_condition", True, f"False: keys and values are {self.kept_dim} wide too")
        parts = Parts.of(self.transformer, self.switches)
        change = self._change
        if change is not None:
            for part in parts.modules():
                change(part)
        return parts

    def _is_kept(self, states: Tensor) -> bool:
        width = states.shape[-1]
        if width == self.encoder_dim:
            return False
        if not self.switches.kept_condition or width != self.kept_dim:
            also = f", or {self.kept_dim} (see condition)" if self.switches.kept_condition else ""
            expected = f"a width of {self.encoder_dim}{also}"
            raise InvalidInput("encoder_hidden_states", checks.describe(states), expected)
        return True

    def _conditions(self, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = kept.chunk(2 * len(self._parts.layers), -1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _band(self, states: Tensor, bias: Tensor | None) -> Band:
        """The window of the sliding layers; masks of blocks are made once a length, and never dropped."""
        if bias is not None:
            return bias
        key = states.shape[1], states.device
        if key not in self._blocks:
            with torch.inference_mode(False):
                self._blocks[key] = attention.band_blocks(key[0], self.transformer.config.sliding_window, key[1])
        return self._blocks[key]
