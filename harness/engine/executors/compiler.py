"""torch's compiler from outside: the folder in which it keeps its code, and how many graphs it made code for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "", "TRITON_CACHE_DIR": "triton"}
"""Variables that name the folders of torch's compiler and of Triton, and where each lies in a folder of ours."""

_ONE = threading.RLock()
"""Held while the variables are changed, which are those of the whole process."""


@dataclass
class Graphs:
    """Number of graphs that torch's compiler made code for.

    Attributes:
        compiled: graphs that were compiled.
        loaded: graphs whose code was in the compiler's folder.
    """

    compiled: int = 0
    loaded: int = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what is made inside the block. Graphs of other threads count too, because torch counts for all."""
        seen, hits = _counted()
        try:
            yield
        finally:
            graphs, loaded = (after - before for after, before in zip(_counted(), (seen, hits), strict=True))
            self.loaded += loaded
            # Not torch's own count of misses: where its caches are off, it counts none.
            self.compiled += graphs - loaded


def _counted() -> tuple[int, int]:
    """Graphs that were traced in this process so far, and those whose code was found."""
    from torch._dynamo.utils import counters  # noqa: PLC0415 - takes seconds to import, and only the compiler needs it

    return counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_hit"]


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Let torch's compiler and Triton keep their code in a folder, inside the block, and look for it there alone.

    The variables of the process are changed, so other threads that compile meanwhile use the folder too. One thread
    at a time is in such a block.
    """
    with _ONE:
        before = {name: os.environ.get(name) for name in FOLDERS}
        os.environ.update({name: str(folder / below) for name, below in FOLDERS.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def forget() -> None:
    """Forget all code that was compiled in this process, so that it is made or loaded anew at the next call."""
    import torch  # noqa: PLC0415 - as the next line
    from torch._inductor.utils import clear_caches  # noqa: PLC0415 - takes seconds to import

    torch.compiler.reset()
    clear_caches()
