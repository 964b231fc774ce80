"""What a steady tick costs beside its bare decoder: which windows are compared, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, groupby
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.errors import ExecutorError, InvalidInput
from harness.engine.executors import Batch, CudaGraphExecutor, GraphStats
from harness.rails.bench import steady as module
from harness.rails.bench.clocks import HostClock
from harness.rails.bench.steady import GROUPS, LEAD, Steady, check, period, steady
from harness.rails.bench.throughput import Driver, Load
from harness.registry import ExecutorKind
from tests.fakes import StillClock

SMALL = Load(decoder="affine", executor="cuda_graph", duration=0.64, ticks=8, warmup=8)
SLOW = 1000.0
"""Milliseconds of what must not be measured."""

QUANTILES = {4: 2.365, 6: 2.201, 8: 2.131, 12: 2.069}
"""By groups: the 97.5 % quantile of Student's distribution with one degree of freedom less than pairs, from a table."""


class Replays(CudaGraphExecutor):
    """A round of replays takes as long as the driver says."""

    def __init__(self, driver: Fake) -> None:
        self._driver = driver

    def bare(self, batches: Sequence[Batch]) -> Callable[[int], None]:
        self._driver.log.append(f"bare of {', '.join(map(str, batches))}")

        def launch(rounds: int) -> None:
            for _ in range(rounds):
                self._driver.spend("replay")

        return launch


class Fake:
    """In place of a driver. `log` says what was done, in order.

    The first ticks or replays of a window take far too long, and so does a wait for the device.

    Args:
        clock: passes as the ticks and replays say.
        windows: milliseconds of one tick or replay, for each window.
        later: of each tick after the windows, again and again: its milliseconds, how many requests it admits, and how
            many it finishes.
        load: changes of the load.
    """

    def __init__(
        self,
        clock: StillClock,
        windows: Sequence[float],
        later: Sequence[tuple[float, int, int]] = ((1.0, 1, 1),),
        **load: Any,
    ) -> None:
        self.load = replace(SMALL, **load)
        self.tap = SimpleNamespace(inner=Replays(self), batches=["first"])
        self.stream = SimpleNamespace(pipeline=self)
        self.on_gpu = False
        self.log: list[str] = []
        self.events: list[str] = []
        self.calls: Callable[[int], list[str]] = lambda _tick: []
        """The names that a profiler would see of a tick."""
        self._clock, self._windows, self._later = clock, list(windows), cycle(later)
        self._window, self._done = -1, 0
        self._stats = SimpleNamespace(admitted=0, finished=0)

    def stock(self, ticks: int) -> None:
        self.log.append(f"stock {ticks}")
        self._window, self._done = self._window + 1, 0

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self._clock.sleep(SLOW / 1e3)

    def tick(self) -> None:
        self.tap.batches = ["of the last tick", "its second run"]
        self.events += self.calls(self._done)
        self.spend("tick")

    def spend(self, what: str) -> None:
        self.log.append(what)
        ms = SLOW
        if 0 <= self._window < len(self._windows):
            ms = SLOW if self._done < LEAD else self._windows[self._window]
        elif self._window >= 0:
            ms, admitted, finished = next(self._later)
            counts = self._stats.admitted + admitted, self._stats.finished + finished
            self._stats = SimpleNamespace(admitted=counts[0], finished=counts[1])
        self._done += 1
        self._clock.sleep(ms / 1e3)

    def stats(self) -> Any:
        return self._stats


def measured(driver: Any, groups: int = 4, **options: Any) -> Steady:
    return steady(driver, groups, **options)


