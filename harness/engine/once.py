"""Checks of tensors that a caller gives again and again: values are read once, and again after a write.

What was found of a tensor is remembered with its version counter, process-wide: requests share tensors, and any thread
may make them. No tensor is kept alive, and what is known of a tensor goes with it, so no identity is reused while it is
known. An inference tensor has no version counter and is read every time. Writers that move no counter are not seen;
`ConditioningCache` lists them.

Reading a tensor on a GPU makes the host wait. There the check for finite values is left to `Unread`: kernels find the
smallest and the largest value, and the two numbers are read when they have long been on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from harness.engine import checks, transfer

T = TypeVar("T")

READ_LATER = {"cuda"}
"""Types of devices whose tensors are not read when a record is made."""


class Remembered(Generic[T]):
    """What was made of tensors, each until it is written to. An inference tensor's is forgotten at once."""

    def __init__(self) -> None:
        self._made: MutableMapping[Tensor, tuple[tuple[int, torch.Size], T]] = WeakIdKeyDictionary()

    def __len__(self) -> int:
        """Number of tensors of which something is remembered."""
        return len(self._made)

    def of(self, value: Tensor, make: Callable[[], T]) -> T:
        """Return what `make` made of `value` at its present version; call `make` where nothing is remembered."""
        # Taken before the read: a write meanwhile then makes another version than the one that is remembered.
        version = None if value.is_inference() else (value._version, value.shape)  # noqa: SLF001 no public counter
        known = self._made.get(value)
        if known is not None and known[0] == version:
            return known[1]
        made = make()
        if version is not None:
            self._made[value] = (version, made)
        return made

    def of_later(self, value: Tensor, make: Callable[[], T]) -> T:
        """`of` for a tensor whose reading makes the host wait; any other tensor is read at every call."""
        return self.of(value, make) if value.device.type in READ_LATER else make()


_FINITE: Remembered[bool] = Remembered()
"""Tensors whose every element was finite."""


def tensor(field: str, value: Any, shape: tuple[int | str, ...]) -> Tensor:
    """`checks.tensor`, its plain twin, which reads at every call. The values of a tensor on a GPU are not read here."""
    checks.shaped(field, value, shape)
    finite(field, value)
    return value  # type: ignore[no-any-return]  # `shaped` refuses everything but tensors


def finite(field: str, value: Tensor) -> None:
    """`checks.finite`, its plain twin, which reads at every call. A tensor on a GPU is not read here."""
    if value.device.type not in READ_LATER:
        _FINITE.of(value, lambda: _found_finite(field, value))


def _found_finite(field: str, value: Tensor) -> bool:
    checks.finite(field, value)
    return True


@dataclass(frozen=True, eq=False)
class Ends:
    """The smallest and the largest value of a tensor, float32 `[2]` on its device; NaN where the tensor holds NaN.

    Attributes:
        values: the two numbers.
        stream: the CUDA stream on which they are computed, as an integer; 0 elsewhere.
    """

    values: Tensor
    stream: int


_ENDS: Remembered[Ends] = Remembered()
_FOUND: Remembered[list[bool]] = Remembered()
"""Of a tensor whose ends were read: an empty list until then, after that whether every value is finite."""


class Unread:
    """Tensors of a request that have been submitted before anybody read them, and their ends on the way to the host.

    Made by `unread`. The tensors are kept alive.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._fields = list(tensors)
        self._found = [_FOUND.of(value, list) for value in tensors.values()]
        self._tensors = list(tensors.values())
        self._fetched = transfer.fetch(torch.stack([_ends(value) for value in tensors.values()]))

    @property
    def waited(self) -> bool:
        """Say whether the host has waited in `not_finite`."""
        return self._fetched.waited

    def not_finite(self) -> str | None:
        """Read the ends; return a text that names the first field with a value that is not finite in float32, or None.

        The host waits where the ends have not come yet.
        """
        bad = None
        for field, found, (low, high) in zip(self._fields, self._found, self._fetched.read(), strict=True):
            is_finite = math.isfinite(low) and math.isfinite(high)
            found[:] = [is_finite]
            if not is_finite and bad is None:
                bad = f"{field}: values from {low} to {high}, expected values that are finite in float32"
        return bad


def unread(tensors: Mapping[str, Tensor]) -> Unread | None:
    """Start to find out which of the tensors are finite, for those that have not been found finite before.

    Args:
        tensors: by the name of their field.

    Returns:
        None where every tensor is known to be finite.
    """
    unknown = {
        field: value
        for field, value in tensors.items()
        if value.device.type in READ_LATER and _FOUND.of(value, list) != [True]
    }
    return Unread(unknown) if unknown else None


def _ends(value: Tensor) -> Tensor:
    stream = transfer.current_stream(value.device).cuda_stream if value.is_cuda else 0
    known = _ENDS.of(value, lambda: _ends_of(value, stream))
    return known.values if known.stream == stream else _ends_of(value, stream).values


def _ends_of(value: Tensor, stream: int) -> Ends:
    # torch finds no ends of a float8 tensor.
    wide = value.detach().float() if value.dtype.itemsize == 1 else value.detach()
    return Ends(torch.stack(wide.aminmax()).float(), stream)
