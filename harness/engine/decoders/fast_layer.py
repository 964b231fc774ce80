"""A transformer block of ACE-Step, computed from the weights of diffusers' block with accelerations.

The formulas and their order are those of diffusers' `AceStepTransformerBlock`. The last residual of a block is added
by the next block, where a compiler can join it with the norm that follows.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers import ace_step_transformer as diffusers
from torch import Tensor, nn
from torch.nn import functional

from harness.engine.decoders import attention, fused
from harness.engine.decoders.attention import Band
from harness.engine.decoders.decoder_switches import BandForm, DecoderSwitches, FullForm, NormForm
from harness.engine.decoders.fused import NONE
from harness.engine.decoders.joined import Joined, check_plain
from harness.engine.errors import InvalidInput

Condition: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""An embedded condition `[N, L, H]`, or keys and values of the cross-attention, `[N, L, kv]` each."""


class Pending(NamedTuple):
    """A block's last residual, before it is added.

    Attributes:
        made: result of the feed-forward part, `[N, S, H]`.
        table: the block's table of shifts, scales and gates, `[1, 6, H]`; the gate is its last row.
    """

    made: Tensor
    table: Tensor


class Shared(NamedTuple):
    """Inputs that all blocks share.

    Attributes:
        modulation: projection of the time, `[N, 6, H]`.
        cos: of the rotation, `[S, width of a head]`.
        sin: likewise.
        mask: of the cross-attention, `[N, 1, 1, L]`: bool, False where a token is not attended, or a bias.
    """

    modulation: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor


