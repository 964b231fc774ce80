"""The installed TensorRT: the full one or TensorRT-RTX. The Python API that the project uses is the same in both."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from harness.engine.errors import EngineError, PackageMissing

_POLYGRAPHY_ASKS = "POLYGRAPHY_USE_TENSORRT_RTX"


class Flavour(StrEnum):
    """The flavour of TensorRT. A plan of one flavour cannot be loaded by the other."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


_MODULES = {Flavour.TENSORRT: ("tensorrt",), Flavour.RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_EXTRAS = {Flavour.TENSORRT: "trt", Flavour.RTX: "trt-rtx"}


@dataclass(frozen=True)
class Binding:
    """An installed TensorRT.

    Attributes:
        flavour: the full TensorRT or TensorRT-RTX.
        version: the module's `__version__`.
        module: the Python binding.
    """

    flavour: Flavour
    version: str
    module: Any


def installed() -> tuple[Flavour, ...]:
    """The flavours that are installed, the full one first."""
    return tuple(flavour for flavour in Flavour if _module_name(flavour) is not None)


def binding(flavour: Flavour | str | None = None) -> Binding:
    """The binding of a flavour, imported.

    Args:
        flavour: the flavour; None is the installed one, the full TensorRT where both are installed.

    Raises:
        PackageMissing: the flavour is not installed.
        EngineError: the flavour is installed and cannot be imported.
    """
    wanted = Flavour(flavour) if flavour is not None else next(iter(installed()), Flavour.TENSORRT)
    name = _module_name(wanted)
    if name is None:
        raise PackageMissing(str(wanted), _EXTRAS[wanted])
    try:
        module = import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} is installed and cannot be imported: {error}") from error
    return Binding(wanted, str(module.__version__), module)


def use_polygraphy(found: Binding) -> None:
    """Make Polygraphy use this binding.

    Polygraphy chooses its flavour at its first import, so a process can use one flavour only.

    Raises:
        PackageMissing: Polygraphy is not installed.
        EngineError: Polygraphy was imported before, for the other flavour.
    """
    if find_spec("polygraphy") is None:
        raise PackageMissing("polygraphy", _EXTRAS[found.flavour])
    rtx = found.flavour is Flavour.RTX
    if rtx:
        # The wheel contains only `tensorrt_rtx_bindings`, but Polygraphy imports `tensorrt_rtx`, the metapackage.
        sys.modules.setdefault("tensorrt_rtx", found.module)
    os.environ[_POLYGRAPHY_ASKS] = "1" if rtx else "0"
    config = import_module("polygraphy.config")
    if bool(config.USE_TENSORRT_RTX) != rtx:
        raise EngineError(
            f"Polygraphy was imported for a flavour other than {found.flavour}: one process can use one flavour only"
        )


def _module_name(flavour: Flavour) -> str | None:
    return next((name for name in _MODULES[flavour] if name in sys.modules or _is_package(name)), None)


def _is_package(name: str) -> bool:
    """Return True if an importable module has this name."""
    spec = find_spec(name)
    # A plain folder of this name is a namespace package for Python; a namespace package has no origin.
    return spec is not None and spec.origin is not None
