"""Files that are written whole or not at all, and whether they can be."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN = re.compile(r"/dev/(std(in|out|err)|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")
"""Names of files that a process has open."""
MODE = 0o644
"""Captures and plans are read by whoever reads their folder."""


def write(path: Path, data: bytes, mode: int = MODE) -> None:
    """Replace a file at once, so that no reader ever sees half of it, making its folder if need be.

    A symbolic link is replaced, and what it leads to stays. The file and its folder are synced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes a private file that nobody else can have put there.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(path.parent)


def write_output(path: Path, data: bytes) -> None:
    """Write a file that a user named, through what is there.

    A symbolic link stays, and what it leads to is replaced at once; a file keeps its mode. A device, such as
    `/dev/null` or `/dev/stdout`, and a FIFO with a reader are written to.

    Raises:
        OSError: the target is a folder, a block device, a socket or a FIFO without a reader, or cannot be written.
    """
    target = _target(path)
    if target is None:
        # Appended, because the standard output may be a file with something in it; not created, and not waited for.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY), "wb") as file:
            os.set_blocking(file.fileno(), True)
            file.write(data)
        return
    write(target, data, stat.S_IMODE(target.stat().st_mode) if target.exists() else MODE)


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


def check_output(path: Path) -> None:
    """Check that `write_output` can write this, before the work whose results it is to hold.

    Raises:
        OSError: see `write_output`.
    """
    target = _target(path)
    if target is not None:
        check_writable(target)
    elif not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last beyond a loss of power, where the file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one process, inside the block; the lock is no file, and ends with the process.

    Raises:
        BlockingIOError: another process, or another block of this one, holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _target(path: Path) -> Path | None:
    """The file to replace, links followed; None where what is there has to be written to.

    Raises:
        OSError: it can be neither.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise OSError(errno.EINVAL, "a block device or a socket, expected a file", str(path))
    # A name of an open file: to replace the file would leave who opened it with one that has no name.
    open_file = _OPEN.fullmatch(str(path.absolute()))
    return Path(os.path.realpath(path)) if stat.S_ISREG(kind) and not open_file else None
