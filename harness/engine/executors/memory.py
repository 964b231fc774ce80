"""A second try where memory is out: an executor frees what it holds for later runs, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")

_ON_CPU = "DefaultCPUAllocator: "
"""Start of the text of torch's allocator for the CPU, which raises a plain `RuntimeError`."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Say whether an error, or one that caused it, tells that memory is out."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or _ON_CPU in str(error):
            return True
        error = error.__cause__
    return False


def relieved(work: Callable[[], R], free: Callable[[], object]) -> R:
    """Call `work` and return what it returns. Where memory is out, call `free`, and `work` once more.

    Raises:
        Exception: any other exception of `work`, or the second one.
    """
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Here and not in the handler: the frames of the error hold tensors until it is over.
    free()
    return work()
