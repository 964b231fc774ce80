"""ACE-Step's transformer with everything in float64: products, norms, rotation, attention and time embedding.

Written from the architecture, not from an implementation: it shares no code with diffusers, which computes norms,
rotation and sinusoids in float32 whatever the model is in, nor with the accelerated decoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine.decoders import AceStepDecoder

TIME_SCALE, TIME_PERIOD, TIME_WIDTH = 1000.0, 10000.0, 256


class ReferenceDecoder:
    """A `Decoder` in float64 with the weights of an `AceStepDecoder` as they are when it is made.

    Args:
        decoder: the decoder; its weights are copied to float64 on its device.
    """

    takes_mask = True

    def __init__(self, decoder: AceStepDecoder) -> None:
        model: Any = decoder.transformer
        self._weights: dict[str, Tensor] = {name: each.detach().double() for name, each in model.state_dict().items()}
        self._config = model.config
        self._layers = list(model.layer_types)

    def __call__(
        self,
        *,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_mask: Tensor,
        context_latents: Tensor,
    ) -> Tensor:
        """The velocity `[N, T, D]`, float64; arguments as in `Decoder`."""
        patch = self._config.patch_size
        first, second = (self._time(name, t) for name, t in zip(TIMES, (timestep, timestep * 0), strict=True))
        time, modulation = first[0] + second[0], first[1] + second[1]
        x = torch.cat([context_latents, hidden_states], -1).double()
        x = torch.unflatten(functional.pad(x, (0, 0, 0, -x.shape[1] % patch)), 1, (-1, patch))
        x = torch.einsum("nspc,hcp->nsh", x, self["proj_in_conv.weight"]) + self["proj_in_conv.bias"]
        condition = self._linear("condition_embedder", encoder_hidden_states.double())
        attended = encoder_mask.bool()[:, None, None, :]
        index = torch.arange(x.shape[1], device=x.device)
        near = (index[:, None] - index).abs() <= self._config.sliding_window
        for number, kind in enumerate(self._layers):
            window = near if kind == "sliding_attention" else torch.ones_like(near)
            x = self._block(f"layers.{number}", x, modulation, window, condition, attended)
        shift, scale = (self["scale_shift_table"] + time[:, None]).unbind(1)
        x = self._norm("norm_out", x) * (1 + scale[:, None]) + shift[:, None]
        x = torch.einsum("nsh,hdp->nspd", x, self["proj_out_conv.weight"]) + self["proj_out_conv.bias"]
        return torch.narrow(x.flatten(1, 2), 1, 0, hidden_states.shape[1])

    def __getitem__(self, name: str) -> Tensor:
        """A weight by its name in the state dict of the transformer."""
        return self._weights[name]

    def _block(
        self, name: str, x: Tensor, modulation: Tensor, window: Tensor, condition: Tensor, attended: Tensor
    ) -> Tensor:
        rows = (self[f"{name}.scale_shift_table"] + modulation)[:, :, None]
        shift, scale, gate, c_shift, c_scale, c_gate = rows.unbind(1)
        normed = self._norm(f"{name}.self_attn_norm", x) * (1 + scale) + shift
        x = x + gate * self._attention(f"{name}.self_attn", normed, normed, window, turn=True)
        normed = self._norm(f"{name}.cross_attn_norm", x)
        x = x + self._attention(f"{name}.cross_attn", normed, condition, attended, turn=False)
        normed = self._norm(f"{name}.mlp_norm", x) * (1 + c_scale) + c_shift
        inner = self._linear(f"{name}.mlp.gate_proj", normed)
        inner = inner * torch.sigmoid(inner) * self._linear(f"{name}.mlp.up_proj", normed)
        return x + c_gate * self._linear(f"{name}.mlp.down_proj", inner)

    def _attention(self, name: str, x: Tensor, source: Tensor, attended: Tensor, *, turn: bool) -> Tensor:
        config = self._config
        query, key, value = (
            torch.unflatten(self._linear(f"{name}.to_{part}", each), -1, (-1, config.head_dim))
            for part, each in (("q", x), ("k", source), ("v", source))
        )
        query, key = self._norm(f"{name}.norm_q", query), self._norm(f"{name}.norm_k", key)
        if turn:
            query, key = self._turned(query), self._turned(key)
        times = config.num_attention_heads // config.num_key_value_heads
        key, value = (each.repeat_interleave(times, 2) for each in (key, value))
        scores = torch.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(config.head_dim)
        weights = scores.masked_fill(~attended, -math.inf).softmax(-1)
        made = torch.einsum("nhqk,nkhd->nqhd", weights, value).flatten(2)
        return self._linear(f"{name}.to_out.0", made)

    def _turned(self, x: Tensor) -> Tensor:
        """Rotate halves of heads by the position times `theta ** (-2i / width)`."""
        half = x.shape[-1] // 2
        step = torch.arange(half, dtype=torch.float64, device=x.device) / half
        position = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
        angle = (position[:, None] * float(self._config.rope_theta) ** -step)[:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)

    def _time(self, name: str, time: Tensor) -> tuple[Tensor, Tensor]:
        half = TIME_WIDTH // 2
        step = torch.arange(half, dtype=torch.float64, device=time.device) / half
        angle = time.double()[:, None] * TIME_SCALE * TIME_PERIOD**-step
        x = self._linear(f"{name}.linear_1", torch.cat([angle.cos(), angle.sin()], -1))
        x = self._linear(f"{name}.linear_2", x * torch.sigmoid(x))
        return x, torch.unflatten(self._linear(f"{name}.time_proj", x * torch.sigmoid(x)), -1, (6, -1))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        mean = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + float(self._config.rms_norm_eps)) * self[f"{name}.weight"]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self[f"{name}.weight"], self._weights.get(f"{name}.bias"))


TIMES = ("time_embed", "time_embed_r")


def euler(decoder: Any, inputs: dict[str, Tensor], times: Iterable[float]) -> Iterator[Tensor]:
    """The latents after each step of a loop over `times`, in float64; the velocity is that of `decoder`."""
    x, steps = inputs["hidden_states"].double(), list(times)
    for now, then in zip(steps, steps[1:], strict=False):
        time = torch.full_like(inputs["timestep"], now)
        velocity = decoder(**inputs | {"hidden_states": x.to(inputs["hidden_states"].dtype), "timestep": time})
        x = x + (then - now) * velocity.double()
        yield x
