"""Files that are written whole or not at all, and whether they can be."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Replace a file at once, so that no reader ever sees half of it, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a private file; captures and plans are read by whoever reads their folder.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_writable(*paths: Path) -> None:
    """Check that `write` can write these, before the work whose results they are to hold; nothing is left behind.

    Raises:
        OSError: a target is a folder, or its folder can be neither written nor made.
    """
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        # A link that leads nowhere is there, and no folder can be made in its place.
        there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from error
