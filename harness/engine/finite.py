"""Looks at the velocities of decoder runs: which rows hold a value that is not finite, found without a wait."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from harness.engine import kernels, once, transfer
from harness.engine.rows import Row

Read: TypeAlias = Callable[[], list[bool]]
"""Function that says of each row whether every value is finite."""


@dataclass(frozen=True, eq=False)
class Look:
    """A look at one decoder run.

    Attributes:
        rows: the rows of the run.
        fetched: what `read` reads, on its way from a GPU to the host; None where `read` answers at once.
        read: says of each row whether every value is finite. The host waits where the numbers have not come yet.
    """

    rows: Sequence[Row]
    fetched: transfer.Fetched | None
    read: Read

    def bad(self) -> list[Row]:
        """The rows that hold a value that is not finite."""
        return [row for row, is_finite in zip(self.rows, self.read(), strict=True) if not is_finite]


def widened(rows: Sequence[Row], output: Tensor, *, copy: bool) -> tuple[Tensor, Look]:
    """The velocity `[N, T, D]` of the rows of a run in float32, contiguous, and a look at it.

    Args:
        rows: the rows.
        output: the decoder's output, of any float width.
        copy: the velocity must not share the memory of `output`.

    On a GPU with Triton one kernel does both. A layout is not kept: a norm over T rounds differently in a transposed
    one, and bits must not depend on it.
    """
    found = kernels.widen(output)
    if found is not None:
        velocity, flags = found
        return velocity, Look(rows, flags, lambda: [not any(each) for each in flags.read()])
    velocity = output.to(torch.float32, copy=copy).contiguous()
    return velocity, look(rows, velocity)


def look(rows: Sequence[Row], velocity: Tensor) -> Look:
    """Look at the velocity `[N, T, D]`, float32, of the rows of a run.

    The reference is `torch.isfinite(velocity).all(dim=(1, 2))`. On a GPU without Triton one kernel finds the largest
    magnitude of each row, and the numbers travel to the host behind it. On the CPU one operator sums each row, into
    memory of the host that is read without torch. A sum takes a twentieth of the time that magnitudes take, and is not
    finite where a value is not. Where a sum is not finite, every value is looked at, because finite values may have
    such a sum.
    """
    if velocity.device.type in once.READ_LATER:
        fetched = transfer.fetch(_magnitudes(velocity))
        return Look(rows, fetched, lambda: list(map(math.isfinite, fetched.read())))
    if velocity.device.type != "cpu":
        found = transfer.read(_magnitudes(velocity), "velocities that must be finite")
        return Look(rows, None, lambda: list(map(math.isfinite, found)))
    memory, sums = _sums(len(rows))
    torch.sum(velocity, dim=(1, 2), out=sums)
    if np.isfinite(memory).all():
        return Look(rows, None, lambda: [True] * len(rows))
    exact = torch.isfinite(velocity).all(dim=2).all(dim=1).tolist()
    return Look(rows, None, lambda: exact)


_HERE = threading.local()
"""Memory for the sums of each number of rows, made once for each thread."""


def _sums(rows: int) -> tuple[Any, Tensor]:
    known: dict[int, tuple[Any, Tensor]] = vars(_HERE).setdefault("sums", {})
    if rows not in known:
        memory = np.empty(rows, dtype=np.float32)
        # Outside inference mode, because a tensor made inside it cannot be written to outside of it.
        with torch.inference_mode(False):
            known[rows] = memory, torch.from_numpy(memory)
    return known[rows]


def _magnitudes(velocity: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(velocity, math.inf, dim=(1, 2))
    return found
