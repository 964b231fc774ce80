"""ACE-Step v1.5's diffusion transformer, as diffusers has it, with the ring's padding masked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AceStepTransformer1DModel
from safetensors import safe_open
from torch import Tensor, nn

from harness.engine import checks
from harness.engine.errors import InvalidInput

# What differs from diffusers' defaults, which are the published 2B model: 24 layers of 2048, E = 2048, D = 64.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
        "audio_acoustic_hidden_dim": 8,
        "in_channels": 24,
        "encoder_hidden_size": 32,
        "sliding_window": 4,
    },
    "mid": {
        "num_hidden_layers": 8,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "intermediate_size": 1536,
        "encoder_hidden_size": 2048,
    },
    "2b": {},
}

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = _WEIGHTS + ".index.json"
_NULL_EMBEDDING = "null_condition_emb"


class _CrossAttentionMask:
    """A forward pre-hook that puts the mask in force into a transformer block's cross-attention.

    diffusers' forward hands every block `encoder_attention_mask=None`. An object, not a closure: a deep copy of a
    decoder takes its hooks along with the mask that they read, where a closure would go on reading the original's.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.mask is None:
            return None
        return args, {**kwargs, "encoder_attention_mask": self.mask}


class AceStepDecoder(nn.Module):
    """diffusers' `AceStepTransformer1DModel` as a `Decoder`: its own forward, plus a mask on the ring's padding.

    The mask reaches the cross-attention through a pre-hook on each block, which acts only while this decoder runs; the
    transformer called by itself does what it always does. The mask is passed when it is all True as well, because
    attention with a mask and without one are different kernels, and a row's kernel must not hang on its neighbours.
    A decoder runs one call at a time.

    It exports (`torch.export`, `torch.onnx.export(dynamo=True)`) with dynamic `N`, `L` and a dynamic `T` that is a
    multiple of the patch size, and with `encoder_mask` as an input. Eagerly every `T` works.

    Attributes:
        takes_mask: True.
        transformer: the wrapped model.
        null_embedding: `[1, 1, E]` in the transformer's dtype, the learned state that stands for "no condition"; None
            where there is none. A buffer, so that it moves with the decoder.
    """

    takes_mask = True
    null_embedding: Tensor | None

    def __init__(self, transformer: AceStepTransformer1DModel, *, null_embedding: Tensor | None = None) -> None:
        """Wrap a transformer; it is used as it is, in its dtype and mode, on its device.

        Args:
            transformer: diffusers' model.
            null_embedding: `[1, 1, E]`, finite; copied to the transformer's dtype and device.

        Raises:
            InvalidInput: `transformer` is something else, or `null_embedding` has another shape or is not finite.
        """
        super().__init__()
        checks.instance("transformer", transformer, AceStepTransformer1DModel, "an AceStepTransformer1DModel")
        self.transformer = transformer
        self._cross_mask = _CrossAttentionMask()
        for block in transformer.layers:
            block.register_forward_pre_hook(self._cross_mask, with_kwargs=True)
        if null_embedding is not None:
            checks.tensor("null_embedding", null_embedding, (1, 1, self.encoder_dim))
            null_embedding = null_embedding.detach().to(self.device, self.dtype, copy=True)
        self.register_buffer("null_embedding", null_embedding, persistent=False)

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
            hidden_states: `[N, T, D]`; cast, like all but the mask, to the transformer's dtype.
            timestep: `[N]`, 1 is pure noise; also the reference time of the model's second time embedding.
            encoder_hidden_states: `[N, L, E]`.
            encoder_mask: `[N, L]`, False or 0 where a token is not attended.
            context_latents: `[N, T, 2*D]`: source latents, then chunk mask.
        """
        dtype = self.dtype
        time = timestep.to(dtype)
        outer, self._cross_mask.mask = self._cross_mask.mask, encoder_mask.to(torch.bool)[:, None, None, :]
        try:
            velocity: Tensor = self.transformer(
                hidden_states=hidden_states.to(dtype),
                timestep=time,
                timestep_r=time,
                encoder_hidden_states=encoder_hidden_states.to(dtype),
                context_latents=context_latents.to(dtype),
                return_dict=False,
            )[0]
        finally:
            self._cross_mask.mask = outer
        return velocity

    @property
    def channels(self) -> int:
        """Latent channels `D`."""
        return int(self.transformer.config.audio_acoustic_hidden_dim)

    @property
    def encoder_dim(self) -> int:
        """Encoder width `E`."""
        return int(self.transformer.condition_embedder.in_features)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the transformer computes in."""
        return self._parameter.dtype

    @property
    def device(self) -> torch.device:
        """Where the transformer's parameters are."""
        return self._parameter.device

    @property
    def _parameter(self) -> Tensor:
        parameter: Tensor = self.transformer.scale_shift_table  # the one that quantization and adapters leave alone
        return parameter

    @classmethod
    def preset(
        cls, name: str, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> AceStepDecoder:
        """A decoder of a known size with seeded random weights and null embedding, in eval mode, without gradients.

        The weights are a function of `name` and `seed`: they are drawn on the CPU in float32, then cast and moved.
        torch's generators and defaults are left as they were.

        Args:
            name: "tiny" (2 layers of 64, E = 32, D = 8), "mid" (8 of 512, E = 2048, D = 64) or "2b" (24 of 2048).
            seed: 0 to 2**64 - 1.
            dtype: what it computes in.
            device: where it goes.

        Raises:
            InvalidInput: an unknown name, or a seed out of range.
        """
        if name not in PRESETS:
            raise InvalidInput("name", repr(name), "one of " + ", ".join(map(repr, PRESETS)))
        with _seeded(checks.integer("seed", seed, 0, 2**64 - 1)):
            transformer = AceStepTransformer1DModel(**PRESETS[name])
            null_embedding = torch.randn(1, 1, transformer.condition_embedder.in_features)
        return cls._frozen(transformer, null_embedding, dtype, device)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> AceStepDecoder:
        """A decoder from a local checkpoint in diffusers' format, in eval mode, without gradients.

        Args:
            path: a transformer's directory, or a pipeline's with `transformer/` in it. A pipeline's
                `condition_encoder/`, where there is one, gives the null embedding and is not loaded otherwise.
            dtype: what it computes in.
            device: where it goes.

        Raises:
            InvalidInput: no such directory, configuration or weights, those of another model, or weights that are not
                exactly the model's. Only safetensors are read, and nothing is downloaded.
        """
        root = Path(path)
        folder = root / "transformer" if (root / "transformer").is_dir() else root
        _check_folder(folder)
        with _seeded(0):  # diffusers draws a few tensors before it overwrites them with the checkpoint's
            transformer, report = AceStepTransformer1DModel.from_pretrained(
                str(folder),
                torch_dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,  # so that the report names them
                output_loading_info=True,
            )
        wrong = {kind: names for kind, names in report.items() if names}
        if wrong:
            raise InvalidInput("path", f"{folder} with {wrong}", "a checkpoint with exactly the model's weights")
        return cls._frozen(transformer, _read_null_embedding(root / "condition_encoder"), dtype, device)

    @classmethod
    def _frozen(
        cls,
        transformer: AceStepTransformer1DModel,
        null_embedding: Tensor | None,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> AceStepDecoder:
        decoder = cls(transformer, null_embedding=null_embedding)
        return decoder.to(device=device, dtype=dtype).eval().requires_grad_(False)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` on the CPU in float32 whatever the caller's defaults, and leave torch's state as it was."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: it would seed every accelerator's generator too.
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def _check_folder(folder: Path) -> None:
    """Raise `InvalidInput` unless `folder` holds the configuration and safetensors of an ACE-Step transformer."""
    if not folder.is_dir():
        raise InvalidInput("path", str(folder), "an existing directory")
    config = folder / "config.json"
    if not config.is_file():
        raise InvalidInput("path", str(folder), "a directory with a config.json")
    found = json.loads(config.read_text()).get("_class_name")
    if found != AceStepTransformer1DModel.__name__:
        raise InvalidInput("path", f"{config} of a {found}", f"one of an {AceStepTransformer1DModel.__name__}")
    _weights_file(folder, None)


def _read_null_embedding(folder: Path) -> Tensor | None:
    """The null embedding `[1, 1, E]` of a condition encoder's directory; None where there is no directory or tensor."""
    if not folder.is_dir():
        return None
    with safe_open(_weights_file(folder, _NULL_EMBEDDING), framework="pt", device="cpu") as weights:
        return weights.get_tensor(_NULL_EMBEDDING) if _NULL_EMBEDDING in weights.keys() else None  # noqa: SIM118 - not a dict


def _weights_file(folder: Path, tensor: str | None) -> Path:
    """The safetensors file of `folder` that holds `tensor`, any of them where it is None or not in the index."""
    index = folder / _INDEX
    shards: dict[str, str] = json.loads(index.read_text())["weight_map"] if index.is_file() else {}
    file = folder / (shards.get(tensor or "") or next(iter(shards.values()), _WEIGHTS))
    if not file.is_file():
        raise InvalidInput("path", str(file), "an existing safetensors file")
    return file
