"""Bounds of stages that need not be exact, as measured on the decoder itself.

A row of a decoder may get other bits in a batch of another size. `measured` runs any decoder alone, in batches of every
size, and padded to one size, and returns how far the same row moves. A lockstep run that is given such a bound for a
stage compares that stage within the bound, and the fast ring then goes on with the tensor of the plain ring, so that
all later stages are compared byte for byte. Nothing widens a bound by itself: a margin is asked for by `Bound.times`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.bits import copied
from harness.parity.compare import identical, max_abs

EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Bound:
    """Bound of one row: `max |Δ| <= margin * k * eps * rms(plain)`, with the eps of float32.

    Attributes:
        k: the largest distance that was measured, in units of `eps * rms`; 0 if every row was exact, inf if a row was
            all zeros in one batch and not in another. A bound that is not finite allows no difference at all.
        rows: number of rows of the largest batch that was measured.
        how: how the rows ran: `free` or `pinned`.
        samples: number of different rows that were measured.
        margin: factor on `k`.
    """

    k: float
    rows: int
    how: str
    samples: int
    margin: float = 1.0

    def times(self, margin: float) -> Bound:
        """Return the bound with a margin, which every verdict then names.

        Args:
            margin: a finite factor, at least 1.

        Raises:
            InvalidInput: the margin is less than 1 or not finite.
        """
        if not (math.isfinite(margin) and margin >= 1):
            raise InvalidInput("margin", margin, "a finite number, 1 or above")
        return replace(self, margin=margin)

    def limit(self, plain: Tensor) -> float:
        """Return the largest allowed distance from a tensor; 0 where the tensor or the bound is not finite."""
        found = self.margin * self.k * EPS * _rms(plain)
        return found if math.isfinite(found) else 0.0

    def allows(self, fast: Tensor, plain: Tensor) -> bool:
        """Say whether a tensor is within the bound of another one of the same shape and dtype.

        Distances are compared in units of `eps * rms`, as they were measured: the product `limit` is rounded, and the
        largest measured distance itself may exceed it.
        """
        most = self.margin * self.k
        finite = math.isfinite(most) and math.isfinite(_rms(plain))
        return max_abs(fast, plain) == 0 or (finite and _distance(fast, plain) <= most)

    def __str__(self) -> str:
        """The bound in words."""
        margin = "" if self.margin == 1 else f"{self.margin:g} x "
        return f"k = {margin}{self.k:.4g}, measured on {self.samples} {self.how} rows in batches of up to {self.rows}"


@dataclass(frozen=True)
class Measured:
    """Bounds of a decoder: rows in batches of any size, and rows in batches that are padded to one size."""

    free: Bound
    pinned: Bound

    def tree(self) -> dict[str, Tensor]:
        """Return what was measured as tensors, for the fixture `blessed`: a bound that changes is then a difference."""
        free, pinned = (torch.tensor(each.k, dtype=torch.float64) for each in (self.free, self.pinned))
        return {"free": free, "pinned": pinned, "rows": torch.tensor([self.free.rows, self.free.samples])}


@dataclass
class Bounded:
    """Comparisons of one stage within its bound.

    Attributes:
        stage: name of the stage.
        bound: the bound in force.
        compared: number of tensors with an element that were compared.
        largest: the largest distance, in units of `eps * rms`.
    """

    stage: str
    bound: Bound
    compared: int = 0
    largest: float = 0.0

    def beyond(self, path: str, fast: Tensor, plain: Tensor) -> str:
        """Compare two tensors; return in words how the bound is exceeded, or nothing."""
        if (fast.shape, fast.dtype) != (plain.shape, plain.dtype):
            return f"{path}: no bound covers another shape or dtype"
        if not self.bound.allows(fast, plain):
            moved, limit = max_abs(fast, plain), self.bound.limit(plain)
            return f"{path}: max |Δ| {moved:.3g} > {limit:.3g}, the bound of {self.stage} ({self.bound})"
        self.compared += plain.numel() > 0
        self.largest = max(self.largest, _distance(fast, plain))
        return ""

    def __str__(self) -> str:
        """The stage, its bound and the largest distance in words."""
        return f"{self.stage} within {self.bound}; largest seen {self.largest:.4g} in {self.compared} tensors"


def measured(decoder: Callable[..., Tensor], inputs: Sequence[Tensor], most: int | None = None) -> Measured:
    """Measure how far the same row of a decoder moves with the batch that it runs in.

    The rows are cut into groups. Every row of a group runs alone, twice, and in batches of every size from both ends of
    the group: free, then padded to `most` rows by repeating the last one. The distance between any two results of a row
    counts, in units of eps * rms. A row that was not measured may move farther, so take rows that the engine has, and
    many of them.

    Args:
        decoder: called with batches of the inputs; returns `[rows, ...]`. Its output may be a reused buffer.
        inputs: tensors `[rows, ...]`, all with the same number of rows, at least 2.
        most: number of rows in a group, at least 2: the largest batch of the engine; None is all rows.

    Raises:
        InvalidInput: fewer than 2 rows, unequal numbers of rows, or an output that is not finite or lacks a row.
    """
    counts = {tensor.shape[0] if tensor.ndim else 0 for tensor in inputs}
    if len(counts) != 1 or min(counts) < 2:
        raise InvalidInput("inputs", f"{sorted(counts)} rows", "tensors with the same number of rows, at least 2")
    (rows,) = counts
    size = rows if most is None else most
    if not 2 <= size <= rows:
        raise InvalidInput("most", size, f"a number of rows, 2 to {rows}")
    groups = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
    free, pinned = (max(_largest(decoder, inputs, group, pin) for group in groups) for pin in (0, size))
    return Measured(Bound(free, size, "free", rows), Bound(pinned, size, "pinned", rows))


def _largest(decoder: Callable[..., Tensor], inputs: Sequence[Tensor], group: Sequence[int], pin: int) -> float:
    """Largest distance between two results of the same row; `pin` rows are run at least."""
    results: dict[int, list[Tensor]] = {number: [] for number in group}  # without equal ones
    for numbers in _batches(group):
        padded = [*numbers, *[numbers[-1]] * (pin - len(numbers))]
        out = copied(decoder(*(tensor[padded] for tensor in inputs)), "the decoder's output")
        if out.ndim == 0 or out.shape[0] != len(padded) or not bool(torch.isfinite(out).all()):
            raise InvalidInput("decoder", f"an output {list(out.shape)}", f"{len(padded)} rows of finite numbers")
        for position, number in enumerate(numbers):
            if not any(identical(out[position], known) for known in results[number]):
                results[number].append(out[position])
    pairs = ((a, b) for each in results.values() for a in each for b in each)
    return max(_distance(a, b) for a, b in pairs)


def _batches(group: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the rows in each batch: every row alone, twice; then batches of every size, from both ends."""
    for _ in range(2):
        yield from ([number] for number in group)
    for size in range(2, len(group) + 1):
        yield list(group[:size])
        yield list(group[::-1][:size])


def _distance(a: Tensor, b: Tensor) -> float:
    """`max |Δ|` in units of eps * rms of `b`; 0 for equal tensors."""
    moved = max_abs(a, b)
    unit = EPS * _rms(b)
    return (moved / unit if unit else math.inf) if moved else 0.0


def _rms(tensor: Tensor) -> float:
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return float(parts.double().square().mean().sqrt()) if tensor.numel() else 0.0
