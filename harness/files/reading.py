"""Reads a file whole: a regular file, within a limit that is asked for before a byte is read."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.files.refused import FileMissing, FileRefused

MIB = 2**20
SMALL = 4 * MIB
"""Limit in bytes of settings and sources."""
LARGE = 2**31
"""Limit in bytes of exported files and captures: more does not fit into one protobuf message."""
_BLOCK = 2**24

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file for reading inside the block.

    Args:
        path: the file, or a symbolic link to it.
        limit: the largest size in bytes.

    Raises:
        FileMissing: there is no such file.
        FileRefused: it is a folder, a FIFO or a device; it is larger than `limit`; or it cannot be opened.
    """
    try:
        # Asked before it is opened, because opening a device can already do something.
        _check(path, _found(path), limit)
        # A FIFO that takes the file's place meanwhile must not block.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            _check(path, os.fstat(handle), limit)
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing(path, "", "no such file", "a file") from error
    except OSError as error:
        raise FileRefused(path, "", error.strerror or str(error), "a file that can be read") from error


def check(path: Path, limit: int = LARGE) -> None:
    """Check that a file can be read, for a library that opens the file by itself.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `opened`.
    """
    with opened(path, limit):
        pass


def whole(path: Path, limit: int = SMALL) -> bytes:
    """All bytes of a regular file of at most `limit` bytes.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `opened`; or the file grows beyond `limit` while it is read.
    """
    with opened(path, limit) as file:
        parts: list[bytes] = []
        left = limit + 1
        # Read until the end and not by the size: files of the kernel, such as /proc/cpuinfo, say that they are empty.
        while left and (part := file.read(min(left, _BLOCK))):
            parts.append(part)
            left -= len(part)
    if not left:
        raise FileRefused(path, "", f"more than {limit} bytes", f"at most {limit} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def text(path: Path, limit: int = SMALL) -> str:
    """The text of a file in UTF-8.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `whole`; or it is not UTF-8.
    """
    return decoded(path, whole(path, limit))


def decoded(path: Path | str, data: bytes) -> str:
    """Bytes of a file as text in UTF-8.

    Raises:
        FileRefused: they are not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FileRefused(path, "", f"the byte {data[error.start]:#04x} at {error.start}", "text in UTF-8") from error


def toml(path: Path) -> dict[str, Any]:
    """The document in a TOML file.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `text`; or it is not TOML.
    """
    return toml_of(text(path), path)


def toml_of(document: str, path: Path) -> dict[str, Any]:
    """The document in a text of TOML; `path` is where it is from, for messages.

    Raises:
        FileRefused: it is not TOML.
    """
    try:
        return tomllib.loads(document)
    except RecursionError as error:
        raise FileRefused(path, "", "values nested too deep", "TOML") from error
    except ValueError as error:  # of an invalid document, and of an integer with too many digits
        raise FileRefused(path, "", ascii(str(error))[1:-1], "TOML") from error


def _found(path: Path | str) -> os.stat_result:
    try:
        return os.stat(path)
    except ValueError as error:
        raise FileRefused(ascii(str(path)), "", "a path with a null character", "a path") from error


def _check(path: Path, found: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise FileRefused(path, "", kind, "a regular file")
    if found.st_size > limit:
        raise FileRefused(path, "", f"{found.st_size} bytes", f"at most {limit} bytes")
