"""Inputs for exported files, and what runs one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AceStepTransformer1DModel
from torch import Tensor

from harness import registry
from harness.engine.aot.runtime import session
from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.ace_step import PRESETS


def inputs(decoder: AceStepDecoder, rows: int, frames: int, tokens: int) -> dict[str, Tensor]:
    """Drawn inputs in the file's dtypes; every row hides another number of tokens."""
    draw = torch.Generator().manual_seed(rows + frames + tokens)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(decoder.dtype)

    return {
        "hidden_states": drawn(rows, frames, decoder.channels),
        "timestep": torch.rand(rows, generator=draw),
        "encoder_hidden_states": drawn(rows, tokens, decoder.encoder_dim),
        "context_latents": drawn(rows, frames, 2 * decoder.channels),
        "encoder_mask": torch.arange(tokens) < 1 + torch.arange(rows)[:, None] % tokens,
    }


def tiny(dtype: str = "float32") -> AceStepDecoder:
    """The decoder of `registry.onnx_file("tiny", dtype=dtype)`."""
    decoder = registry.decoder("tiny", dtype=getattr(torch, dtype))
    assert isinstance(decoder, AceStepDecoder)
    return decoder


def single(dtype: torch.dtype = torch.float32) -> AceStepDecoder:
    """A decoder of one layer, which is traced in half the time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = AceStepTransformer1DModel(**{**PRESETS["tiny"], "num_hidden_layers": 1})
    return AceStepDecoder(transformer.to(dtype).eval().requires_grad_(False))


def run(path: Path, given: dict[str, Tensor]) -> Tensor:
    """What ONNX Runtime makes of a file."""
    return torch.from_numpy(session(path).run(None, {name: tensor.numpy() for name, tensor in given.items()})[0])
