"""Whether a plan was built for what is here: the installed TensorRT, and the GPU."""

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
    """What a plan would run on; the fields are a sidecar's.

    Attributes:
        flavour: of the installed TensorRT.
        version: of it.
        compute_capability: of the GPU, such as `9.0`; None where there is none.
        gpu: its name; None likewise.
        driver: its version; None likewise, and where nobody tells.
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
        PlanMismatch: the other one is, or there is no such flavour.
    """
    there = installed()
    if flavour in there:
        return binding(flavour)
    if not there and flavour in tuple(Flavour):
        return binding(flavour)
    raise PlanMismatch("flavour", flavour, " and ".join(there) or "not known")


def here(found: Binding, device: torch.device) -> Here:
    """An imported TensorRT and the GPU that it would run on.

    Args:
        found: the binding.
        device: a CUDA device.
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
    """The GPU driver's version, as `nvidia-smi` says it; None where it is not there or does not say."""
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


def check(recorded: Sidecar, found: Here) -> None:
    """Refuse a plan that was built for something else. A plan built without a GPU fits every GPU of its capability.

    Raises:
        PlanMismatch: naming the first field that differs.
    """
    absent = "no CUDA device" if found.compute_capability is None else "not known"
    for field in (*_ALWAYS, *_WHERE_RECORDED):
        built, have = getattr(recorded, field), getattr(found, field)
        if built != have and not (field in _WHERE_RECORDED and built is None):
            raise PlanMismatch(field, built, absent if have is None else have)
