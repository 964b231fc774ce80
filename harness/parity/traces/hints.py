"""Words of a trace on how its pipeline was made, as the settings with which the registry makes one like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness import registry
from harness.engine.decoders import Decoder
from harness.registry import ExecutorKind


class UnknownHint(ValueError):
    """The words of a trace do not name what its pipeline was made with."""


@dataclass(frozen=True)
class Settings:
    """Settings of a pipeline.

    Attributes:
        decoder: name of the decoder; see `registry.decoder`.
        kind: kind of the executor.
        pin_rows: number of rows that every run is padded to, or None.
        dtype: name of the decoder's dtype.
    """

    decoder: str
    kind: ExecutorKind
    pin_rows: int | None
    dtype: str

    def made(self, device: str) -> Decoder:
        """Make the decoder; see `registry.decoder` for the errors."""
        return registry.decoder(self.decoder, dtype=getattr(torch, self.dtype), device=device)


def settings(hints: Mapping[str, str], given: Mapping[str, Any] | None = None) -> Settings:
    """Read the words of a trace.

    A trace names presets alone: no file decides which folder of weights is read.

    Args:
        hints: the words; see `Header`.
        given: what was asked for instead, by the same names: `decoder`, `executor`, `pin_rows` and `dtype`.

    Raises:
        UnknownHint: no decoder is named, or a word is not known.
    """
    asked = given or {}
    decoder = asked.get("decoder") or hints.get("decoder", "")
    if not asked.get("decoder") and decoder not in (registry.AFFINE, *registry.PRESETS):
        raise UnknownHint("the trace names no preset: give --decoder")
    kind = asked.get("executor") or hints.get("executor", ExecutorKind.EAGER)
    pinned = asked.get("pin_rows") or _number(hints.get("pin_rows"))
    dtype = asked.get("dtype") or hints.get("dtype", registry.DTYPES[0])
    if kind not in list(ExecutorKind) or dtype not in registry.DTYPES:
        raise UnknownHint(f"the trace names an executor or a dtype that is not known: {kind!r}, {dtype!r}")
    return Settings(decoder, ExecutorKind(kind), pinned, dtype)


def _number(words: str | None) -> int | None:
    return int(words) if words and words.isascii() and words.isdigit() and len(words) < len("10000") else None
