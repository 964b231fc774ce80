"""The names of TensorRT's Python API that the executor uses. A test checks them against the installed binding."""

from __future__ import annotations

from collections.abc import Mapping

API: Mapping[str, tuple[str, ...]] = {
    "ICudaEngine": (
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_shape",
        "get_tensor_profile_shape",
        "create_execution_context",
        "create_engine_inspector",
    ),
    "IExecutionContext": (
        "set_input_shape",
        "set_tensor_address",
        "infer_shapes",
        "get_tensor_shape",
        "execute_async_v3",
        "profiler",
        "enqueue_emits_profile",
        "report_to_profiler",
    ),
    "EngineInspector": ("get_engine_information",),
    "LayerInformationFormat": ("JSON",),
    "IProfiler": ("__init__", "report_layer_time"),
    "DataType": ("name",),
    "TensorIOMode": ("name",),
}
"""Attributes by class. They are the same in TensorRT 10.16, 11 and TensorRT-RTX."""

RTX_API: Mapping[str, tuple[str, ...]] = {
    "ICudaEngine": ("create_runtime_config",),
    "IRuntimeConfig": ("dynamic_shapes_kernel_specialization_strategy",),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
}
"""Attributes, by class, that the executor uses with TensorRT-RTX only."""
