from __future__ import annotations

import gc
import weakref

import pytest
import torch

from harness.engine import Condition, InvalidInput
from harness.engine.conditioning import CacheCounts, Conditioner, ConditioningCache, build, pad_mask, source_key
from harness.parity.compare import assert_identical, difference
from tests.engine.builders import D, E, T, condition, fixed


def contexts(rows: int) -> list[torch.Tensor]:
    return [fixed(20 + row, T, 2 * D) for row in range(rows)]


def test_conditions_are_padded_with_zeros_that_the_mask_hides() -> None:
    short, long = condition(1, 2), condition(2, 4)
    made = build([short, long], contexts(2), 6)
    assert made.encoder_mask.tolist() == [[True] * 2 + [False] * 4, [True] * 4 + [False] * 2]
    assert_identical(made.encoder_hidden_states[:1, :2], short.encoder_hidden_states)
    assert_identical(made.encoder_hidden_states[:1, 2:], torch.zeros(1, 4, E))
    assert_identical(made.context_latents, torch.cat(contexts(2)))


def test_a_caller_s_mask_is_kept_and_padded() -> None:
    masked = condition(tokens=3, encoder_mask=torch.tensor([[1, 0, 1]]))
    assert pad_mask(masked, 5).tolist() == [[True, False, True, False, False]]


def test_a_hit_returns_what_was_built() -> None:
    cache, rows, given = ConditioningCache(), [condition(1), condition(2)], contexts(2)
    first = cache(rows, given, 6)
    assert cache(rows, given, 6) is first
    assert cache.counts == CacheCounts(hits=1, misses=1)
    assert_identical(vars(first), vars(build(rows, given, 6)))


@pytest.mark.parametrize("which", ["states", "mask", "context"])
def test_a_source_that_was_written_to_is_built_again(which: str) -> None:
    row, latents = condition(tokens=3, encoder_mask=torch.tensor([[1, 1, 1]])), fixed(20, T, 2 * D)
    cache = ConditioningCache()
    before = cache([row], [latents], 4)
    {"states": row.encoder_hidden_states, "mask": row.encoder_mask, "context": latents}[which][0, 0] = 0
    after = cache([row], [latents], 4)
    assert_identical(vars(after), vars(build([row], [latents], 4)))
    assert any(difference(vars(after)[name], old) for name, old in vars(before).items())


def test_rows_length_and_order_are_part_of_the_key() -> None:
    a, b, given, cache = condition(1), condition(2), contexts(2), ConditioningCache()
    for rows, latents, length in (([a, b], given, 6), ([b, a], given, 6), ([a, b], given[::-1], 6), ([a, b], given, 7)):
        assert_identical(vars(cache(rows, latents, length)), vars(build(rows, latents, length)))
    assert cache.counts == CacheCounts(misses=4)


def test_the_least_recently_used_entry_goes_first() -> None:
    cache, given, (a, b, c) = ConditioningCache(capacity=2), contexts(1), (condition(s) for s in (1, 2, 3))
    for row in (a, b, a, c, a, b):
        cache([row], given, 4)
    assert cache.counts == CacheCounts(hits=2, misses=4, evictions=2)
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_sources_live_as_long_as_their_entry_so_that_no_identity_is_used_again() -> None:
    cache = ConditioningCache(capacity=1)
    row, latents = condition(tokens=3, encoder_mask=torch.tensor([[1, 1, 0]])), fixed(20, T, 2 * D)
    alive = [weakref.ref(t) for t in (row.encoder_hidden_states, row.encoder_mask, latents)]
    cache([row], [latents], 4)
    del row, latents
    gc.collect()
    assert all(ref() is not None for ref in alive)
    cache([condition(2)], contexts(1), 4)
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3


def test_a_recycled_identity_would_be_a_stale_batch() -> None:
    cache = ConditioningCache()
    for seed in range(50):  # each condition dies before the next one is made, which then often has its address
        row = condition(seed)
        assert_identical(vars(cache([row], contexts(1), 4)), vars(build([row], contexts(1), 4)))


