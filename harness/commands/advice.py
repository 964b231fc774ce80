"""Advice after an error: what to do next, by the error's class."""

from __future__ import annotations

from harness.engine.errors import CheckpointRefused, PlanCorrupt
from harness.parity.baselines import platform, store

_NEXT: tuple[tuple[type[Exception], str], ...] = (
    (store.NoCaptures, "name their folder with --captures, or bless this platform's with `bless --reason`"),
    (store.CaptureUnknown, "remove the file, or bless its scenario with `bless --reason`"),
    (store.CapturesError, "restore it with `git checkout`, or bless it anew with `bless --reason`"),
    (
        platform.NoReferencePlatform,
        'name one with reference-platform = "..." under [tool.harness], or bless captures of this platform',
    ),
    (PlanCorrupt, "build the plan again with `build`"),
    (CheckpointRefused, "name the folder of a whole checkpoint, as it was downloaded"),
    (FileNotFoundError, "name a file that is there"),
    (PermissionError, "name a file that this user may read and write"),
)
"""The first class that fits an error counts."""


def advised(error: Exception) -> str:
    """Return the words of an error and, where it is known, what to do next."""
    return "; ".join([str(error), *(words for kind, words in _NEXT if isinstance(error, kind))][:2])