def windows(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Milliseconds of the windows, in the order A B B A, of pairs of a tick's and a replay's."""
    found: list[float] = []
    for (a, b), (last_a, last_b) in zip(pairs[::2], pairs[1::2], strict=True):
        found += [a, b, last_b, last_a]
    return found


# Windows.


def test_windows_come_as_a_b_b_a_and_each_begins_in_full_swing(still_clock: StillClock) -> None:
    driver = Fake(still_clock, [1.0] * 16)
    seen: list[str] = []
    measured(driver, advance=seen.append)
    a = ["stock 12", "synchronize", *["tick"] * 12]
    b = ["stock 12", "synchronize", *["replay"] * 12]
    assert driver.log[:2] == ["tick", "bare of of the last tick, its second run"], "of the tick before, not of others"
    assert driver.log[2 : 2 + 4 * 56] == [*a, *b, *b, *a] * 4
    assert LEAD == 4
    assert seen == ["windows"] * 16


def test_a_pair_is_a_window_of_ticks_and_the_window_of_replays_beside_it(still_clock: StillClock) -> None:
    told = [(10.0 + n, 1.0 + n / 4) for n in range(8)]
    found = measured(Fake(still_clock, windows(told)))
    assert found.pairs == pytest.approx([a / b for a, b in told])
    assert found.tick_ms == pytest.approx(fmean(a for a, _b in told))
    assert found.bare_ms == pytest.approx(fmean(b for _a, b in told))
    assert found.ratio == pytest.approx(fmean(a / b for a, b in told))


@pytest.mark.parametrize("groups", QUANTILES)
def test_the_interval_is_student_s_of_the_mean_of_the_pairs(still_clock: StillClock, groups: int) -> None:
    found = measured(Fake(still_clock, windows([(2.0, 2.0), (2.4, 2.0)] * groups)), groups)
    # Pairs of 1.0 and 1.2 in turn: of n pairs the standard deviation is 0.1 * sqrt(n / (n - 1)).
    half = QUANTILES[groups] * 0.1 / (2 * groups - 1) ** 0.5
    assert [found.low, found.ratio, found.high] == pytest.approx([1.1 - half, 1.1, 1.1 + half])


def test_equal_pairs_leave_no_doubt(still_clock: StillClock) -> None:
    found = measured(Fake(still_clock, windows([(3.0, 2.0), (1.5, 1.0)] * 4)))
    assert [found.low, found.ratio, found.high] == pytest.approx([1.5] * 3)


def test_six_groups_are_measured_where_no_number_is_named(still_clock: StillClock) -> None:
    driver: Any = Fake(still_clock, [1.0] * 24)
    assert len(steady(driver).pairs) == 2 * GROUPS == 12


@pytest.mark.parametrize(("steps", "depth", "apart", "ticks"), [
    (8, 1, 8, 8),
    (8, 2, 4, 8),
    (8, 4, 2, 8),
    (8, 8, 1, 8),
    (4, 8, 1, 4),
    (8, 3, 2, 8),
    (9, 4, 2, 18),
    (10, 3, 3, 30),
])  # fmt: skip
def test_a_window_holds_whole_requests_and_whole_periods(
    still_clock: StillClock, steps: int, depth: int, apart: int, ticks: int
) -> None:
    driver = Fake(still_clock, [1.0] * 16, steps=steps, depth=depth, warmup=steps)
    assert period(driver) == apart  # type: ignore[arg-type]
    measured(driver)
    lengths = [len(list(same)) for what, same in groupby(driver.log[2:]) if what in ("tick", "replay")]
    assert lengths[:16] == [LEAD + ticks] * 16


# The host's time.


def test_the_host_s_time_is_that_of_ticks_alone_on_an_idle_device(still_clock: StillClock) -> None:
    later = [(1.0, 0, 0), (2.0, 1, 0), (4.0, 0, 1), (9.0, 1, 1)]
    driver = Fake(still_clock, [7.0] * 16, later)
    found = measured(driver)
    assert found.host_ms == pytest.approx(4.0)
    assert found.host_admitting_ms == pytest.approx(5.0), "of ticks that admit or finish"
    assert driver.log[-33:] == ["stock 16", *["synchronize", "tick"] * 16]


# Launches.


class Profiled:
    """In place of torch's profiler: sees what the driver's ticks call inside the block."""

    def __init__(self, driver: Fake) -> None:
        self._driver = driver
        self.options: list[dict[str, Any]] = []

    @contextmanager
    def profile(self, **options: Any) -> Iterator[Profiled]:
        self.options.append(options)
        before = len(self._driver.events)
        yield self
        self._seen = self._driver.events[before:]

    def events(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self._seen]


def launches(monkeypatch: pytest.MonkeyPatch, clock: StillClock, calls: Callable[[int], list[str]]) -> Steady:
    driver = Fake(clock, [1.0] * 16)
    driver.on_gpu, driver.calls = True, calls
    profiled = Profiled(driver)
    monkeypatch.setattr(module, "EventClock", HostClock)
    monkeypatch.setattr(module, "profile", profiled.profile)
    found = measured(driver)
    assert driver.log[-11:] == ["stock 8", "synchronize", *["tick"] * 8, "synchronize"]
    assert len(profiled.options) == 1
    return found


def test_launches_are_counted_a_tick_over_whole_periods(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    def calls(tick: int) -> list[str]:
        return ["cudaLaunchKernel", "cudaLaunchKernel", *(["cudaMemcpyAsync"] if tick % 2 else [])]

    found = launches(monkeypatch, still_clock, calls)
    assert found.by_call == {"cudaLaunchKernel": 2.0, "cudaMemcpyAsync": 0.5}
    assert found.launches == 2.5


@pytest.mark.parametrize("name", [
    "cudaLaunchKernel",
    "cudaLaunchKernelExC_v11060",
    "cudaLaunchKernel_v7000",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
    "cudaGraphLaunch",
    "cudaGraphLaunch_v10000",
])  # fmt: skip
def test_a_call_that_launches_something_counts_whatever_its_version(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock, name: str
) -> None:
    assert launches(monkeypatch, still_clock, lambda _tick: [name]).by_call == {name: 1.0}


@pytest.mark.parametrize("name", [
    "cudaDeviceSynchronize",
    "cudaEventRecord",
    "cudaStreamWaitEvent",
    "cudaStreamIsCapturing",
    "cudaMalloc",
    "aten::copy_",
    "Memcpy DtoD (Device -> Device)",
    "Memset (Device)",
    "void at::native::vectorized_elementwise_kernel",
    "Activity Buffer Request",
])  # fmt: skip
def test_what_launches_nothing_and_what_runs_on_the_device_itself_does_not_count(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock, name: str
) -> None:
    found = launches(monkeypatch, still_clock, lambda _tick: [name])
    assert (found.by_call, found.launches) == ({}, 0)


def test_on_a_cpu_there_are_no_launches(monkeypatch: pytest.MonkeyPatch, still_clock: StillClock) -> None:
    driver = Fake(still_clock, [1.0] * 16)
    driver.calls = lambda _tick: ["cudaLaunchKernel"]
    monkeypatch.setattr(module, "profile", None)
    found = measured(driver)
    assert (found.launches, found.by_call) == (None, {})


# What is refused.


@pytest.mark.parametrize("kind", ["eager", "static"])
def test_an_executor_without_recorded_runs_is_refused(kind: str) -> None:
    driver = Driver(replace(SMALL, executor=kind))
    with driver.session, pytest.raises(InvalidInput) as refused:
        steady(driver)
    said = f"executor: got {kind}, expected cuda_graph or compiled_graph, whose runs can be replayed"
    assert str(refused.value) == said
    assert driver.submitted == 0, "before anything runs"


@pytest.mark.parametrize("kind", ExecutorKind)
def test_a_load_can_be_measured_where_its_executor_has_recorded_runs(kind: ExecutorKind) -> None:
    for name in (kind, str(kind)):
        if kind in (ExecutorKind.CUDA_GRAPH, ExecutorKind.COMPILED_GRAPH):
            check(replace(SMALL, executor=name))
            continue
        with pytest.raises(InvalidInput, match=f"executor: got {kind}, expected cuda_graph or compiled_graph"):
            check(replace(SMALL, executor=name))


@pytest.mark.parametrize("cfg", [None, "full", "self"])
def test_guidance_whose_ticks_have_other_rows_than_each_other_cannot_be_measured(cfg: str | None) -> None:
    load = replace(SMALL, executor="cuda_graph")
    check(replace(load, cfg=cfg))
    with pytest.raises(InvalidInput, match="cfg: got initialize, expected a mode with the same rows at every tick"):
        check(replace(load, cfg="initialize"))


@pytest.mark.parametrize("groups", [0, 1, 3, 5, 24])
def test_another_number_of_groups_is_refused(still_clock: StillClock, groups: int) -> None:
    driver = Fake(still_clock, [])
    with pytest.raises(InvalidInput, match=f"groups: got {groups}, expected 4, 6, 8 or 12"):
        measured(driver, groups)
    assert driver.log == []


# A ring.


@pytest.mark.parametrize("more", [
    {},
    {"fresh": True},
    {"cfg": "full", "fresh": True},
    {"cfg": "initialize", "depth": 2},
])  # fmt: skip
def test_a_ring_of_recorded_runs_is_measured_and_nothing_is_recorded_meanwhile(more: dict[str, Any]) -> None:
    driver = Driver(replace(SMALL, **more))
    executor = driver.tap.inner
    assert isinstance(executor, CudaGraphExecutor)
    with driver.session:
        driver.warm_up()
        before, ticks = executor.stats(), driver.stream.pipeline.stats().ticks
        found = steady(driver, 4)
        after = executor.stats()
        done = driver.stream.pipeline.stats().ticks - ticks
    assert len(found.pairs) == 8 and found.ratio == fmean(found.pairs)
    assert found.low < found.ratio < found.high
    assert min(found.tick_ms, found.bare_ms, found.host_ms, found.host_admitting_ms) > 0
    assert (found.launches, found.by_call) == (None, {})
    assert after.recorded == before.recorded == len(executor.row_buckets)
    # One tick, eight windows of ticks and the host's; the bare decoder's run, and its eight windows.
    assert done == 1 + 8 * 12 + 16
    assert after.runs - before.runs == done + 1 + 8 * 12
    assert after.replays == after.runs


def test_a_ring_is_made_warmed_up_measured_in_six_groups_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    closed: list[CudaGraphExecutor] = []
    plain = CudaGraphExecutor.close
    monkeypatch.setattr(CudaGraphExecutor, "close", lambda self: (closed.append(self), plain(self))[1])
    found = module.measured(SMALL, seen.append)
    assert len(found.pairs) == 2 * GROUPS
    assert seen == ["warm-up"] * SMALL.warmup + ["windows"] * 4 * GROUPS
    assert len(closed) == 1


@pytest.mark.parametrize("replays", [7, 9, None])
def test_a_ring_whose_graphs_did_not_run_is_no_measurement(
    replays: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = GraphStats(4, 4, 0, 8, 8, 16, 8, 1000)
    module.check_replays(counted)
    wrong = replace(counted, replays=replays)
    with pytest.raises(ExecutorError, match=f"8 runs were launched, {replays} replays ran"):
        module.check_replays(wrong)
    load = Load(decoder="affine", executor="cuda_graph", duration=0.4, depth=2, steps=2, warmup=2, ticks=2)
    monkeypatch.setattr(module, "steady", lambda driver, advance: "found")
    assert module.measured(load) == "found"
    monkeypatch.setattr(CudaGraphExecutor, "stats", lambda self: wrong)
    with pytest.raises(ExecutorError, match="replays ran"):
        module.measured(load)
