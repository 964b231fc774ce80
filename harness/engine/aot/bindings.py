"""Which TensorRT is installed here: the full one, or TensorRT-RTX, whose Python API is the same for what is used."""

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
    """Of TensorRT. A plan of one flavour is garbage to the other."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


_MODULES = {Flavour.TENSORRT: ("tensorrt",), Flavour.RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_EXTRAS = {Flavour.TENSORRT: "trt", Flavour.RTX: "trt-rtx"}


@dataclass(frozen=True)
class Binding:
    """An installed TensorRT.

    Attributes:
        flavour: which.
        version: as its module says it.
        module: its Python binding.
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
        flavour: which; None is whichever is installed, the full one where both are.

    Raises:
        PackageMissing: it is not installed.
        EngineError: it is, and cannot be imported.
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
    """Make Polygraphy use this binding: it reads which when it is first imported, so a process uses one of them.

    Raises:
        PackageMissing: Polygraphy is not installed.
        EngineError: it was imported before, for the other flavour.
    """
    if find_spec("polygraphy") is None:
        raise PackageMissing("polygraphy", _EXTRAS[found.flavour])
    rtx = found.flavour is Flavour.RTX
    if rtx:
        # The wheel brings `tensorrt_rtx_bindings` alone, and Polygraphy imports it by the name of the metapackage.
        sys.modules.setdefault("tensorrt_rtx", found.module)
    os.environ[_POLYGRAPHY_ASKS] = "1" if rtx else "0"
    config = import_module("polygraphy.config")
    if bool(config.USE_TENSORRT_RTX) != rtx:
        raise EngineError(
            f"Polygraphy was imported for the other flavour than {found.flavour}: one process, one flavour"
        )


def _module_name(flavour: Flavour) -> str | None:
    return next((name for name in _MODULES[flavour] if name in sys.modules or _is_package(name)), None)


def _is_package(name: str) -> bool:
    """Whether it can be imported; a mere folder of that name, which Python would take too, has no origin."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None
