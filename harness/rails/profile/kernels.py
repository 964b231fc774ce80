"""Kernels in a profile of torch: their times by name, and the gaps between them, in which the device does nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.engine.aot.layers import Layer
from harness.rails.profile.report import Gaps, NoLayers, Timed
from harness.rails.profile.rules import KERNEL, Facts

RUN = "harness: run"
"""The name of the mark around each profiled run."""


class Interval(NamedTuple):
    """A kernel, copy or fill that ran, with its start and end in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class _Union:
    """The time that some intervals cover together, and from the first start to the last end, in microseconds."""

    covered: float
    span: float


def on_device(events: Iterable[Any]) -> list[Interval]:
    """The events of a profile that are kernels, copies or fills on a GPU, of every stream."""
    return [
        Interval(each.name, each.time_range.start, each.time_range.end)
        for each in events
        if each.device_type.name == "CUDA" and not getattr(each, "is_user_annotation", False)
    ]


def starts(events: Iterable[Any]) -> list[float]:
    """When each profiled run began, in microseconds, in ascending order: the marks `RUN` of the host."""
    return sorted(each.time_range.start for each in events if each.name == RUN and each.device_type.name == "CPU")


def by_name(kernels: Sequence[Interval], runs: int) -> list[Timed]:
    """The kernels with times and calls per run, in the order of their first start.

    Raises:
        NoLayers: no kernel ran.
    """
    if not kernels:
        raise NoLayers(f"the profiler reported no kernel in {runs} runs")
    took: Mapping[str, list[float]] = defaultdict(list)
    for each in sorted(kernels, key=lambda kernel: kernel.start):
        took[each.name].append(each.end - each.start)
    return [Timed(Facts(Layer(name, KERNEL)), sum(each) / 1e3 / runs, len(each) / runs) for name, each in took.items()]


def gaps(kernels: Sequence[Interval], began: Sequence[float]) -> Gaps | None:
    """The gaps between the kernels of a run, averaged over the runs that have kernels; None where none has.

    A gap is time between the first start and the last end of a run's kernels in which none of them runs, on whichever
    stream. The time between two runs is no gap: the host waits for each run.

    Args:
        kernels: the kernels of all runs.
        began: when each run began, in ascending order. A kernel belongs to the last run that began before it.
    """
    of_run: Mapping[int, list[Interval]] = defaultdict(list)
    for each in kernels:
        # Clocks of host and device are brought together with an error: the first kernel may seem to begin too early.
        of_run[max(bisect_right(began, each.start), 1)].append(each)
    runs = [_union(each) for each in of_run.values()]
    if not runs:
        return None
    span, covered = (sum(getattr(each, name) for each in runs) / 1e3 / len(runs) for name in ("span", "covered"))
    return Gaps(ms=span - covered, span_ms=span)


def _union(kernels: Sequence[Interval]) -> _Union:
    covered, end = 0.0, float("-inf")
    ordered = sorted(kernels, key=lambda kernel: kernel.start)
    for each in ordered:
        covered += max(each.end - max(each.start, end), 0.0)
        end = max(end, each.end)
    return _Union(covered, end - ordered[0].start)
