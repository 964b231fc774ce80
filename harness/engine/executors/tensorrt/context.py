"""An engine's execution context, every call of which is checked: what it refuses is an error that names the call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from harness.engine.aot.signature import VELOCITY
from harness.engine.errors import ExecutorError
from harness.engine.executors.tensorrt.buffers import Buffers

T = TypeVar("T")


class Profiled(NamedTuple):
    """How a context is profiled.

    Attributes:
        profiler: TensorRT's, or None.
        emits: whether every launch reports to it by itself, and waits for the GPU to do so.
    """

    profiler: Any
    emits: bool


class Context:
    """Binds buffers to a context and launches it. After any failure, the next run binds everything anew.

    Args:
        context: an `IExecutionContext`.
    """

    def __init__(self, context: Any) -> None:
        """See the class."""
        self._context = context
        self._bound: Buffers | None = None

    def bind(self, buffers: Buffers) -> None:
        """Tell the context the shape of every input and the address of every tensor, unless it has them.

        Raises:
            ExecutorError: it refuses one, lacks one, or infers another output than the buffer is for.
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
            raise ExecutorError(f"TensorRT's infer_shapes() lacks {', '.join(missing)}")
        self._check_output(tuple(buffers.output.shape))
        self._bound = buffers

    def execute(self, handle: int) -> None:
        """Launch a run on what is bound.

        Args:
            handle: the raw CUDA stream.

        Raises:
            ExecutorError: the context refuses.
        """
        # What a failed launch leaves behind nobody says: until one has succeeded, nothing counts as bound.
        bound, self._bound = self._bound, None
        _agreed(f"execute_async_v3({handle:#x})", partial(self._context.execute_async_v3, handle))
        self._bound = bound

    def forget(self) -> None:
        """Take nothing as bound, so that the next run binds everything."""
        self._bound = None

    def profiled(self, how: Profiled) -> Profiled:
        """Profile it so from the next launch on, and return how it was before.

        Raises:
            ExecutorError: the context refuses.
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
        """Make the context tell its profiler the times of the last launch, which is done.

        Raises:
            ExecutorError: it refuses.
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
        raise ExecutorError(f"TensorRT refused {call}: it returned {answer}; its log may say why")


def _made(call: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except Exception as error:
        raise ExecutorError(f"TensorRT's {call} raised {error!r}") from error
