"""Executors: each runs a decoder on a batch of rows, under one contract."""

from harness.engine.executors.base import Batch, Executor
from harness.engine.executors.eager import EagerExecutor

__all__ = ["Batch", "EagerExecutor", "Executor"]
