"""What a steady tick costs beside its bare decoder: a ratio with an interval, host time, launches.

The bare decoder is the executor's own recorded run, replayed with the inputs of a tick. Windows of ticks (A) and of
replays (B) alternate as A B B A, so that a slow moment of the machine meets both. Every window begins in full swing:
some ticks or replays run before its first mark, so the GPU does not wait for the host's first launch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import lcm, sqrt
from statistics import fmean, stdev
from typing import Any

from torch.profiler import ProfilerActivity, profile

from harness.engine.errors import ExecutorError, InvalidInput
from harness.engine.executors import CudaGraphExecutor, GraphStats
from harness.engine.guidance_modes import GuidanceMode
from harness.rails.bench.clocks import EventClock, HostClock
from harness.rails.bench.throughput import Advance, Driver, Load, silent
from harness.registry import ExecutorKind

GROUPS = 6
"""Groups of four windows, A B B A, with two pairs each."""

LEAD = 4
"""Ticks or replays before the first mark of a window."""

QUANTILE = {8: 2.365, 12: 2.201, 16: 2.131, 24: 2.069}
"""97.5 % quantile of Student's distribution for the mean of so many pairs."""

RECORDED = "cuda_graph or compiled_graph, whose runs can be replayed"

LAUNCHES = ("LaunchKernel", "LaunchKernelEx", "MemcpyAsync", "MemsetAsync", "GraphLaunch")
"""How the names of calls that launch something on a GPU end, a trailing version or `C` apart."""


@dataclass(frozen=True)
class Steady:
    """Figures of a steady ring.

    Attributes:
        tick_ms: mean of a tick in ms, over all windows.
        bare_ms: mean of the bare decoder in ms, over all windows.
        pairs: tick over bare decoder, for each pair of neighbouring windows.
        ratio: mean of `pairs`.
        low: lower end of its 95 % interval.
        high: upper end.
        host_ms: mean of the host's time for a tick in ms, with a GPU that is idle when the tick begins.
        host_admitting_ms: the same over ticks that admit or finish a request alone.
        launches: kernels, copies, fills and replays a tick, over whole periods; a replay counts one. None on a CPU.
        by_call: the same by the name of the call.
    """

    tick_ms: float
    bare_ms: float
    pairs: tuple[float, ...]
    ratio: float
    low: float
    high: float
    host_ms: float
    host_admitting_ms: float
    launches: float | None
    by_call: dict[str, float]


def steady(driver: Driver, groups: int = GROUPS, advance: Advance = silent) -> Steady:
    """Measure a ring that was warmed up. The bare decoder is that of one tick: let every tick have the same rows.

    Args:
        driver: drives the ring, on an executor of recorded runs.
        groups: groups of four windows: 4, 6, 8 or 12.
        advance: called after every window.

    Raises:
        InvalidInput: an executor without recorded runs, or another number of groups.
    """
    executor = driver.tap.inner
    if not isinstance(executor, CudaGraphExecutor):
        raise InvalidInput("executor", driver.load.executor, RECORDED)
    if 2 * groups not in QUANTILE:
        raise InvalidInput("groups", groups, "4, 6, 8 or 12")
    ticks = lcm(driver.load.steps, period(driver))
    driver.tick()
    replay = executor.bare(driver.tap.batches)

    def ring(times: int) -> None:
        for _ in range(times):
            driver.tick()

    measured: list[tuple[float, float]] = []
    for _ in range(groups):
        first = _window(driver, ring, ticks, advance)
        second, third = (_window(driver, replay, ticks, advance) for _ in range(2))
        measured += [(first, second), (_window(driver, ring, ticks, advance), third)]
    pairs = tuple(tick / bare for tick, bare in measured)
    ratio, half = fmean(pairs), QUANTILE[len(pairs)] * stdev(pairs) / sqrt(len(pairs))
    host, admitting = _host(driver, 2 * ticks)
    calls = _launches(driver, ticks) if driver.on_gpu else None
    return Steady(
        tick_ms=fmean(tick for tick, _bare in measured),
        bare_ms=fmean(bare for _tick, bare in measured),
        pairs=pairs,
        ratio=ratio,
        low=ratio - half,
        high=ratio + half,
        host_ms=host,
        host_admitting_ms=admitting,
        launches=None if calls is None else sum(calls.values()),
        by_call=calls or {},
    )


def check(load: Load) -> None:
    """Check that a load can be measured here.

    Raises:
        InvalidInput: an executor without recorded runs, or guidance whose ticks have different numbers of rows.
    """
    if load.cfg == GuidanceMode.INITIALIZE:
        raise InvalidInput("cfg", load.cfg, "a mode with the same rows at every tick: the bare decoder is that of one")
    if load.executor not in (ExecutorKind.CUDA_GRAPH, ExecutorKind.COMPILED_GRAPH):
        raise InvalidInput("executor", load.executor, RECORDED)


def measured(load: Load, advance: Advance = silent) -> Steady:
    """Make a ring, warm it up and measure it; see `steady`.

    Raises:
        ExecutorError: a run was launched whose graph did not run.
    """
    driver = Driver(load)
    with driver.session:
        driver.warm_up(advance)
        found = steady(driver, advance=advance)
        if isinstance(driver.tap.inner, CudaGraphExecutor):
            check_replays(driver.tap.inner.stats())
        return found


def check_replays(stats: GraphStats) -> None:
    """Check that every run was replayed to its end, by the count that the graphs keep themselves.

    Raises:
        ExecutorError: there were fewer replays, or more.
    """
    if stats.replays != stats.runs:
        raise ExecutorError(f"{stats.runs} runs were launched, {stats.replays} replays ran")


def period(driver: Driver) -> int:
    """Number of ticks after which the ring's slots are at the same steps again."""
    return max(1, driver.load.steps // driver.load.depth)


def _window(driver: Driver, run: Callable[[int], object], times: int, advance: Advance) -> float:
    """Mean ms of one of `times` ticks or replays."""
    driver.stock(LEAD + times)
    driver.synchronize()
    run(LEAD)
    clock = EventClock() if driver.on_gpu else HostClock()
    clock.mark()
    run(times)
    clock.mark()
    (ms,) = clock.between()
    advance("windows")
    return ms / times


def _host(driver: Driver, ticks: int) -> tuple[float, float]:
    """Mean ms of the host for a tick, over all ticks and over those that admit or finish a request."""
    driver.stock(ticks)
    every, admitting = [], []
    for _ in range(ticks):
        before = driver.stream.pipeline.stats()
        driver.synchronize()
        started = time.perf_counter()
        driver.tick()
        every.append(1e3 * (time.perf_counter() - started))
        after = driver.stream.pipeline.stats()
        if (before.admitted, before.finished) != (after.admitted, after.finished):
            admitting.append(every[-1])
    return fmean(every), fmean(admitting)


def _launches(driver: Driver, ticks: int) -> dict[str, float]:
    """Calls a tick that launch something on the GPU, by name."""
    driver.stock(ticks)
    driver.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
        for _ in range(ticks):
            driver.tick()
        driver.synchronize()
    return {name: count / ticks for name, count in sorted(launched(profiled).items())}


def launched(profiled: Any) -> Counter[str]:
    """How often each call was made that launches something on the GPU, by its name, in a profile of torch."""
    names = [str(event.name) for event in profiled.events()]
    return Counter(name for name in names if name.startswith("cu") and _stem(name).endswith(LAUNCHES))


def _stem(name: str) -> str:
    """The name of a call of CUDA without what its version adds: `cudaLaunchKernelExC_v11060`."""
    return name.split("_v")[0].removesuffix("C")
