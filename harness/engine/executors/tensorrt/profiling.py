"""A profiler that tells a Python function the time of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Listener: TypeAlias = Callable[[str, float], None]
"""Called with a layer's name and its time in milliseconds, once a run for every layer that ran."""


class Listening:
    """A TensorRT profiler, and what its listener raised.

    Args:
        module: TensorRT's Python binding.
        listener: told of every layer.

    Attributes:
        profiler: an `IProfiler`, to be kept as long as a context may report to it.
    """

    def __init__(self, module: Any, listener: Listener) -> None:
        """See the class."""
        errors: list[BaseException] = []

        class Profiler(module.IProfiler):  # type: ignore[misc]  # which module is known when it runs
            def __init__(self) -> None:
                module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                try:
                    listener(layer_name, ms)
                except BaseException as error:  # noqa: BLE001 - TensorRT swallows it: kept, and raised after the run
                    errors.append(error)

        self.profiler = Profiler()
        self._errors = errors

    def raise_first(self) -> None:
        """Raise the first thing that the listener raised since the last call, if it raised anything."""
        errors, self._errors[:] = self._errors[:], []
        if errors:
            raise errors[0]
