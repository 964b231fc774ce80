"""The decoder alone, on the rows of a tick: what is left of a tick without the engine around it."""

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
"""The bare decoder is timed in so many groups of so many forwards back to back."""


@dataclass(frozen=True)
class Bare:
    """The decoder alone on the rows of a tick, back to back.

    Attributes:
        rows: of a forward.
        forms: median ms of one forward, by how it is launched.
    """

    rows: int
    forms: Mapping[str, float]

    @property
    def fastest(self) -> str:
        """The form that took least."""
        return min(self.forms, key=lambda form: self.forms[form])

    @property
    def ms(self) -> float:
        """Of the fastest form."""
        return self.forms[self.fastest]


class Tap:
    """An executor that keeps the batches it was given, so that the bare decoder can be given the same rows.

    Attributes:
        batches: that it was given.
        inner: what runs them.
    """

    def __init__(self, inner: Executor) -> None:
        """A tap on `inner`, which is closed with it."""
        self.max_rows = inner.max_rows
        self.takes_mask = inner.takes_mask
        self.stream: ExecutorStream | None = inner.stream
        self.batches: list[Batch] = []
        self.inner = inner

    def run(self, batch: Batch) -> Tensor:
        """See `Executor.run`."""
        self.batches.append(batch)
        return self.inner.run(batch)

    def close(self) -> None:
        """See `Executor.close`."""
        self.inner.close()


def bare(decoder: Decoder, batch: Batch, *, on_gpu: bool, engine: Callable[[], object] | None = None) -> Bare:
    """The decoder alone on these rows, in every form that there is for it on this device.

    Args:
        decoder: the model.
        batch: the rows.
        on_gpu: whether it is on one.
        engine: an ahead-of-time engine's own runs of these rows, which are then a form as well; see `runs`.
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
    """An executor's runs of these batches one after the other, each there before the next, as its launch."""
    join = joiner(executor, joined=True)

    def launch() -> None:
        for batch in batches:
            executor.run(batch)
            join()

    return launch


def captured(forward: Callable[[], Tensor]) -> Callable[[], None]:
    """A CUDA graph of `forward`, as its launch."""
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
    """Median ms of one call, over groups of calls with nothing between them."""
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
    """The rows of several batches as one."""
    names = batches[0].tensors()
    return Batch(**{name: torch.cat([batch.tensors()[name] for batch in batches]) for name in names})
