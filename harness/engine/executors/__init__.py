"""Executors: each runs a decoder on a batch of rows, under one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.engine.executors.base import Batch, Executor, ExecutorStream
from harness.engine.executors.eager import EagerExecutor
from harness.engine.executors.static import StaticExecutor
from harness.engine.executors.stream import CudaStream

if TYPE_CHECKING:
    from harness.engine.executors.tensorrt import TensorRTExecutor

__all__ = ["Batch", "CudaStream", "EagerExecutor", "Executor", "ExecutorStream", "StaticExecutor", "TensorRTExecutor"]


def __getattr__(name: str) -> Any:
    """Import an executor of ahead-of-time engines on first use."""
    if name == "TensorRTExecutor":
        from harness.engine.executors.tensorrt import TensorRTExecutor  # noqa: PLC0415 - it imports this package

        return TensorRTExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
