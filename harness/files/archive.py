"""Folders as one file: a ZIP archive of regular files, with the same bytes for the same files."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from io import BytesIO
from itertools import pairwise
from pathlib import Path, PurePosixPath

from harness.files.reading import LARGE
from harness.files.refused import FileRefused, described

MOST = 100_000
"""The most files in an archive."""

_WHEN = (1980, 1, 1, 0, 0, 0)
"""The time of every file: two archives of the same files have the same bytes."""
_PART = re.compile(r"(?!\.{1,2}$)[^/\\\x00]+")
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError)
_COMPRESSED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def packed(files: dict[str, bytes]) -> bytes:
    """Archive of files, by their paths in a folder, with `/` between the parts of a path."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _WHEN), files[name], zipfile.ZIP_DEFLATED)
    return made.getvalue()


def unpacked(data: bytes, path: Path, limit: int = LARGE) -> dict[str, bytes]:
    """The files of an archive, by their paths in a folder; no path leads out of it.

    Args:
        data: the archive's bytes.
        path: where they are from, for messages.
        limit: most bytes of all files together.

    Raises:
        FileRefused: it is no archive, it holds more than `limit` bytes or `MOST` files, a path leads out of the folder
            or is there twice, as a file or as the folder of another one, or a file is damaged.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            listed = archive.infolist()
            _check(listed, path, limit)
            return {each.filename: _bytes(archive, each, path) for each in listed}
    except (*_DAMAGED, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, FileRefused):
            raise
        raise FileRefused(path, "", ascii(str(error))[1:-1], "a ZIP archive") from error


def _check(listed: list[zipfile.ZipInfo], path: Path, limit: int) -> None:
    if len(listed) > MOST:
        raise FileRefused(path, "", f"{len(listed)} files", f"at most {MOST}")
    if sum(each.file_size for each in listed) > limit:
        raise FileRefused(path, "", f"files of more than {limit} bytes", f"at most {limit} bytes")
    for each in listed:
        parts = each.filename.split("/")
        if not all(map(_PART.fullmatch, parts)) or str(PurePosixPath(each.filename)) != each.filename:
            raise FileRefused(path, "", f"the path {described(each.filename)}", "paths of files inside a folder")
        if each.compress_type not in _COMPRESSED or each.flag_bits & 1:
            raise FileRefused(path, "", f"{described(each.filename)}, encrypted or compressed otherwise", "deflate")
    # In this order a path comes directly before a path inside it, and a file cannot be a folder too.
    for one, following in pairwise(sorted(each.filename.split("/") for each in listed)):
        if following[: len(one)] == one:
            raise FileRefused(path, "", f"the path {described('/'.join(one))} twice", "each path once")


def _bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    with archive.open(member) as file:
        # One more than the archive says that there are, because it may say anything.
        data = file.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise FileRefused(path, "", f"{described(member.filename)} of {len(data)} bytes", f"{member.file_size} bytes")
    return data
