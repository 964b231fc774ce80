"""Where a result was computed: everything that may change its bits, as plain strings that a manifest can keep."""

from __future__ import annotations

import os
import platform as host
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import harness

ROOT = Path(harness.__file__).resolve().parent.parent
"""The checkout: the folder that holds the package, `pyproject.toml` and `captures/`."""

ENVIRONMENT = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that make the math libraries choose other kernels; `ATEN_CPU_CAPABILITY` shows in `capability`."""

_CPU_FIELDS = {"vendor": "vendor_id", "family": "cpu family", "model": "model", "name": "model name"}


class NoReferencePlatform(LookupError):
    """`pyproject.toml` is not beside the package, or names no reference platform."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operators on one thread inside, and give the process its thread count back after.

    How many threads share a reduction decides the order of its additions, so captures are made and checked with one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fingerprint() -> dict[str, str]:
    """What decides the bits of a float32 run with the eager executor in this process, by name.

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


def name() -> str:
    """The folder that this platform's captures are kept in, such as `cpu-x86_64-avx2`."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return re.sub(r"[^a-z0-9_]+", "-", f"cpu-{host.machine().lower()}-{capability}")


def reference_platform(root: Path = ROOT) -> str:
    """The platform that those without captures of their own are compared with, from `[tool.harness]`.

    Raises:
        NoReferencePlatform: there is no `pyproject.toml` in `root`, or it does not say.
    """
    project = root / "pyproject.toml"
    if not project.is_file():
        raise NoReferencePlatform(f"{project}: missing")
    settings = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {}).get("harness", {})
    if "reference-platform" not in settings:
        raise NoReferencePlatform(f"{project}: no reference-platform in [tool.harness]")
    return str(settings["reference-platform"])


def _flags() -> dict[str, str]:
    chosen = [f"{variable}={os.environ[variable]}" for variable in ENVIRONMENT if os.environ.get(variable)]
    return {
        "threads": str(torch.get_num_threads()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": str(torch.backends.cudnn.allow_tf32).lower(),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "autocast": str(torch.is_autocast_enabled("cpu")).lower(),
        "default_dtype": str(torch.get_default_dtype()),
        "flush_denormal": str(float(torch.tensor(1e-39) * 1) == 0.0).lower(),
        "environment": " ".join(chosen),
    }


def _cpu(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The first processor's fields; elsewhere than on Linux only a model name."""
    if not path.is_file():
        return {"model name": host.processor()}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _library(pattern: str, available: bool) -> str:
    """The version that torch was built with, `unknown` where it does not say, `none` where it is not there."""
    found = re.search(pattern, torch.__config__.show())
    if not available:
        return "none"
    return found.group(1) if found else "unknown"
