"""The executor of TensorRT plans on a GPU."""

from harness.engine.executors.tensorrt.executor import TensorRTExecutor

__all__ = ["TensorRTExecutor"]
