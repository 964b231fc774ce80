"""What the TensorRT executor needs of the machine: a TensorRT that loads plans, a GPU's memory and a stream.

A plan is code: TensorRT runs what it finds in one. Load plans that you trust.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engine.aot import here as machine
from harness.engine.aot.bindings import Binding, Flavour, use_polygraphy
from harness.engine.aot.here import Here
from harness.engine.errors import EngineError, InvalidInput
from harness.engine.executors.base import ExecutorStream
from harness.engine.executors.stream import CudaStream
from harness.engine.executors.tensorrt.buffers import aligned


class RawStream(ExecutorStream, Protocol):
    """An executor's own stream that CUDA's own interfaces can be given."""

    @property
    def handle(self) -> int:
        """The raw stream; 0 is the legacy default stream."""
        ...


class Runtime(Protocol):
    """A machine that runs plans; `CudaRuntime` is the real one.

    Attributes:
        device: where the buffers are.
    """

    device: torch.device

    def binding(self, flavour: str) -> Binding:
        """The installed TensorRT of a flavour; see `here.binding_for`."""
        ...

    def here(self, found: Binding) -> Here:
        """What is here, to compare with what a plan was built for."""
        ...

    def engine(self, data: bytes, found: Binding) -> Any:
        """An `ICudaEngine`; see `engine_from`."""
        ...

    def context(self, engine: Any, found: Binding) -> Any:
        """An `IExecutionContext` of it; see `context_of`."""
        ...

    def stream(self) -> RawStream:
        """A new stream."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new buffer; see `aligned`."""
        ...


class CudaRuntime:
    """The installed TensorRT on a GPU.

    Args:
        device: a CUDA device; one without a number is torch's current one.

    Raises:
        InvalidInput: another device.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        """See the class."""
        self.device = torch.device(device)
        if self.device.type != "cuda":
            raise InvalidInput("device", str(device), "a CUDA device")
        if str(self.device) == "cuda" and torch.cuda.is_available():
            self.device = torch.device("cuda", torch.cuda.current_device())

    def binding(self, flavour: str) -> Binding:
        """See `Runtime.binding`."""
        return machine.binding_for(flavour)

    def here(self, found: Binding) -> Here:
        """See `Runtime.here`."""
        return machine.here(found, self.device)

    def engine(self, data: bytes, found: Binding) -> Any:
        """See `Runtime.engine`."""
        with self._current():
            return engine_from(data, found)

    def context(self, engine: Any, found: Binding) -> Any:
        """See `Runtime.context`."""
        with self._current():
            return context_of(engine, found)

    def stream(self) -> CudaStream:
        """See `Runtime.stream`."""
        return CudaStream(self.device)

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `Runtime.allocate`."""
        return aligned(shape, dtype, self.device)

    @contextmanager
    def _current(self) -> Iterator[None]:
        # TensorRT loads onto CUDA's current device.
        with torch.cuda.device(self.device):
            yield


def engine_from(data: bytes, found: Binding) -> Any:
    """The engine of a plan, through Polygraphy, whose logger is the process's only one.

    Args:
        data: the plan.
        found: the TensorRT that loads it.

    Raises:
        PackageMissing: Polygraphy is not installed.
        EngineError: TensorRT cannot load it here: no driver, no memory, no plan of its own.
    """
    use_polygraphy(found)
    loader = import_module("polygraphy.backend.trt")
    refused = import_module("polygraphy.exception").PolygraphyException
    try:
        engine = loader.engine_from_bytes(data)
    except (refused, RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"TensorRT cannot load the plan here ({error}): its log says why") from error
    if engine is None:
        raise EngineError("TensorRT cannot load the plan here: its log says why")
    return engine


def information_of(engine: Any, found: Binding) -> str:
    """What an engine's inspector says of its layers, as JSON.

    Args:
        engine: an `ICudaEngine`.
        found: the TensorRT that it is of.
    """
    inspector = engine.create_engine_inspector()
    formats = found.module.LayerInformationFormat
    return str(inspector.get_engine_information(formats.JSON))


def context_of(engine: Any, found: Binding) -> Any:
    """A new execution context of an engine.

    TensorRT-RTX compiles kernels for each shape that it meets. By default it does so behind the runs, which use general
    kernels until then: the same input would have other bits some runs later. Here a shape's first run waits for them.

    Args:
        engine: an `ICudaEngine`.
        found: the TensorRT that it is of.

    Raises:
        EngineError: there is none, mostly for want of memory.
    """
    if found.flavour is Flavour.RTX:
        config = engine.create_runtime_config()
        strategies = found.module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise EngineError("TensorRT gave no execution context: its log says why, and mostly it is GPU memory")
    return context