class FastLayer(nn.Module):
    """One block of the transformer.

    Args:
        name: path of the block, for messages.
        block: the block of diffusers, which holds the weights.
        switches: the accelerations.
        sliding: True if the block's attention is over a window.
        hooks: classes of hooks on the block that the decoder itself sets, and that this forward replaces.
    """

    def __init__(
        self, name: str, block: nn.Module, switches: DecoderSwitches, *, sliding: bool, hooks: tuple[type, ...] = ()
    ) -> None:
        super().__init__()
        self.block: Any = block
        self.sliding = sliding
        self._name, self._hooks = name, hooks
        self._norms = NormForm(switches.norms) if switches.fused_norms else None
        self._band = BandForm(switches.band) if switches.banded_attention else BandForm.BIAS
        self._full = FullForm(switches.full) if switches.banded_attention else FullForm.AUTO
        fused = switches.fused_products
        self.qkv = Joined() if fused else None
        self.kv = Joined() if fused else None
        self.gate_up = Joined() if fused else None

    def tie(self) -> None:
        """Check that the block is one whose weights say what it computes, and join the weights that are fused.

        Raises:
            InvalidInput: a module was replaced by another class or has a hook; the message names the module.
        """
        block, name = self.block, self._name
        check_plain(name, block, diffusers.AceStepTransformerBlock, self._hooks)
        check_plain(f"{name}.mlp", block.mlp, diffusers.AceStepMLP)
        if self._norms is NormForm.KERNELS:
            for part in ("self_attn_norm", "cross_attn_norm", "mlp_norm"):
                check_plain(f"{name}.{part}", getattr(block, part), RMSNorm)
        for part in ("self_attn", "cross_attn"):
            _check_attention(f"{name}.{part}", getattr(block, part))
        if self.qkv is not None and self.kv is not None and self.gate_up is not None:
            own, cross, mlp = block.self_attn, block.cross_attn, block.mlp
            self.qkv.tie([(f"{name}.self_attn.{each}", getattr(own, each)) for each in ("to_q", "to_k", "to_v")])
            self.kv.tie([(f"{name}.cross_attn.{each}", getattr(cross, each)) for each in ("to_k", "to_v")])
            self.gate_up.tie([(f"{name}.mlp.{each}", getattr(mlp, each)) for each in ("gate_proj", "up_proj")])

    def forward(
        self, hidden: Tensor, pending: Pending | None, shared: Shared, band: Band, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """The hidden states before the last residual, and the result of the feed-forward part, `[N, S, H]` each.

        Args:
            hidden: hidden states `[N, S, H]`.
            pending: the residual of the block before; None in the first block.
            shared: what all blocks share.
            band: the window of a sliding block, else None.
            condition: see `Condition`.
        """
        block, modulation = self.block, shared.modulation
        own = block.scale_shift_table
        if pending is None:
            shift, scale, *_ = (own + modulation).chunk(6, dim=1)
            normed = (block.self_attn_norm(hidden) * (1 + scale) + shift).type_as(hidden)
        else:
            hidden, normed = self._norm(hidden, pending, own, modulation, block.self_attn_norm, (5, 0))
        made = Pending(self._attend(normed, shared, band), own)
        hidden, normed = self._norm(hidden, made, own, modulation, block.cross_attn_norm, (2, NONE))
        made = Pending(self._attend_condition(normed, condition, shared.mask), own)
        hidden, normed = self._norm(hidden, made, own, modulation, block.mlp_norm, (NONE, 3))
        return hidden, self._feed_forward(normed)

    def _norm(
        self, hidden: Tensor, pending: Pending, table: Tensor, modulation: Tensor, norm: Any, numbers: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Add a residual and norm the sum; see `fused.residual_norm`."""
        tables = pending.table, table
        if self._norms is NormForm.KERNELS:
            return fused.residual_norm(hidden, pending.made, tables, modulation, norm.weight, norm.eps, numbers)
        return fused.residual_by(norm, hidden, pending.made, tables, modulation, numbers)

    def condition(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the cross-attention, `[N, L, kv]` each, of an embedded condition `[N, L, H]`."""
        attn = self.block.cross_attn
        if self.kv is None:
            key, value = attn.to_k(embedded), attn.to_v(embedded)
        else:
            key, value = self.kv(embedded).chunk(2, -1)
        return attn.norm_k(key.unflatten(-1, (attn.kv_heads, attn.head_dim))).flatten(2, 3), value

    def _attend(self, x: Tensor, shared: Shared, band: Band) -> Tensor:
        attn = self.block.self_attn
        query, key, value = self._rotated(attn, x, shared)
        if self.sliding:
            made = attention.attend_band(query, key, value, attn.scaling, band, self._band)
        else:
            made = attention.attend_full(query, key, value, attn.scaling, self._full)
        return _projected(attn, made)

    def _rotated(self, attn: Any, x: Tensor, shared: Shared) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[N, S, heads, width]` each; the first two are normed and rotated."""
        heads, pairs, width = attn.heads, attn.kv_heads, attn.head_dim
        rotation = shared.cos, shared.sin
        if self.qkv is None:
            query, key, value = (each(x).unflatten(-1, (-1, width)) for each in (attn.to_q, attn.to_k, attn.to_v))
        else:
            every = torch.unflatten(self.qkv(x), -1, (-1, width))
            if self._norms is NormForm.KERNELS:
                weights = attn.norm_q.weight, attn.norm_k.weight
                both = fused.normed_heads(every, weights, rotation, attn.norm_q.eps, (heads, pairs))
                return both[:, :, :heads], both[:, :, heads:], every[:, :, heads + pairs :]
            if self._norms is NormForm.COMPILER:
                # One norm for queries and keys, as the heads of one tensor; rotated together they would be copied.
                own = attn.norm_q.weight.expand(heads, -1), attn.norm_k.weight.expand(pairs, -1)
                normed = fused.rms(every[:, :, : heads + pairs], torch.cat(own), attn.norm_q.eps)
                query, key = (fused.rotated(each, *rotation) for each in (normed[:, :, :heads], normed[:, :, heads:]))
                return query, key, every[:, :, heads + pairs :]
            query, key, value = torch.split(every, [heads, pairs, pairs], dim=2)
        query, key = attn.norm_q(query), attn.norm_k(key)
        if self._norms is None:
            return _as_diffusers(query, rotation), _as_diffusers(key, rotation), value
        return fused.rotated(query, *rotation), fused.rotated(key, *rotation), value

    def _attend_condition(self, x: Tensor, condition: Condition, mask: Tensor) -> Tensor:
        attn = self.block.cross_attn
        key, value = self.condition(condition) if isinstance(condition, Tensor) else condition
        heads = (attn.kv_heads, attn.head_dim)
        query = attn.to_q(x).unflatten(-1, (attn.heads, attn.head_dim))
        if self._norms is NormForm.KERNELS:
            weights = attn.norm_q.weight, attn.norm_k.weight
            query = fused.normed_heads(query, weights, None, attn.norm_q.eps, (attn.heads, 0))
        else:
            query = attn.norm_q(query)
        made = attention.attend(
            query, torch.unflatten(key, -1, heads), torch.unflatten(value, -1, heads), attn.scaling, mask
        )
        return _projected(attn, made)

    def _feed_forward(self, x: Tensor) -> Tensor:
        mlp = self.block.mlp
        if self.gate_up is None:
            gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        else:
            gate, up = self.gate_up(x).chunk(2, -1)
        made: Tensor = mlp.down_proj(functional.silu(gate) * up)
        return made


def settle(hidden: Tensor, pending: Pending, modulation: Tensor) -> Tensor:
    """Add a block's last residual to the hidden states `[N, S, H]`."""
    gate = (pending.table + modulation)[:, 5:]
    return (hidden + pending.made * gate).type_as(hidden)


def _as_diffusers(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    made: Tensor = diffusers.apply_rotary_emb(x, rotation, use_real=True, use_real_unbind_dim=-2, sequence_dim=1)
    return made


def _projected(attn: Any, made: Tensor) -> Tensor:
    out: Tensor = attn.to_out[1](attn.to_out[0](made))
    return out


def _check_attention(name: str, attn: Any) -> None:
    check_plain(name, attn, diffusers.AceStepAttention)
    check_plain(f"{name}.norm_q", attn.norm_q, RMSNorm)
    check_plain(f"{name}.norm_k", attn.norm_k, RMSNorm)
    processor = attn.processor
    if type(processor) is not diffusers.AceStepAttnProcessor2_0 or processor._attention_backend is not None:  # noqa: SLF001
        raise InvalidInput(f"{name}.processor", repr(processor), "diffusers' own with the backend 'native'")
    if attn.norm_q.eps != attn.norm_k.eps:
        raise InvalidInput(f"{name}.norm_k.eps", attn.norm_k.eps, f"that of norm_q, {attn.norm_q.eps}")
    if attn.training and attn.dropout:
        raise InvalidInput(f"{name}.training", "True with dropout", "False (call eval)")
