"""What an ahead-of-time engine takes and gives: names, dtypes, widths, and the ranges of its dynamic dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from harness.engine.errors import BatchTooLarge, OutsideProfile
from harness.engine.executors.base import Batch

MASK, VELOCITY = "encoder_mask", "velocity"
INPUTS = ("hidden_states", "timestep", "encoder_hidden_states", "context_latents", MASK)
"""In the file's order; the mask is left out of a file that was exported without it."""

AXES: Mapping[str, tuple[str, ...]] = {
    "hidden_states": ("rows", "frames", "channels"),
    "timestep": ("rows",),
    "encoder_hidden_states": ("rows", "tokens", "encoder_dim"),
    "context_latents": ("rows", "frames", "context_channels"),
    MASK: ("rows", "tokens"),
    VELOCITY: ("rows", "frames", "channels"),
}
"""What each dimension of each tensor is; `rows`, `frames` and `tokens` may be dynamic."""


@dataclass(frozen=True)
class Span:
    """The sizes that a dimension may have.

    Attributes:
        low: the least.
        high: the most, None where nothing bounds it.
    """

    low: int
    high: int | None = None

    def __contains__(self, size: int) -> bool:
        """Whether the dimension may have this size."""
        return self.low <= size and (self.high is None or size <= self.high)

    def __str__(self) -> str:
        """As a person writes it."""
        if self.high is None:
            return f"at least {self.low}"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"

    def met(self, other: Span) -> Span:
        """The sizes that both allow."""
        highs = [span.high for span in (self, other) if span.high is not None]
        return Span(max(self.low, other.low), min(highs) if highs else None)


@dataclass(frozen=True)
class Signature:
    """An engine's inputs and output, read from the engine and never assumed.

    Attributes:
        dtypes: of every input and of `velocity`, by name. Without `encoder_mask` the engine attends padding.
        rows: N of one run.
        frames: T as the engine takes it, a multiple of `frames_multiple`.
        tokens: L.
        channels: D.
        context_channels: C.
        encoder_dim: E.
        frames_multiple: of T, the model's patch size; another T is padded with zero frames and cut again.
    """

    dtypes: Mapping[str, torch.dtype]
    rows: Span
    frames: Span
    tokens: Span
    channels: int
    context_channels: int
    encoder_dim: int
    frames_multiple: int = 1

    @property
    def takes_mask(self) -> bool:
        """Whether the engine has an input for the mask."""
        return MASK in self.dtypes

    def padded_frames(self, frames: int) -> int:
        """`frames` rounded up to what the engine takes."""
        return -(-frames // self.frames_multiple) * self.frames_multiple

    def shapes(self, rows: int, frames: int, tokens: int) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a run, by name, `frames` padded."""
        sizes = {
            "rows": rows,
            "frames": self.padded_frames(frames),
            "tokens": tokens,
            "channels": self.channels,
            "context_channels": self.context_channels,
            "encoder_dim": self.encoder_dim,
        }
        return {name: tuple(sizes[axis] for axis in AXES[name]) for name in self.dtypes}

    def check(self, batch: Batch, max_rows: int) -> None:
        """Refuse a batch that the engine cannot run, before anything is allocated.

        Args:
            batch: as the pipeline gives it, its frames not padded yet.
            max_rows: the executor's.

        Raises:
            BatchTooLarge: more rows than `max_rows`.
            OutsideProfile: fewer rows than the engine takes, or other frames, tokens or widths.
        """
        frames, channels = batch.hidden_states.shape[1:]
        tokens, encoder_dim = batch.encoder_hidden_states.shape[1:]
        if batch.rows > max_rows:
            raise BatchTooLarge(f"a run of {batch.rows} rows was asked of an engine that takes {max_rows} at most")
        for name, size, allowed in (
            ("rows", batch.rows, self.rows),
            ("frames T", self.padded_frames(frames), self.frames),
            ("tokens L", tokens, self.tokens),
            ("channels D", channels, Span(self.channels, self.channels)),
            ("context channels", batch.context_latents.shape[2], Span(self.context_channels, self.context_channels)),
            ("encoder width E", encoder_dim, Span(self.encoder_dim, self.encoder_dim)),
        ):
            if size not in allowed:
                raise OutsideProfile(f"{name}: got {size}, the engine takes {allowed}")