def test_an_inference_tensor_goes_by_its_identity() -> None:
    with torch.inference_mode():
        states = fixed(1, 3, E).clone()
    row, given, cache = Condition(states), contexts(1), ConditioningCache()
    assert cache([row], given, 4) is cache([row], given, 4)
    assert cache([Condition(fixed(1, 3, E))], given, 4) is not cache([row], given, 4)


@pytest.mark.parametrize("make", [build, ConditioningCache()])
def test_the_caller_s_lists_and_tensors_are_left_as_they_are(make: Conditioner) -> None:
    rows, given = [condition(1, 2), condition(2, 4)], contexts(2)
    held, versions = ([*rows], [*given]), [t._version for t in given]
    for _ in range(2):
        make(rows, given, 6)
    assert all(a is b for a, b in zip([*rows, *given], [*held[0], *held[1]], strict=True))
    assert [t._version for t in given] == versions


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="capacity"):
        ConditioningCache(0)


def test_the_key_of_a_tensor_is_its_identity_and_its_version() -> None:
    plain = torch.zeros(2)
    assert source_key(plain) == (id(plain), 0)
    plain.add_(1.0)
    assert source_key(plain) == (id(plain), 1)
    with torch.inference_mode():
        made = torch.zeros(2)
        made.add_(1.0)
    assert source_key(made) == (id(made), 0)


@pytest.mark.parametrize("states", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("context", [torch.float64, torch.bfloat16])
def test_states_and_contexts_keep_their_dtypes_and_values(states: torch.dtype, context: torch.dtype) -> None:
    rows = [Condition(condition(seed, tokens).encoder_hidden_states.to(states)) for seed, tokens in ((1, 2), (2, 4))]
    given = [each.to(context) for each in contexts(2)]
    made = build(rows, given, 4)
    padded = torch.cat([rows[0].encoder_hidden_states, torch.zeros(1, 2, E, dtype=states)], dim=1)
    wanted = {
        "encoder_hidden_states": torch.cat([padded, rows[1].encoder_hidden_states]),
        "encoder_mask": torch.tensor([[True, True, False, False], [True] * 4]),
        "context_latents": torch.cat(given),
    }
    assert_identical(vars(made), wanted)


def test_one_text_with_a_mask_without_and_with_another_one_has_three_entries() -> None:
    states, given, cache = fixed(1, 3, E), contexts(1), ConditioningCache()
    masks = [None, torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 1]]), torch.tensor([[1, 1, 1]])]
    rows = [Condition(states, mask) for mask in masks]
    for _ in range(2):
        for row in rows:
            assert_identical(vars(cache([row], given, 4)), vars(build([row], given, 4)))
    assert cache.counts == CacheCounts(hits=4, misses=4)


def test_two_rows_that_exchange_their_masks_or_contexts_are_another_run() -> None:
    states, given, cache = [fixed(1, 3, E), fixed(2, 3, E)], contexts(2), ConditioningCache()
    masks = [torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 1]])]
    first, second = (Condition(states[0], masks[0]), Condition(states[1], masks[1]))
    crossed = (Condition(states[0], masks[1]), Condition(states[1], masks[0]))
    runs = [([first, second], given), (list(crossed), given), ([first, first], given), ([first, second], given[:1] * 2)]
    for _ in range(2):
        for rows, latents in runs:
            assert_identical(vars(cache(rows, latents, 4)), vars(build(rows, latents, 4)))
    assert cache.counts == CacheCounts(hits=4, misses=4)


def test_what_cannot_be_built_is_neither_kept_nor_counted() -> None:
    cache, rows = ConditioningCache(), [condition(1), condition(2)]
    for given in ([fixed(20, T, 2 * D), fixed(21, T + 1, 2 * D)], contexts(1), contexts(3)):
        with pytest.raises((RuntimeError, ValueError)):
            cache(rows, given, 4)
    assert (len(cache), cache.counts) == (0, CacheCounts())


def test_cleared_entries_are_built_again_and_the_counts_go_on() -> None:
    cache, rows, given = ConditioningCache(1), [condition(1)], contexts(1)
    first = cache(rows, given, 4)
    cache.clear()
    again = cache(rows, given, 4)
    assert again is not first
    assert cache.counts == CacheCounts(misses=2)
    assert (CacheCounts(), ConditioningCache().capacity) == (CacheCounts(0, 0, 0), 8)
