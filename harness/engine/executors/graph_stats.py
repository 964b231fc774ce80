"""Counts of the executor of recorded runs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.engine.executors.code import OtherKernel


@dataclass(frozen=True)
class GraphStats:
    """Counts of a `CudaGraphExecutor` since it was made, and what it holds now.

    Attributes:
        graphs: number of graphs that can be replayed now.
        recorded: number of recordings, repeated ones included.
        evicted: number of graphs that were freed to make room.
        runs: number of runs that were launched.
        replays: number of replays that ran to their end, counted by the graphs themselves on the device. None where the
            device is lost.
        copied: number of inputs that runs copied.
        kept: number of inputs that runs left as they were, because their source had not changed.
        nbytes: bytes of all memory pools, inputs and outputs.
        compiled: number of the compiler's graphs that were compiled.
        loaded: number of the compiler's graphs whose code was there already.
        other_kernels: the first kernel of each prepared run that is not the recorded one; see `CodeFile`.
    """

    graphs: int
    recorded: int
    evicted: int
    runs: int
    replays: int | None
    copied: int
    kept: int
    nbytes: int
    compiled: int = 0
    loaded: int = 0
    other_kernels: tuple[OtherKernel, ...] = ()
