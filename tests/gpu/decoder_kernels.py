"""Kernels of a recorded decoder run by category, and the gaps between them, from a profile of torch."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

CATEGORIES: tuple[tuple[str, str], ...] = (
    ("copy", r"memcpy|memset"),
    ("attention", r"flash|fmha|sdpa|flex_attention|attention|softmax"),
    ("product", r"gemm|nvjet|cutlass|cublas|splitk|xmma|triton_tem|convolve|implicit_con|gemv"),
    ("norm", r"triton_(?:per|red)_|reduce_kernel"),
    ("elementwise", r"triton_poi_|elementwise|cat_array|index|arange|fill|copy"),
)
"""Categories with a pattern of their kernels' names, in lower case; the first that matches counts.

A batched product that is a part of attention counts as a product: its name does not say more.
"""


class Kernel(NamedTuple):
    """A kernel that ran, with its start and end in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Busy:
    """Where a run's time goes.

    Attributes:
        ms: milliseconds of a run by category; `gap` is the time between kernels, `other` has no category.
        launches: number of kernels of a run by category.
        slowest: names of kernels with the most time, with their milliseconds and number in a run.
    """

    ms: dict[str, float]
    launches: dict[str, float]
    slowest: list[tuple[str, float, float]] = field(default_factory=list)


def category(name: str) -> str:
    """The category of a kernel by its name; `other` where no pattern matches."""
    return next((each for each, pattern in CATEGORIES if re.search(pattern, name.lower())), "other")


def busy(kernels: Sequence[Kernel], runs: int, shown: int = 24) -> Busy:
    """Sum up the kernels of `runs` runs, one after the other."""
    ms: dict[str, float] = defaultdict(float)
    launches: Counter[str] = Counter()
    by_name: dict[str, list[float]] = defaultdict(list)
    end = None
    for each in sorted(kernels, key=lambda kernel: kernel.start):
        kind = category(each.name)
        ms[kind] += (each.end - each.start) / 1e3 / runs
        launches[kind] += 1
        by_name[each.name].append(each.end - each.start)
        if end is not None:
            ms["gap"] += max(each.start - end, 0.0) / 1e3 / runs
        end = each.end if end is None else max(end, each.end)
    slowest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:shown]
    return Busy(
        dict(ms),
        {kind: count / runs for kind, count in launches.items()},
        [(name[:120], sum(times) / 1e3 / runs, len(times) / runs) for name, times in slowest],
    )


def profiled(replay: Callable[[], object], runs: int = 4) -> Busy:
    """Profile some replays of a recorded run."""
    replay()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as found:
        for _ in range(runs):
            replay()
        torch.cuda.synchronize()
    return busy(on_device(found.events()), runs)


def on_device(events: Any) -> list[Kernel]:
    """The events of a profile that are kernels, copies or fills on a GPU."""
    return [
        Kernel(each.name, each.time_range.start, each.time_range.end)
        for each in events
        if each.device_type == DeviceType.CUDA and not getattr(each, "is_user_annotation", False)
    ]
