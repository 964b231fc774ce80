"""Exported files that all processes of a run share: tracing a decoder takes ten seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from harness import registry


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Inside, `registry.onnx_file` exports into `folder` what is not there; one process at a time, the others wait.

    Args:
        folder: of one run alone. Its files are of the code of that run, which nothing here looks at.
    """
    exported = registry._exported

    @lru_cache(maxsize=16)
    def shared(name: str, encoder_dim: int, dtype: str, tokens: int | None) -> Path:
        asked = (name, encoder_dim, dtype, tokens)
        if name not in (registry.AFFINE, *registry.PRESETS):
            # A checkpoint is whatever its folder holds now.
            return exported(*asked)
        path = folder / f"{'-'.join(map(str, asked))}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                partial = path.with_suffix(".partial")
                shutil.copyfile(exported(*asked), partial)
                partial.replace(path)
        return path

    folder.mkdir(parents=True, exist_ok=True)
    registry._exported = shared
    try:
        yield
    finally:
        registry._exported = exported
