"""The bare decoder: the time of the decoder alone, on the rows of a tick, without the engine around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from harness.engine.decoders import Decoder
from harness.engine.executors import Batch, Executor, ExecutorStream
from harness.engine.executors.stream import joiner
from harness.rails.bench.clocks import EventClock, HostClock

GROUPS, FORWARDS = 7, 10
"""The bare decoder is timed in `GROUPS` groups of `FORWARDS` forwards back to back."""


@dataclass(frozen=True)
class Bare:
    """The time of the bare decoder.

    Attributes:
        rows: the number of rows of a forward.
        forms: the median time of one forward in ms, by form: `eager`, `graph`, `compiled graph` or `engine`.
    """

    rows: int
    forms: Mapping[str, float]

    @property
    def fastest(self) -> str:
        """The name of the fastest form."""
        return min(self.forms, key=lambda form: self.forms[form])

    @property
    def ms(self) -> float:
        """The time of the fastest form in ms."""
        return self.forms[self.fastest]


class Tap:
    """An executor that records its batches, so that the bare decoder can run the same rows.

    Args:
        inner: the executor that runs the batches; `close` closes this executor as well.

    Attributes:
        batches: the recorded batches.
        inner: the argument.
    """

    def __init__(self, inner: Executor) -> None:
        self.max_rows = inner.max_rows
        self.takes_mask = inner.takes_mask
        self.stream: ExecutorStream | None = inner.stream
        self.batches: list[Batch] = []
        self.inner = inner

    def run(self, batch: Batch) -> Tensor:
        """Record the batch and run it; see `Executor.run`."""
        self.batches.append(batch)
        return self.inner.run(batch)

    def close(self) -> None:
        """Close the inner executor; see `Executor.close`."""
        self.inner.close()


def bare(decoder: Decoder, batch: Batch, *, on_gpu: bool, engine: Callable[[], object] | None = None) -> Bare:
    """Time the bare decoder in every form that this device supports.

    Args:
        decoder: the decoder.
        batch: the rows of a forward.
        on_gpu: True if decoder and batch are on a GPU, which adds the CUDA graphs.
        engine: runs these rows on a compiled decoder (see `runs`), which adds the form `engine`; or None.
    """
    inputs = batch.tensors()
    if not getattr(decoder, "takes_mask", True):
        del inputs["encoder_mask"]

    def forward() -> Tensor:
        return decoder(**inputs)

    with torch.no_grad():
        forms: dict[str, Callable[[], object]] = {"eager": forward}
        if on_gpu:
            forms["graph"] = captured(forward)
            forms["compiled graph"] = captured(torch.compile(forward, dynamic=False))
        if engine is not None:
            forms["engine"] = engine
        return Bare(batch.rows, {form: back_to_back(call, on_gpu=on_gpu) for form, call in forms.items()})


def runs(executor: Executor, batches: Sequence[Batch]) -> Callable[[], None]:
    """Make a function that runs batches on an executor, one after the other."""
    join = joiner(executor, joined=True)

    def launch() -> None:
        for batch in batches:
            executor.run(batch)
            join()

    return launch


def captured(forward: Callable[[], Tensor]) -> Callable[[], None]:
    """Capture `forward` as a CUDA graph; return the function that replays the graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    return graph.replay


def back_to_back(call: Callable[[], object], *, on_gpu: bool) -> float:
    """The median time of one call in ms, over `GROUPS` groups of `FORWARDS` calls back to back."""
    for _ in range(3):
        call()
    clock = EventClock() if on_gpu else HostClock()
    clock.mark()
    for _ in range(GROUPS):
        for _ in range(FORWARDS):
            call()
        clock.mark()
    return median(clock.between()) / FORWARDS


def merged(batches: Sequence[Batch]) -> Batch:
    """Concatenate the rows of several batches to one batch."""
    names = batches[0].tensors()
    return Batch(**{name: torch.cat([batch.tensors()[name] for batch in batches]) for name in names})
