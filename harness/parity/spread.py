"""Choice of a few items out of many that are unlike each other, so that one cause does not fill all places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def spread(keys: Sequence[tuple[Hashable, ...]], most: int) -> list[int]:
    """Choose items in turns over the values of their keys; the same keys give the same choice.

    Each time the item is taken whose values were taken least often. The first part of a key counts before the second,
    and so on; of equal items the first one is taken.

    Args:
        keys: the key of each item, such as (executor, switch, scenario); all of one length.
        most: the most items to choose, at least 0.

    Returns:
        Indices of the items in the order in which they were chosen.
    """
    taken: Counter[tuple[int, Hashable]] = Counter()
    left = dict.fromkeys(range(len(keys)))
    chosen: list[int] = []
    while left and len(chosen) < most:
        index = min(left, key=lambda each: [taken[part] for part in enumerate(keys[each])])
        taken.update(enumerate(keys[index]))
        chosen.append(index)
        del left[index]
    return chosen
