"""TensorRT's execution context with checked calls: a refused call raises an error that names the call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from harness.engine.aot.signature import VELOCITY
from harness.engine.errors import ExecutorError
from harness.engine.executors.tensorrt.buffers import Buffers

T = TypeVar("T")


class Profiled(NamedTuple):
    """The profiling state of a context.

    Attributes:
        profiler: a TensorRT `IProfiler`, or None.
        emits: the context's `enqueue_emits_profile`: True if every launch waits for the GPU and reports to the
            profiler.
    """

    profiler: Any
    emits: bool


class Context:
    """Binds buffers to an execution context and launches the context. After a failure the next run binds all buffers.

    Args:
        context: an `IExecutionContext`.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._bound: Buffers | None = None

    def bind(self, buffers: Buffers) -> None:
        """Set the shape of every input and the address of every tensor. Does nothing if `buffers` are bound already.

        Raises:
            ExecutorError: the context refuses a call, lacks an input, or infers an output shape other than the
                buffer's.
        """
        if self._bound is buffers:
            return
        self.forget()
        context = self._context
        for name, tensor in buffers.inputs.items():
            shape = tuple(tensor.shape)
            _agreed(f"set_input_shape({name!r}, {shape})", partial(context.set_input_shape, name, shape))
        for name, tensor in (*buffers.inputs.items(), (VELOCITY, buffers.output)):
            address = tensor.data_ptr()
            _agreed(f"set_tensor_address({name!r}, {address:#x})", partial(context.set_tensor_address, name, address))
        missing = _made("infer_shapes()", lambda: list(context.infer_shapes()))
        if missing:
            raise ExecutorError(f"TensorRT's infer_shapes() needs more inputs: {', '.join(missing)}")
        self._check_output(tuple(buffers.output.shape))
        self._bound = buffers

    def execute(self, handle: int) -> None:
        """Launch a run on the bound buffers.

        Args:
            handle: the CUDA stream as an integer.

        Raises:
            ExecutorError: the context refuses the launch.
        """
        # TensorRT does not document the state after a failed launch, so nothing counts as bound then.
        bound, self._bound = self._bound, None
        _agreed(f"execute_async_v3({handle:#x})", partial(self._context.execute_async_v3, handle))
        self._bound = bound

    def forget(self) -> None:
        """Forget the bound buffers, so that the next run binds all buffers."""
        self._bound = None

    def profiled(self, how: Profiled) -> Profiled:
        """Set the profiling state for the next launches, and return the state before.

        Raises:
            ExecutorError: the context refuses the state.
        """
        context = self._context

        def change() -> Profiled:
            before = Profiled(context.profiler, bool(context.enqueue_emits_profile))
            context.enqueue_emits_profile = how.emits
            try:
                context.profiler = how.profiler
            except Exception:
                context.enqueue_emits_profile = before.emits
                raise
            return before

        return _made("profiler", change)

    def report(self) -> None:
        """Make the context report the layer times of the last launch, which must be complete, to its profiler.

        Raises:
            ExecutorError: the context refuses.
        """
        _agreed("report_to_profiler()", self._context.report_to_profiler)

    def _check_output(self, expected: tuple[int, ...]) -> None:
        call = f"get_tensor_shape({VELOCITY!r})"
        inferred = _made(call, lambda: tuple(self._context.get_tensor_shape(VELOCITY)))
        if inferred != expected:
            raise ExecutorError(f"TensorRT's {call} is {inferred}, expected {expected}")


def _agreed(call: str, ask: Callable[[], object]) -> None:
    answer = _made(call, ask)
    if answer is not True:
        raise ExecutorError(f"TensorRT refused {call}: the call returned {answer}; the reason may be in TensorRT's log")


def _made(call: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except Exception as error:
        raise ExecutorError(f"TensorRT's {call} raised {error!r}") from error
