"""Executors: each runs a decoder on a batch of rows, under one contract."""

from harness.engine.executors.base import Batch, Executor, ExecutorStream
from harness.engine.executors.eager import EagerExecutor
from harness.engine.executors.static import StaticExecutor
from harness.engine.executors.stream import CudaStream

__all__ = ["Batch", "CudaStream", "EagerExecutor", "Executor", "ExecutorStream", "StaticExecutor"]
