"""The signature of a compiled decoder: names, dtypes and widths of its tensors, ranges of its dynamic dimensions.

A compiled decoder is an exported file or a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.engine.errors import BatchTooLarge, OutsideProfile

if TYPE_CHECKING:  # executors import this module
    from harness.engine.executors.base import Batch

MASK, VELOCITY = "encoder_mask", "velocity"
INPUTS = ("hidden_states", "timestep", "encoder_hidden_states", "context_latents", MASK)
"""The inputs in the order of the exported file; a file that was exported without a mask lacks the last one."""

AXES: Mapping[str, tuple[str, ...]] = {
    "hidden_states": ("rows", "frames", "channels"),
    "timestep": ("rows",),
    "encoder_hidden_states": ("rows", "tokens", "encoder_dim"),
    "context_latents": ("rows", "frames", "context_channels"),
    MASK: ("rows", "tokens"),
    VELOCITY: ("rows", "frames", "channels"),
}
"""The dimensions of each tensor, by name; `rows`, `frames` and `tokens` may be dynamic."""


@dataclass(frozen=True)
class Span:
    """The range of sizes that a dimension may have.

    Attributes:
        low: the smallest size.
        high: the largest size; None is no limit.
    """

    low: int
    high: int | None = None

    def __contains__(self, size: int) -> bool:
        """Return True if the dimension may have this size."""
        return self.low <= size and (self.high is None or size <= self.high)

    def __str__(self) -> str:
        """The range in words, such as `2 to 8`, `at least 2` or `64`."""
        if self.high is None:
            return f"at least {self.low}"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"

    def met(self, other: Span) -> Span:
        """The intersection of two ranges; empty, with `low > high`, where they do not overlap."""
        highs = [span.high for span in (self, other) if span.high is not None]
        return Span(max(self.low, other.low), min(highs) if highs else None)


@dataclass(frozen=True)
class Signature:
    """The inputs and the output of a compiled decoder, as read from the file or the plan.

    Attributes:
        dtypes: the dtype of every input and of `velocity`, by name. A decoder without `encoder_mask` attends padding.
        rows: the range of rows N of one run.
        frames: the range of frames T, padding included.
        tokens: the range of encoder tokens L.
        channels: latent channels D.
        context_channels: context channels C.
        encoder_dim: encoder width E.
        frames_multiple: the model's patch size. A T that is no multiple is padded with zero frames for the run.
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
        """True if the compiled decoder has an input for the encoder mask."""
        return MASK in self.dtypes

    def padded_frames(self, frames: int) -> int:
        """`frames` rounded up to a multiple of `frames_multiple`."""
        return -(-frames // self.frames_multiple) * self.frames_multiple

    def shapes(self, rows: int, frames: int, tokens: int) -> dict[str, tuple[int, ...]]:
        """The shape of every input and of the output of a run, by name; `frames` is padded."""
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
        """Refuse a batch that the compiled decoder cannot run. Nothing is allocated.

        Args:
            batch: the batch as the pipeline makes it, without padded frames.
            max_rows: the executor's largest number of rows.

        Raises:
            BatchTooLarge: the batch has more than `max_rows` rows.
            OutsideProfile: rows, frames, tokens or a width is outside the range of the compiled decoder.
        """
        frames, channels = batch.hidden_states.shape[1:]
        tokens, encoder_dim = batch.encoder_hidden_states.shape[1:]
        if batch.rows > max_rows:
            raise BatchTooLarge(f"a batch of {batch.rows} rows: the compiled decoder takes at most {max_rows}")
        for name, size, allowed in (
            ("rows", batch.rows, self.rows),
            ("frames T", self.padded_frames(frames), self.frames),
            ("tokens L", tokens, self.tokens),
            ("channels D", channels, Span(self.channels, self.channels)),
            ("context channels", batch.context_latents.shape[2], Span(self.context_channels, self.context_channels)),
            ("encoder width E", encoder_dim, Span(self.encoder_dim, self.encoder_dim)),
        ):
            if size not in allowed:
                raise OutsideProfile(f"{name}: got {size}, the compiled decoder takes {allowed}")
