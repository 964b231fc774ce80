"""The stream that computes as late as it may, for tests on a CPU; it imports nothing, so that the plugin can use it."""

from __future__ import annotations

from collections.abc import Callable


class DeferredStream:
    """Model of an executor's own stream on a CPU: a run is computed only when a caller waits for the stream.

    A missing wait therefore always shows: the caller reads the buffer of the run before. On a GPU a missing wait is a
    race, which shows now and then.

    Attributes:
        pending: number of launches that no caller has waited for.
    """

    def __init__(self) -> None:
        self._pending: list[Callable[[], None]] = []

    @property
    def pending(self) -> int:
        """Number of launches that no caller has waited for."""
        return len(self._pending)

    def launch(self, work: Callable[[], None]) -> None:
        """See `ExecutorStream.launch`."""
        self._pending.append(work)

    def join(self) -> None:
        """See `ExecutorStream.join`."""
        self.wait()

    def wait(self) -> None:
        """See `ExecutorStream.wait`."""
        while self._pending:
            self._pending.pop(0)()
