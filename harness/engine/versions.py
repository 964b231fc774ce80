"""Parts of torch that torch does not promise to keep: version counters, modes, and the functions that save.

Outside of the executors no other module names them, so a new version of torch is a change of this module. The pytest
plugin imports it, in projects with torch 2.6 and later.
"""

from __future__ import annotations

import torch
import torch.utils.dlpack
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["UNSEEN", "TorchDispatchMode", "TorchFunctionMode", "delay", "resolve_name", "version"]

UNSEEN = (
    (torch.serialization, "_save", "torch.save"),
    (torch.serialization, "_legacy_save", "torch.save"),
    (torch, "to_dlpack", "torch.to_dlpack"),
    (torch.utils.dlpack, "to_dlpack", "torch.to_dlpack"),
)
"""Functions that read a tensor and that neither mode sees: module, attribute, and the public name."""


def version(tensor: Tensor) -> int | None:
    """The version counter of a tensor, which every write increases; None for an inference tensor, which has none."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001 torch has no public counter


def delay(cycles: int) -> None:
    """Let the current CUDA stream do nothing for so many cycles of the GPU's clock; the host does not wait."""
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]  # noqa: SLF001 torch has no public way
