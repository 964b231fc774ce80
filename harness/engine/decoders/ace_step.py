"""ACE-Step v1.5's diffusion transformer, in the implementation of diffusers, with a mask for the ring's padding."""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AceStepTransformer1DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.transformers import ace_step_transformer
from torch import Tensor, nn

from harness.engine import checks
from harness.engine.decoders import checkpoint
from harness.engine.errors import CheckpointRefused, InvalidInput

M = TypeVar("M", bound=nn.Module)

_TRACING = threading.RLock()

# Differences from the defaults of diffusers, which are the published 2B model: 24 layers of 2048, E = 2048, D = 64.
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


class CrossAttentionMask:
    """A forward pre-hook that passes the current mask to the cross-attention of a transformer block.

    The forward of diffusers passes `encoder_attention_mask=None` to every block. The hook is an object and not a
    closure, because a deep copy of a decoder then copies the hook and its mask; a closure would still read the mask of
    the original decoder.
    """

    def __init__(self, mask: Tensor | None = None) -> None:
        self.mask = mask
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the mask alone: a copy has a lock of its own."""
        return type(self), (self.mask,)

    def turn(self) -> AbstractContextManager[object]:
        """A block that one thread at a time is in; traced code has one thread, and a lock cannot be traced."""
        return nullcontext() if torch.compiler.is_compiling() else self._lock

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of a block with the mask; None where there is no mask."""
        if self.mask is None:
            return None
        return args, {**kwargs, "encoder_attention_mask": self.mask}


class OfTransformer(nn.Module):
    """A decoder with the sizes, the dtype and the device of its transformer.

    Attributes:
        transformer: the model of diffusers.
    """

    transformer: Any

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
        """The device of the transformer's parameters."""
        return self._parameter.device

    @property
    def _parameter(self) -> Tensor:
        parameter: Tensor = self.transformer.scale_shift_table  # quantization and adapters do not change this one
        return parameter


