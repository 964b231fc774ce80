"""The code of a compiled decoder, as an executor of recorded runs sees it: where it is kept, and what it launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from harness.engine.decoders.base import Decoder
from harness.engine.executors.shapes import Shape


@dataclass(frozen=True)
class OtherKernel:
    """A kernel that is not the recorded one: the first of a run.

    Attributes:
        shape: the shape of the run, in words.
        rows: its number of rows.
        position: number of the kernel in the run, from 0.
        expected: the recorded kernel; None where the run should have ended.
        found: the kernel that ran; None where the run ended.
    """

    shape: str
    rows: int
    position: int
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        """The difference in words."""
        found, expected = self.found or "no kernel", self.expected or "no kernel"
        return f"{self.rows} rows of {self.shape}: kernel {self.position} is {found}, expected {expected}"


@runtime_checkable
class Code(Protocol):
    """The code of one executor's decoder.

    Attributes:
        other_kernels: what was found at the recordings so far.
    """

    @property
    def other_kernels(self) -> tuple[OtherKernel, ...]:
        """See the class."""
        ...

    def begin(self, decoder: Decoder, device: torch.device) -> None:
        """Make the code ready; the executor calls this once.

        Raises:
            EngineError: the code is of another decoder or another machine, or cannot be used.
        """
        ...

    def kept(self) -> AbstractContextManager[None]:
        """A block in which the compiler looks for code, and leaves it, where this code is kept."""
        ...

    def preparing(self, shapes: Sequence[Shape], rows: Sequence[int]) -> AbstractContextManager[None]:
        """A block in which runs of these shapes are prepared, as in `kept`; `watch` acts in it alone.

        Raises:
            InvalidInput: there is no code for a shape or a number of rows.
        """
        ...

    def watch(self, shape: Shape, rows: int, run: Callable[[], object]) -> None:
        """Look at the kernels of a run, which was called before.

        Raises:
            KernelsDiffer: the run launched other kernels than those that are recorded.
        """
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class CompiledHere:
    """Code that this process compiles, or finds where torch's compiler keeps the code of its user."""

    other_kernels: tuple[OtherKernel, ...] = ()

    def begin(self, decoder: Decoder, device: torch.device) -> None:
        """See `Code.begin`."""

    def kept(self) -> AbstractContextManager[None]:
        """See `Code.kept`."""
        return nullcontext()

    def preparing(self, shapes: Sequence[Shape], rows: Sequence[int]) -> AbstractContextManager[None]:  # noqa: ARG002 - all are prepared
        """See `Code.preparing`."""
        return nullcontext()

    def watch(self, shape: Shape, rows: int, run: Callable[[], object]) -> None:
        """See `Code.watch`."""

    def close(self) -> None:
        """See `Code.close`."""
