"""Pads and stacks the conditions of a decoder run, plainly or through a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional

from harness.engine import checks
from harness.engine.request import Condition


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The conditioning of one run of N rows: `[N, L, E]`, bool `[N, L]` and `[N, T, C]`."""

    encoder_hidden_states: Tensor
    encoder_mask: Tensor
    context_latents: Tensor


class Conditioner(Protocol):
    """Builds the conditioning of one run."""

    def __call__(self, conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
        """One row for each condition and the context beside it, padded to `length` tokens."""
        ...


def build(conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
    """Pad and stack.

    Args:
        conditions: one a row, each of at most `length` tokens.
        contexts: the rows' context latents, `[1, T, C]` each.
        length: tokens L to pad to, with zero rows that the mask hides.
    """
    return Conditioning(
        encoder_hidden_states=torch.cat([pad_states(c, length) for c in conditions]),
        encoder_mask=torch.cat([pad_mask(c, length) for c in conditions]),
        context_latents=torch.cat(list(contexts)),
    )


def pad_states(condition: Condition, length: int) -> Tensor:
    """The encoder states with zero rows up to `length`, `[1, L, E]`."""
    return functional.pad(condition.encoder_hidden_states, (0, 0, 0, length - condition.length))


def pad_mask(condition: Condition, length: int) -> Tensor:
    """True on the tokens that are attended, False on the padding: bool `[1, L]`."""
    own = condition.encoder_mask
    if own is None:
        own = torch.ones((1, condition.length), dtype=torch.bool, device=condition.encoder_hidden_states.device)
    return functional.pad(own, (0, length - condition.length), value=False)


SourceKey: TypeAlias = tuple[int, int]
"""A tensor's identity and version counter."""

Key: TypeAlias = tuple[int, tuple[tuple[SourceKey, SourceKey | None, SourceKey], ...]]


@dataclass(frozen=True)
class CacheCounts:
    """How often the cache answered, built and threw out."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class ConditioningCache:
    """`build` behind a small LRU: a hit returns the very tensors that a rebuild would equal.

    Entries are keyed on the identity and the version counter of every source tensor, so writing into a condition in
    place makes a rebuild. Writers that move no counter are not seen: `tensor.data`, memory shared with NumPy or DLPack,
    a storage written to directly, and a CUDA graph or engine that writes into the tensor when it is replayed (clone
    such a text encoder's output). Inference tensors have no counter and go by identity alone. An entry holds its
    sources, so no identity is reused while it is a key.

    Args:
        capacity: how many runs' conditionings are kept, at least 1; a request's tensors stay in memory as long.

    Raises:
        InvalidInput: a capacity below 1.
    """

    def __init__(self, capacity: int = 8) -> None:
        """An empty cache."""
        self.capacity = checks.integer("capacity", capacity, 1)
        self.counts = CacheCounts()
        self._entries: LRUCache[Key, tuple[tuple[Tensor, ...], Conditioning]] = LRUCache(self.capacity)

    def __len__(self) -> int:
        """How many conditionings are kept."""
        return len(self._entries)

    def __call__(self, conditions: Sequence[Condition], contexts: Sequence[Tensor], length: int) -> Conditioning:
        """What `build` returns for the same arguments."""
        key = (length, tuple(_row_key(c, latents) for c, latents in zip(conditions, contexts, strict=True)))
        hits, misses, evictions = self.counts.hits, self.counts.misses, self.counts.evictions
        if key in self._entries:
            self.counts = CacheCounts(hits + 1, misses, evictions)
            return self._entries[key][1]
        made = build(conditions, contexts, length)
        self.counts = CacheCounts(hits, misses + 1, evictions + (len(self._entries) == self.capacity))
        self._entries[key] = (_sources(conditions, contexts), made)
        return made

    def clear(self) -> None:
        """Let go of every entry."""
        self._entries.clear()


def _sources(conditions: Sequence[Condition], contexts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    masks = [c.encoder_mask for c in conditions if c.encoder_mask is not None]
    return (*(c.encoder_hidden_states for c in conditions), *masks, *contexts)


def _row_key(condition: Condition, context: Tensor) -> tuple[SourceKey, SourceKey | None, SourceKey]:
    mask = condition.encoder_mask
    return source_key(condition.encoder_hidden_states), None if mask is None else source_key(mask), source_key(context)


def source_key(tensor: Tensor) -> SourceKey:
    """What a tensor is known by: its identity and how often it was written to (0 for an inference tensor)."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 torch has no public counter
