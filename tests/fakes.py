"""Small stand-ins that the tests share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness.engine.executors import Batch, EagerExecutor


class DeferredStream:
    """A stream on the CPU: what is launched runs no sooner than somebody waits for it, as late as a GPU ever could.

    `log` says what was called: `launch`, `join`, `wait`.
    """

    def __init__(self) -> None:
        self.pending: list[Callable[[], None]] = []
        self.log: list[str] = []

    def launch(self, work: Callable[[], None]) -> None:
        self.log.append("launch")
        self.pending.append(work)

    def join(self) -> None:
        self.log.append("join")
        self._run()

    def wait(self) -> None:
        self.log.append("wait")
        self._run()

    def _run(self) -> None:
        while self.pending:
            self.pending.pop(0)()


class Counting:
    """An executor that counts the runs and rows of another one, whose stream it shares."""

    def __init__(self, inner: EagerExecutor) -> None:
        self.inner, self.max_rows, self.takes_mask = inner, inner.max_rows, inner.takes_mask
        self.stream = getattr(inner, "stream", None)
        self.rows: list[int] = []

    def run(self, batch: Batch) -> Tensor:
        self.rows.append(batch.rows)
        return self.inner.run(batch)

    def close(self) -> None:
        self.inner.close()
