"""A TensorRT profiler that reports the time of every layer to a Python function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Listener: TypeAlias = Callable[[str, float], None]
"""A function that is called with a layer's name and time in milliseconds, once for each layer of each run."""


class Listening:
    """A TensorRT profiler, and the errors that its listener raised.

    Args:
        module: TensorRT's Python binding.
        listener: called for every layer.

    Attributes:
        profiler: an `IProfiler`. Keep the object as long as a context may report to it.
    """

    def __init__(self, module: Any, listener: Listener) -> None:
        errors: list[BaseException] = []

        class Profiler(module.IProfiler):  # type: ignore[misc]  # the base class is known at run time only
            def __init__(self) -> None:
                module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                try:
                    listener(layer_name, ms)
                except BaseException as error:  # noqa: BLE001 - TensorRT swallows errors: raise them after the run
                    errors.append(error)

        self.profiler = Profiler()
        self._errors = errors

    def raise_first(self) -> None:
        """Raise the first error of the listener since the last call, if there is one."""
        errors, self._errors[:] = self._errors[:], []
        if errors:
            raise errors[0]