class AceStepDecoder(OfTransformer):
    """The `AceStepTransformer1DModel` of diffusers as a `Decoder`: the original forward, and a mask on the padding.

    A pre-hook on each block passes the mask to the cross-attention. The hook is active only while this decoder runs; a
    direct call of the transformer is unchanged. The mask is passed even if all its elements are True: attention with
    and without a mask are different kernels, and the kernel of a row must not depend on the other rows.

    A decoder and its twins run one call at a time: calls from other threads wait. On a GPU a call ends when its work is
    launched.

    The decoder can be exported (`torch.export`, `torch.onnx.export(dynamo=True)`) with dynamic `N` and `L`, a dynamic
    `T` that is a multiple of the patch size, and `encoder_mask` as an input. An eager call takes any `T`.

    Attributes:
        takes_mask: True.
        transformer: the wrapped model.
        null_embedding: `[1, 1, E]` in the transformer's dtype, the learned state for "no condition"; None if the model
            has none. A registered buffer, which moves with the decoder.
    """

    takes_mask = True
    null_embedding: Tensor | None

    def __init__(self, transformer: AceStepTransformer1DModel, *, null_embedding: Tensor | None = None) -> None:
        """Wrap a transformer, whose dtype, device and mode stay as they are.

        Args:
            transformer: the model of diffusers.
            null_embedding: `[1, 1, E]`, finite; copied to the transformer's dtype and device.

        Raises:
            InvalidInput: `transformer` is of another class, or `null_embedding` has another shape or is not finite.
        """
        super().__init__()
        checks.instance("transformer", transformer, AceStepTransformer1DModel, "an AceStepTransformer1DModel")
        self.transformer = transformer
        self._cross_mask = CrossAttentionMask()
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
            hidden_states: latents `[N, T, D]`. All inputs except the mask are cast to the transformer's dtype.
            timestep: times `[N]` in [0, 1]; 1 is pure noise. The model's second time embedding gets the same times.
            encoder_hidden_states: encoder states `[N, L, E]`.
            encoder_mask: `[N, L]`, False or 0 where a token is not attended.
            context_latents: `[N, T, 2*D]`: source latents, then chunk mask.
        """
        dtype = self.dtype
        time = timestep.to(dtype)
        with self._cross_mask.turn():
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

    def with_layers(self, change: Callable[[nn.Module], object]) -> AceStepDecoder:
        """A decoder that shares every weight with this one, and whose layers are copies that `change` was called with.

        The copies share all that is in the layers. What `change` sets on a copy, such as a compiled call, does not act
        on this decoder.

        On a GPU the first layer gets hidden states that are contiguous. From the convolution before it they come with
        frames innermost, and compiled layers would keep that: their products would read rows that are not aligned, by
        kernels that take up to twice as long. On a CPU nothing changes, and the twin makes this decoder's bits.
        """
        twin, transformer = shallow(self), shallow(self.transformer)
        layers = [shallow(layer) for layer in self.transformer.layers]
        for layer in layers:
            change(layer)
        transformer.layers = nn.ModuleList(layers)
        if self.device.type == "cuda":
            transformer.proj_in_conv = _dense(transformer.proj_in_conv)
        twin.transformer = transformer
        return twin

    @staticmethod
    @contextmanager
    def traceable() -> Iterator[None]:
        """Let torch's compiler trace every decoder of this class, inside the block.

        diffusers makes a member of an enum at each attention, which not every version of the compiler can trace. The
        member that is made is the one that is there already. One thread at a time is in such a block.
        """
        with _TRACING:
            before = ace_step_transformer._get_current_attention_backend  # noqa: SLF001 it has no public name
            ace_step_transformer._get_current_attention_backend = attention_backend  # noqa: SLF001 as above
            try:
                yield
            finally:
                ace_step_transformer._get_current_attention_backend = before  # noqa: SLF001 as above

    @classmethod
    def preset(
        cls, name: str, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> AceStepDecoder:
        """A decoder of a named size with seeded random weights and null embedding, in eval mode, without gradients.

        The weights are a function of `name` and `seed`: they are drawn on the CPU in float32, then cast and moved.
        torch's generators and defaults do not change.

        Args:
            name: "tiny" (2 layers of 64, E = 32, D = 8), "mid" (8 layers of 512, E = 2048, D = 64) or "2b" (24 layers
                of 2048, E = 2048, D = 64).
            seed: 0 to 2**64 - 1.
            dtype: the dtype of the parameters, in which the decoder computes.
            device: the device of the parameters.

        Raises:
            InvalidInput: `name` is unknown, or `seed` is out of range.
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
        """A decoder from a local checkpoint in the format of diffusers, in eval mode, without gradients.

        Only safetensors are read, and nothing is downloaded.

        Args:
            path: the directory of a transformer, or of a pipeline with `transformer/` in it. The null embedding is
                read from `condition_encoder/` in this directory; without that directory there is no null embedding.
            dtype: the dtype of the parameters, in which the decoder computes.
            device: the device of the parameters.

        Raises:
            InvalidInput: the directory, its configuration or its weights are missing or belong to another model; the
                names or shapes of the weights are not exactly those of the model; the weights are not finite floating
                point numbers; or the index names a file outside its directory.
        """
        root = Path(path)
        folder = root / "transformer" if (root / "transformer").is_dir() else root
        checkpoint.check(folder)
        with _seeded(0):  # diffusers draws a few tensors at random before it loads the checkpoint's values
            transformer, report = _loaded(folder, dtype)
        wrong = {kind: names for kind, names in report.items() if names}
        if wrong:
            raise CheckpointRefused("path", f"{folder} with {wrong}", "a checkpoint with exactly the model's weights")
        checkpoint.check_finite(folder, transformer)
        return cls._frozen(transformer, checkpoint.null_embedding(root / "condition_encoder"), dtype, device)

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


def _loaded(folder: Path, dtype: torch.dtype) -> tuple[AceStepTransformer1DModel, dict[str, Any]]:
    """The transformer in `folder`, and what diffusers has to say about its weights."""
    try:
        found: tuple[AceStepTransformer1DModel, dict[str, Any]] = AceStepTransformer1DModel.from_pretrained(
            str(folder),
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,  # mismatched sizes are then in the report instead of raising
            output_loading_info=True,
        )
    except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput("path", str(folder), f"a checkpoint that diffusers loads ({error})") from error
    return found


def attention_backend(processor: object = None) -> AttentionBackendName:
    """The attention backend of diffusers that a processor names, else the active one."""
    named: AttentionBackendName | None = getattr(processor, "_attention_backend", None)
    active: AttentionBackendName = _AttentionBackendRegistry.get_active_backend()[0]
    return active if named is None else named


def _dense(convolution: nn.Module) -> nn.Module:
    """A copy of a convolution `[B, C, T]` whose result is contiguous as `[B, T, C]`; it shares all that is in it."""
    twin = shallow(convolution)
    twin._forward_hooks = OrderedDict(convolution._forward_hooks)  # noqa: SLF001 as in shallow

    def turned(_convolution: nn.Module, _inputs: object, made: Tensor) -> Tensor:
        return made.transpose(1, 2).contiguous().transpose(1, 2)

    twin.register_forward_hook(turned)
    return twin


def shallow(module: M) -> M:
    """A copy that shares every parameter and child, and has a table of children of its own."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)  # noqa: SLF001 torch has no public name for it
    return twin


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator and make CPU and float32 the defaults, inside the block; restore torch's state."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed, which would also seed the generators of all accelerators.
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
