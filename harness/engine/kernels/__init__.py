"""Guidance and the Haar correction on a GPU: all slots in one launch each, by kernels of Triton.

On a GPU these kernels are the form of both computations, on every path: torch's own reductions round otherwise, and
their order depends on the number of slots. A kernel computes a slot's channel, or a pair of its frames, in one order
that depends on nothing but the slot's own frames and channels. So the bits of a slot do not depend on how many slots
share a launch, and a launch for each slot, the plain path, makes the same bits.

Other wavelets than `haar` and everything else keep torch's form, which is the form on a CPU as well.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import torch

from harness.engine.kernels.slots import Corrected, Guided

__all__ = ["Corrected", "Guided", "correct", "guide", "here", "prepare"]


@lru_cache(maxsize=16)
def here(device: torch.device) -> bool:
    """Say whether the kernels run on `device`: a GPU, where Triton is installed."""
    return device.type == "cuda" and find_spec("triton") is not None


def guide(slots: list[Guided]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The guided velocity and the new running average of every slot, in one launch; see `launches.guide`."""
    from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

    return launches.guide(slots)


def correct(slots: list[Corrected]) -> list[torch.Tensor]:
    """The corrected state of every slot, in one launch; see `launches.correct`."""
    from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

    return launches.correct(slots)


def prepare(device: torch.device, channels: int) -> None:
    """Compile the kernels for so many channels, once; nothing where they do not run."""
    if here(device):
        from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

        launches.prepare(device, channels)
