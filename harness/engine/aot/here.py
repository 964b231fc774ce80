"""The check that a plan was built for this machine: the installed TensorRT, the GPU and its driver."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import torch

from harness.engine.aot.bindings import Binding, Flavour, binding, installed
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import PlanMismatch

_ALWAYS = ("flavour", "version", "compute_capability")
_WHERE_RECORDED = ("gpu", "driver")
_QUERY = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Here:
    """The environment in which a plan would run; its fields have the names of the fields of `Sidecar`.

    Attributes:
        flavour: the flavour of the installed TensorRT.
        version: the version of the installed TensorRT.
        compute_capability: the GPU's, such as `9.0`; None without a GPU.
        gpu: the GPU's name; None without a GPU.
        driver: the version of the GPU's driver; None without a GPU, or where `nvidia-smi` does not report the version.
    """

    flavour: str
    version: str
    compute_capability: str | None = None
    gpu: str | None = None
    driver: str | None = None


def binding_for(flavour: str) -> Binding:
    """The installed TensorRT that a plan of `flavour` needs, imported.

    Raises:
        PackageMissing: no TensorRT is installed.
        PlanMismatch: the other flavour is installed, or `flavour` is unknown.
    """
    there = installed()
    if flavour in there:
        return binding(flavour)
    if not there and flavour in tuple(Flavour):
        return binding(flavour)
    raise PlanMismatch("flavour", flavour, " and ".join(there) or "not known")


def here(found: Binding, device: torch.device) -> Here:
    """The environment of an imported TensorRT and a GPU.

    Args:
        found: the binding of the TensorRT.
        device: the CUDA device.
    """
    if not torch.cuda.is_available():
        return Here(str(found.flavour), found.version)
    return Here(
        str(found.flavour),
        found.version,
        ".".join(map(str, torch.cuda.get_device_capability(device))),
        torch.cuda.get_device_name(device),
        driver(),
    )


def driver() -> str | None:
    """The version of the GPU's driver, from `nvidia-smi`; None where `nvidia-smi` is missing or fails."""
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


def check(recorded: Sidecar, found: Here) -> None:
    """Refuse a plan that was built for another environment.

    A plan that was built without a GPU fits every GPU of its compute capability.

    Args:
        recorded: the plan's metadata.
        found: this environment.

    Raises:
        PlanMismatch: the message names the first field that differs.
    """
    absent = "no CUDA device" if found.compute_capability is None else "not known"
    for field in (*_ALWAYS, *_WHERE_RECORDED):
        built, have = getattr(recorded, field), getattr(found, field)
        if built != have and not (field in _WHERE_RECORDED and built is None):
            raise PlanMismatch(field, built, absent if have is None else have)
