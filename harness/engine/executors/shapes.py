"""Shapes of decoder runs, for executors that prepare a shape before any tick uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.errors import InvalidInput
from harness.engine.executors.base import Batch
from harness.engine.noise import Purpose, noise


@dataclass(frozen=True)
class Shape:
    """Sizes and dtypes that all rows of a decoder run share; the number of rows is no part of it.

    Attributes:
        frames: latent frames T.
        tokens: tokens L that conditions are padded to: the pipeline's `encoder_length`.
        channels: latent channels D; the context has `2*D`.
        encoder_dim: width E of the encoder states.
        encoder_dtype: dtype of the encoder states.
        context_dtype: dtype of the context latents.

    Raises:
        InvalidInput: a size below 1, or a dtype that is no floating dtype.
    """

    frames: int
    tokens: int
    channels: int
    encoder_dim: int
    encoder_dtype: torch.dtype = torch.float32
    context_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("frames", "tokens", "channels", "encoder_dim"):
            checks.integer(f"shape.{name}", getattr(self, name), 1)
        for name in ("encoder_dtype", "context_dtype"):
            dtype = getattr(self, name)
            checks.instance(f"shape.{name}", dtype, torch.dtype, "a torch.dtype")
            if not dtype.is_floating_point:
                raise InvalidInput(f"shape.{name}", dtype, "a floating dtype")

    def __str__(self) -> str:
        """The shape in words."""
        dtypes = f"{_name(self.encoder_dtype)} encoder, {_name(self.context_dtype)} context"
        return f"T={self.frames}, L={self.tokens}, D={self.channels}, E={self.encoder_dim} ({dtypes})"

    @classmethod
    def of_decoder(cls, decoder: Decoder, frames: int, tokens: int) -> Shape:
        """The shape of a decoder that names its widths in `channels` and `encoder_dim`, as `AceStepDecoder` does.

        Raises:
            InvalidInput: a size below 1, or a decoder without these attributes.
        """
        channels, encoder_dim = (getattr(decoder, name, None) for name in ("channels", "encoder_dim"))
        if not isinstance(channels, int) or not isinstance(encoder_dim, int):
            raise InvalidInput("decoder", type(decoder).__name__, "a decoder with channels and encoder_dim")
        return cls(frames, tokens, channels, encoder_dim)

    @classmethod
    def of(cls, batch: Batch) -> Shape:
        """The shape of a batch.

        Raises:
            InvalidInput: the tensors of the batch do not fit each other.
        """
        for name in ("hidden_states", "encoder_hidden_states"):
            if getattr(batch, name).dim() != 3:  # noqa: PLR2004 rows, length, width
                raise InvalidInput(f"batch.{name}", checks.describe(getattr(batch, name)), "three dimensions")
        rows, frames, channels = batch.hidden_states.shape
        tokens, encoder_dim = batch.encoder_hidden_states.shape[1:]
        shape = cls(
            frames, tokens, channels, encoder_dim, batch.encoder_hidden_states.dtype, batch.context_latents.dtype
        )
        for name, expected in shape.sizes(rows).items():
            found = getattr(batch, name)
            if tuple(found.shape) != expected:
                raise InvalidInput(f"batch.{name}", checks.describe(found), f"the shape {list(expected)}")
        return shape

    def sizes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a batch of `rows` rows, by name, in the order of the decoder's arguments."""
        return {
            "hidden_states": (rows, self.frames, self.channels),
            "timestep": (rows,),
            "encoder_hidden_states": (rows, self.tokens, self.encoder_dim),
            "encoder_mask": (rows, self.tokens),
            "context_latents": (rows, self.frames, 2 * self.channels),
        }

    def example(self, rows: int, device: torch.device) -> Batch:
        """A batch of seeded noise, with another time and another number of attended tokens in every row."""

        def drawn(seed: int, length: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
            each = [noise(seed + row, Purpose.INITIAL, 0, (1, length, width)) for row in range(rows)]
            return torch.cat(each).to(device=device, dtype=dtype)

        row, token = (torch.arange(count, device="cpu") for count in (rows, self.tokens))
        attended = self.tokens - row % self.tokens
        return Batch(
            hidden_states=drawn(0, self.frames, self.channels),
            timestep=((rows - row).to(torch.float32) / rows).to(device),
            encoder_hidden_states=drawn(1000, self.tokens, self.encoder_dim, self.encoder_dtype),
            encoder_mask=(token[None] < attended[:, None]).to(device),
            context_latents=drawn(2000, self.frames, 2 * self.channels, self.context_dtype),
        )


@runtime_checkable
class PreparesShapes(Protocol):
    """An executor that runs prepared shapes only."""

    def prepare(self, shapes: Iterable[Shape], progress: Callable[[str], object] = ...) -> None:
        """Prepare runs of every shape, for every number of rows that the executor runs."""
        ...

    def check_shape(self, shape: Shape) -> None:
        """Check that runs of a shape are prepared.

        Raises:
            NotPrepared: the shape is not prepared.
        """
        ...


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
