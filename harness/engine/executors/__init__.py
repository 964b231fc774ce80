"""Executors: each runs a decoder on a batch of rows, under one contract."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.engine.executors.base import Batch, Executor, ExecutorStream
from harness.engine.executors.cuda_graph import CudaGraphExecutor, GraphStats
from harness.engine.executors.eager import EagerExecutor
from harness.engine.executors.shapes import PreparesShapes, Shape
from harness.engine.executors.static import StaticExecutor
from harness.engine.executors.stream import CudaStream

if TYPE_CHECKING:
    from harness.engine.executors.onnx import OnnxExecutor
    from harness.engine.executors.tensorrt.executor import TensorRTExecutor

__all__ = [
    "Batch",
    "CudaGraphExecutor",
    "CudaStream",
    "EagerExecutor",
    "Executor",
    "ExecutorStream",
    "GraphStats",
    "OnnxExecutor",
    "PreparesShapes",
    "Shape",
    "StaticExecutor",
    "TensorRTExecutor",
]

_AHEAD_OF_TIME = {"OnnxExecutor": "onnx", "TensorRTExecutor": "tensorrt"}


def __getattr__(name: str) -> Any:
    """Import `OnnxExecutor` or `TensorRTExecutor` on first use, because both modules import this package."""
    if name in _AHEAD_OF_TIME:
        return getattr(import_module(f"{__name__}.{_AHEAD_OF_TIME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
