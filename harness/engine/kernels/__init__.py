"""Guidance and the Haar correction on a GPU: all slots in one launch each, by kernels of Triton. A third one casts.

On a GPU the order in which `plain` computes is the form of both computations, on every path: torch's own reductions
depend on the number of slots, and round otherwise. The kernels make the bits of `plain`, which computes slot by slot
with torch's operators: the twin behind the switch `integrator`, and what runs where Triton is not installed.

Other wavelets than `haar` and everything else keep torch's form, which is the form on a CPU as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch

from harness.engine.kernels import plain
from harness.engine.kernels.slots import Corrected, Guided
from harness.engine.transfer import Fetched

__all__ = ["Corrected", "Guided", "correct", "guide", "here", "plain", "prepare", "widen"]


def here(device: torch.device) -> bool:
    """Say whether the form of `plain` is the form on `device`: on every GPU."""
    return device.type == "cuda"


def guide(slots: Sequence[Guided]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The guided velocity and the new running average of every slot, in one launch; see `launches.guide`."""
    if not _compiles():
        return plain.guide(slots)
    from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

    return launches.guide(slots)


def correct(slots: Sequence[Corrected]) -> list[torch.Tensor]:
    """The corrected state of every slot, in one launch; see `launches.correct`."""
    if not _compiles():
        return plain.correct(slots)
    from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

    return launches.correct(slots)


def widen(velocity: torch.Tensor) -> tuple[torch.Tensor, Fetched] | None:
    """A copy in float32 and flags of what is not finite, in one launch; see `launches.widen`. None without Triton."""
    if not (here(velocity.device) and _compiles()):
        return None
    from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

    return launches.widen(velocity)


def prepare(device: torch.device, channels: int) -> None:
    """Compile the kernels for so many channels, once; nothing where they do not run."""
    if here(device) and _compiles():
        from harness.engine.kernels import launches  # noqa: PLC0415 - imports Triton

        launches.prepare(device, channels)


@lru_cache(maxsize=1)
def _compiles() -> bool:
    return find_spec("triton") is not None
