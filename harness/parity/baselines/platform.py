"""Where a result was computed: everything that may change its bits, as plain strings that a manifest can keep."""

from __future__ import annotations

import os
import platform as host
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from harness import checkout
from harness.engine.aot.here import driver
from harness.engine.errors import InvalidInput
from harness.files import reading
from harness.files.refused import FileMissing
from harness.files.schema import Folder, fit
from harness.parity.baselines import flags, kernels_digest

ROOT = checkout.root()
"""The checkout: the folder that holds `pyproject.toml` and `captures/`."""

GPU_ENVIRONMENT = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_BLAS_PREFER_CUBLASLT",
)  # fmt: skip
"""Variables that make the libraries of a GPU choose other kernels; those of a CPU are in `flags`."""

_REFERENCE = "reference-platform"
_CPU_FIELDS = {"vendor": "vendor_id", "family": "cpu family", "model": "model", "name": "model name"}


class NoReferencePlatform(LookupError):
    """`pyproject.toml` is not there, or names no reference platform."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch's operators on so many threads inside, and give the process its thread count back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """One thread, which captures are made and checked with.

    How many threads share a reduction decides the order of its additions.
    """
    return threads(1)


def fingerprint() -> dict[str, str]:
    """Facts, by name, that decide the bits of a float32 run with the eager executor in this process.

    Flags are read as they are now, so take it under the same `one_thread` as the run that it describes.
    """
    cpu = _cpu()
    return {
        "machine": host.machine(),
        **{f"cpu_{name}": cpu.get(field, "") for name, field in _CPU_FIELDS.items()},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": _library(r"Math Kernel Library Version (\S+)", torch.backends.mkl.is_available()),  # type: ignore[no-untyped-call]
        "mkldnn": _library(r"MKL-DNN (v\S+)", torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
        "torch": str(torch.__version__),
        "executor": "eager",
        "dtype": "float32",
        **_flags(),
    }


def gpu_fingerprint(device: torch.device | str) -> dict[str, str]:
    """Facts, by name, that decide the bits of a run on a CUDA device, whatever its executor and dtype."""
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {
        "gpu": torch.cuda.get_device_name(device),
        "capability": capability,
        "driver": driver() or "unknown",
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "triton": _version("triton"),
        "kernels": kernels_digest.digest(torch.device(device)),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": str(torch.backends.cudnn.allow_tf32).lower(),
        "reduced_precision": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction).lower(),
        "attention": " ".join(kind for kind, on in _attention().items() if on),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "autocast": str(torch.is_autocast_enabled("cuda")).lower(),
        "environment": " ".join(_chosen(GPU_ENVIRONMENT)),
    }


def of_device(device: str = "cpu") -> dict[str, str]:
    """Facts that decide the bits on `device`, without executor and dtype, of which each subject has its own."""
    if on_gpu(device):
        return gpu_fingerprint(device)
    return {name: value for name, value in fingerprint().items() if name not in ("executor", "dtype")}


def of_captures(device: torch.device | str = "cpu") -> dict[str, str]:
    """The fingerprint of captures: of a float32 run with the eager executor on a device, the CPU or a CUDA device.

    A GPU's fingerprint says nothing of the CPU, which draws noise and weights: the digest of its kernels is of numbers
    that were drawn in the same way.

    Raises:
        InvalidInput: a device of another type.
    """
    if on_gpu(device):
        return {**gpu_fingerprint(device), "executor": "eager", "dtype": "float32"}
    if torch.device(device).type != "cpu":
        raise InvalidInput("device", f"'{device}'", "the CPU or a CUDA device")
    return fingerprint()


def on_gpu(device: torch.device | str) -> bool:
    """Say whether a device is a CUDA device."""
    return torch.device(device).type == "cuda"


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[str, ...]:
    """The fields in which two fingerprints differ, sorted."""
    return tuple(sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key)))


def name(device: torch.device | str = "cpu") -> str:
    """The folder that this platform's captures are kept in, such as `cpu-x86_64-avx2` or `cuda-nvidia-h200`."""
    if on_gpu(device):
        words = f"cuda-{torch.cuda.get_device_name(device)}"
    else:
        words = f"cpu-{host.machine()}-{torch.backends.cpu.get_cpu_capability()}"
    return re.sub(r"[^a-z0-9_]+", "-", words.lower())


def reference_platform(root: Path = ROOT) -> str:
    """The platform that those without captures of their own are compared with, from `[tool.harness]`.

    Raises:
        NoReferencePlatform: there is no `pyproject.toml` in `root`, or it does not say.
        FileRefused: it cannot be read, or the name is not that of a folder.
    """
    project = root / "pyproject.toml"
    try:
        document = reading.toml(project)
    except FileMissing as error:
        raise NoReferencePlatform(f"{project}: missing") from error
    tool = fit(dict[str, Any], document.get("tool", {}), project, ("tool",))
    settings = fit(dict[str, Any], tool.get("harness", {}), project, ("tool", "harness"))
    if _REFERENCE not in settings:
        raise NoReferencePlatform(f"{project}: no {_REFERENCE} in [tool.harness]")
    name: str = fit(Folder, settings[_REFERENCE], project, ("tool", "harness", _REFERENCE))
    return name


def _flags() -> dict[str, str]:
    return {
        "threads": str(torch.get_num_threads()),
        "matmul_precision": flags.matmul_precision(),
        "tf32": _tf32(),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "autocast": str(torch.is_autocast_enabled("cpu")).lower(),
        "default_dtype": str(torch.get_default_dtype()),
        "flush_denormal": str(float(torch.tensor(1e-39, dtype=torch.float32, device="cpu") * 1) == 0.0).lower(),
        "environment": "",
        **flags.unlike_fresh(),
    }


def _tf32() -> str:
    try:
        return str(torch.backends.cudnn.allow_tf32).lower()
    except RuntimeError:  # torch refuses to say where its newer settings were used
        return "mixed"


def _chosen(variables: Sequence[str]) -> list[str]:
    return [f"{variable}={os.environ[variable]}" for variable in variables if os.environ.get(variable)]


def _attention() -> dict[str, bool]:
    """The kernels that attention may choose from."""
    backends = torch.backends.cuda
    return {
        "flash": backends.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        "mem_efficient": backends.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
        "math": backends.math_sdp_enabled(),  # type: ignore[no-untyped-call]
        "cudnn": backends.cudnn_sdp_enabled(),  # type: ignore[no-untyped-call]
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _cpu(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The first processor's fields; elsewhere than on Linux only a model name."""
    if not path.is_file():
        return {"model name": host.processor()}
    first = reading.whole(path).decode(errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _library(pattern: str, available: bool) -> str:
    """The version that torch was built with, `unknown` where it does not say, `none` where it is not there."""
    found = re.search(pattern, torch.__config__.show())
    if not available:
        return "none"
    return found.group(1) if found else "unknown"
