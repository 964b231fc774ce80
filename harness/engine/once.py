"""Checks of tensors that a caller gives again and again: values are read once, and again after a write.

Each tensor that was found finite is remembered with its version counter, process-wide: requests share tensors, and any
thread may make them. No tensor is kept alive, and what is known of a tensor goes with it, so no identity is reused
while it is known. An inference tensor has no version counter and is read every time. Writers that move no counter are
not seen; `ConditioningCache` lists them.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from harness.engine import checks

_FINITE: MutableMapping[Tensor, int] = WeakIdKeyDictionary()
"""Tensors whose every element was finite, and the version at which it was."""


def tensor(field: str, value: Any, shape: tuple[int | str, ...]) -> Tensor:
    """`checks.tensor`, its plain twin, which reads at every call."""
    checks.shaped(field, value, shape)
    finite(field, value)
    return value  # type: ignore[no-any-return]  # `shaped` refuses everything but tensors


def finite(field: str, value: Tensor) -> None:
    """`checks.finite`, its plain twin, which reads at every call."""
    if value.is_inference():
        checks.finite(field, value)
        return
    # Taken before the read: a write meanwhile then makes another version than the one that is remembered.
    version = value._version  # noqa: SLF001 torch has no public counter
    if _FINITE.get(value) != version:
        checks.finite(field, value)
        _FINITE[value] = version
