"""The machine behind the TensorRT executor: a TensorRT that loads plans, GPU memory and a CUDA stream.

A plan is code that TensorRT executes. Load only plans that you trust.
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
    """An `ExecutorStream` with a handle for CUDA's own interfaces."""

    @property
    def handle(self) -> int:
        """The `cudaStream_t` as an integer; 0 is the legacy default stream."""
        ...


class Runtime(Protocol):
    """The interface of a machine that runs plans. `CudaRuntime` implements it; tests use a fake.

    Attributes:
        device: the device of the buffers.
    """

    device: torch.device

    def binding(self, flavour: str) -> Binding:
        """The installed TensorRT of a flavour; see `here.binding_for`."""
        ...

    def here(self, found: Binding) -> Here:
        """The environment of this machine, to compare with a plan's metadata."""
        ...

    def engine(self, data: bytes, found: Binding) -> Any:
        """The `ICudaEngine` of a plan's bytes; see `engine_from`."""
        ...

    def context(self, engine: Any, found: Binding) -> Any:
        """A new `IExecutionContext` of an `ICudaEngine`; see `context_of`."""
        ...

    def stream(self) -> RawStream:
        """A new CUDA stream."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new uninitialised buffer on `device`; see `aligned`."""
        ...


class CudaRuntime:
    """The installed TensorRT on a GPU.

    Args:
        device: a CUDA device; `cuda` without an index is torch's current GPU.

    Attributes:
        device: the device with its index.

    Raises:
        InvalidInput: `device` is no CUDA device.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        self.device = torch.device(device)
        if self.device.type != "cuda":
            raise InvalidInput("device", str(device), "a CUDA device")
        if str(self.device) == "cuda" and torch.cuda.is_available():
            self.device = torch.device("cuda", torch.cuda.current_device())

    def binding(self, flavour: str) -> Binding:
        """Import the TensorRT of a flavour; see `here.binding_for`."""
        return machine.binding_for(flavour)

    def here(self, found: Binding) -> Here:
        """The installed TensorRT, the GPU and its driver; see `here.here`."""
        return machine.here(found, self.device)

    def engine(self, data: bytes, found: Binding) -> Any:
        """Load a plan onto the device; see `engine_from`."""
        with self._current():
            return engine_from(data, found)

    def context(self, engine: Any, found: Binding) -> Any:
        """Make an execution context on the device; see `context_of`."""
        with self._current():
            return context_of(engine, found)

    def stream(self) -> CudaStream:
        """A new stream of the device."""
        return CudaStream(self.device)

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new aligned buffer on the device; see `aligned`."""
        return aligned(shape, dtype, self.device)

    @contextmanager
    def _current(self) -> Iterator[None]:
        # TensorRT loads onto CUDA's current device.
        with torch.cuda.device(self.device):
            yield


def engine_from(data: bytes, found: Binding) -> Any:
    """Load a plan and return its `ICudaEngine`.

    Polygraphy loads the plan, because TensorRT allows one logger per process and Polygraphy has it.

    Args:
        data: the bytes of the plan.
        found: the TensorRT that loads the plan.

    Raises:
        PackageMissing: Polygraphy is not installed.
        EngineError: TensorRT cannot load the plan here: no driver, too little memory, or a plan of another TensorRT.
    """
    use_polygraphy(found)
    loader = import_module("polygraphy.backend.trt")
    refused = import_module("polygraphy.exception").PolygraphyException
    try:
        engine = loader.engine_from_bytes(data)
    except (refused, RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"TensorRT cannot load the plan here ({error}): the reason is in TensorRT's log") from error
    if engine is None:
        raise EngineError("TensorRT cannot load the plan here: the reason is in TensorRT's log")
    return engine


def information_of(engine: Any, found: Binding) -> str:
    """The layers of a loaded plan as JSON, from TensorRT's engine inspector.

    Args:
        engine: an `ICudaEngine`.
        found: the TensorRT that loaded `engine`.
    """
    inspector = engine.create_engine_inspector()
    formats = found.module.LayerInformationFormat
    return str(inspector.get_engine_information(formats.JSON))


def context_of(engine: Any, found: Binding) -> Any:
    """A new execution context of a loaded plan.

    TensorRT-RTX compiles special kernels for each new shape. By default the kernels are compiled in the background,
    while the first runs use general kernels, so the bits of the output would change some runs later. The strategy
    `EAGER` makes the first run of a shape wait for the kernels.

    Args:
        engine: an `ICudaEngine`.
        found: the TensorRT that loaded `engine`.

    Raises:
        EngineError: TensorRT made no context, often because of too little GPU memory.
    """
    if found.flavour is Flavour.RTX:
        config = engine.create_runtime_config()
        strategies = found.module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise EngineError("TensorRT made no execution context (often: too little GPU memory); see TensorRT's log")
    return context
