"""Words for outputs that two revisions do not make alike."""

from __future__ import annotations

from collections.abc import Sequence


def changes(moved: Sequence[str], only_base: Sequence[str], only_head: Sequence[str]) -> list[str]:
    """Sentences about outputs that moved and about those that one side alone has; none where there are none of them."""
    found = [f"outputs MOVED: {', '.join(moved)}"] if moved else []
    found += [f"outputs not compared, missing in B: {', '.join(only_base)}"] if only_base else []
    found += [f"outputs not compared, missing in A: {', '.join(only_head)}"] if only_head else []
    return found
