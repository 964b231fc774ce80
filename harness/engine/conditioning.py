"""Padding and stacking of the conditions of a decoder run, with and without a cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine import checks
from harness.engine.request import Condition
from harness.engine.versions import version


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Conditioning of one run of N rows.

    Attributes:
        encoder_hidden_states: `[N, L, E]`.
        encoder_mask: bool `[N, L]`, True on attended tokens.
        context_latents: `[N, T, C]`.
    """

    encoder_hidden_states: Tensor
    encoder_mask: Tensor
    context_latents: Tensor


class Conditioner(Protocol):
    """Builds the conditioning of one run."""

    def __call__(self, conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
        """Build one row for each condition and its context, padded to `length` tokens."""
        ...


def build(conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
    """Pad the conditions of a run to one length and stack them with their contexts.

    Args:
        conditions: one condition a row, each of at most `length` tokens.
        contexts: the rows' context latents, `[1, T, C]` each.
        length: number of tokens L to pad to, with zero rows that the mask hides.
    """
    return Conditioning(
        encoder_hidden_states=torch.cat([pad_states(c, length) for c in conditions]),
        encoder_mask=torch.cat([pad_mask(c, length) for c in conditions]),
        context_latents=torch.cat(list(contexts)),
    )


def pad_states(condition: Condition, length: int) -> Tensor:
    """Pad the encoder states with zero rows to `length`: `[1, L, E]`."""
    return functional.pad(condition.encoder_hidden_states, (0, 0, 0, length - condition.length))


def pad_mask(condition: Condition, length: int) -> Tensor:
    """Pad the encoder mask to `length`: bool `[1, L]`, True on attended tokens, False on padding."""
    own = condition.encoder_mask
    if own is None:
        own = torch.ones((1, condition.length), dtype=torch.bool, device=condition.encoder_hidden_states.device)
    return functional.pad(own, (0, length - condition.length), value=False)


SourceKey: TypeAlias = tuple[int, int]
"""A tensor's identity and version counter."""

Key: TypeAlias = tuple[int, tuple[tuple[SourceKey, SourceKey | None, SourceKey], ...]]


@dataclass(frozen=True)
class CacheCounts:
    """Number of hits, misses and evictions of a cache."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class ConditioningCache:
    """Least-recently-used cache of `build`: a hit returns the tensors of an earlier call, equal to a rebuild's.

    The key holds the identity and the version counter of every source tensor, so a write to a condition in place causes
    a rebuild. Writes that do not increment the counter are not detected: writes through `tensor.data`, through memory
    shared with NumPy or DLPack, directly to a storage, and by a replayed CUDA graph or TensorRT plan (clone the
    output of such a text encoder). Inference tensors have no counter; the key holds their identity alone. An entry
    keeps its source tensors alive, so that no identity is reused while the entry exists.

    An interrupt at any line leaves the cache whole, because each change of it is one operation of an `OrderedDict`.

    Args:
        capacity: number of runs whose conditioning is kept, at least 1; the entries keep their requests' tensors alive.

    Raises:
        InvalidInput: a capacity below 1.
    """

    def __init__(self, capacity: int = 8) -> None:
        self.capacity = checks.integer("capacity", capacity, 1)
        self.counts = CacheCounts()
        self._entries: OrderedDict[Key, tuple[tuple[Tensor, ...], Conditioning]] = OrderedDict()

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def __call__(self, conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
        """Return what `build` returns for the same arguments."""
        key = (length, tuple(_row_key(c, latents) for c, latents in zip(conditions, contexts, strict=True)))
        hits, misses, evictions = self.counts.hits, self.counts.misses, self.counts.evictions
        if key in self._entries:
            self.counts = CacheCounts(hits + 1, misses, evictions)
            self._entries.move_to_end(key)
            return self._entries[key][1]
        made = build(conditions, contexts, length)
        full = len(self._entries) >= self.capacity
        self.counts = CacheCounts(hits, misses + 1, evictions + full)
        if full:
            self._entries.popitem(last=False)
        self._entries[key] = (_sources(conditions, contexts), made)
        return made

    def held(self) -> list[Conditioning]:
        """The conditioning of every entry."""
        return [made for _sources, made in self._entries.values()]

    def clear(self) -> None:
        """Drop every entry."""
        self._entries.clear()


def _sources(conditions: Sequence[Condition], contexts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    masks = [c.encoder_mask for c in conditions if c.encoder_mask is not None]
    return (*(c.encoder_hidden_states for c in conditions), *masks, *contexts)


def _row_key(condition: Condition, context: Tensor) -> tuple[SourceKey, SourceKey | None, SourceKey]:
    mask = condition.encoder_mask
    return source_key(condition.encoder_hidden_states), None if mask is None else source_key(mask), source_key(context)


def source_key(tensor: Tensor) -> SourceKey:
    """Key of a tensor: its identity and its version counter (0 for an inference tensor)."""
    return id(tensor), version(tensor) or 0
