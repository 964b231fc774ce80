"""Small stand-ins that the tests share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness.engine.executors import Batch, Executor
from harness.registry import DeferredStream


class StillClock:
    """In place of the module `time`: it moves on when something sleeps, and by `read_s` whenever it is read."""

    def __init__(self, read_s: float = 0.0) -> None:
        self._now, self._read_s = 1000.0, read_s

    def perf_counter(self) -> float:
        self._now += self._read_s
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class LoggedStream(DeferredStream):
    """`log` says what was called: `launch`, `join`, `wait`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def launch(self, work: Callable[[], None]) -> None:
        self.log.append("launch")
        super().launch(work)

    def join(self) -> None:
        self.log.append("join")
        super().wait()

    def wait(self) -> None:
        self.log.append("wait")
        super().wait()


class Counting:
    """An executor that counts the runs and rows of another one, whose stream it shares."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.max_rows, self.takes_mask, self.stream = inner, inner.max_rows, inner.takes_mask, inner.stream
        self.rows: list[int] = []

    def run(self, batch: Batch) -> Tensor:
        self.rows.append(batch.rows)
        return self.inner.run(batch)

    def close(self) -> None:
        self.inner.close()
