"""ONNX Runtime sessions on the CPU, all with the same options, so that every command measures the same program."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.engine.aot import sidecar
from harness.engine.errors import ExportRefused, InvalidInput, PackageMissing
from harness.files import FileRefused, reading
from harness.files.refused import FileMissing

REASSOCIATING = ("DivMulFusion",)
"""Disabled optimizers: `DivMulFusion` rewrites `x * (1 / y)` as `x / y`, which rounds differently."""

DTYPES: Mapping[str, tuple[torch.dtype, type[np.generic]]] = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(float16)": (torch.float16, np.float16),
    "tensor(double)": (torch.float64, np.float64),
    "tensor(bool)": (torch.bool, np.bool_),
}
"""The dtypes of ONNX Runtime's CPU provider, by ONNX Runtime's names; bfloat16 has no kernels there."""

_REFUSALS = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel",
             "NoSuchFile", "NotImplemented", "RuntimeException")  # fmt: skip


def session(path: Path, threads: int = 1, profile: Path | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, with deterministic kernels and without logging.

    Args:
        path: the exported file.
        threads: the number of threads that one operator may use.
        profile: the prefix of the path of the profile that the session writes; None writes no profile.

    Raises:
        PackageMissing: ONNX Runtime is not installed.
        InvalidInput: there is no such file.
        ExportRefused: ONNX Runtime cannot load the file: the file is truncated, or has a dtype without CPU kernels.
    """
    if find_spec("onnxruntime") is None:
        raise PackageMissing("onnxruntime", "onnx")
    runtime = import_module("onnxruntime")
    try:
        reading.check(path)
    except FileMissing as error:
        raise InvalidInput("path", str(path), "an existing ONNX file") from error
    except FileRefused as error:
        raise InvalidInput("path", str(path), f"an ONNX file ({error.why})") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # The exception holds the message that ONNX Runtime would log.
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(REASSOCIATING)
        )
    except refusals() as error:
        hint = "; a plan is run by TensorRT" if sidecar.path(path).is_file() else ""
        raise ExportRefused(f"{path}: ONNX Runtime cannot run it on a CPU: {error}{hint}") from error


def computes_in(dtype: torch.dtype) -> bool:
    """True for a dtype that ONNX Runtime has on a CPU."""
    return any(dtype is known for known, _ in DTYPES.values())


def check_dtype(name: str) -> None:
    """Refuse a dtype, by its name in torch, that ONNX Runtime does not have on a CPU.

    Raises:
        InvalidInput: it is one.
    """
    if not computes_in(getattr(torch, name)):
        raise InvalidInput("dtype", name, f"float32 or float16: ONNX Runtime has no {name} on a CPU")


def refusals() -> tuple[type[Exception], ...]:
    """The exception classes of ONNX Runtime, which have no common base class."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return (RuntimeError, *(getattr(state, name) for name in _REFUSALS))
