"""Files of frames: records that are appended one by one, each with its length and a digest of all bytes up to it.

    MAGIC                                                        the first bytes of the file
    kind (1) length (8) check (8) payload (length) digest (32)   one frame; integers are little-endian

`check` is a digest of the frame's head, so that a wrong length is not taken for a file that was cut off. `digest` is
SHA-256 over the digest before it and the frame, so that no frame can be altered, left out, or moved to another place.
The digests find damage. They are no signature: who writes a whole new file makes new ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.files import reading
from harness.files.refused import FileRefused

MAGIC = b"harness frames\n\x00"
LARGEST = 2**40
"""Limit in bytes of a file; one frame at a time is in memory."""
_LENGTH, _CHECK, _DIGEST = 8, 8, 32
_HEAD = 1 + _LENGTH + _CHECK


@dataclass(frozen=True)
class Frame:
    """One frame of a file.

    Attributes:
        kind: one byte, the kind of record.
        payload: the record.
        at: position of the payload in the file, in bytes.
    """

    kind: bytes
    payload: bytes
    at: int


class Chain:
    """Digests of a file that is written or read from its beginning."""

    def __init__(self) -> None:
        self._last = hashlib.sha256(MAGIC).digest()

    def head(self, kind: bytes, length: int) -> bytes:
        """The head of the next frame."""
        begun = kind + length.to_bytes(_LENGTH, "little")
        return begun + hashlib.sha256(self._last + begun).digest()[:_CHECK]

    def digest(self, head: bytes, payload: bytes) -> bytes:
        """The digest behind the payload of the next frame, which is then the last one."""
        hasher = hashlib.sha256(self._last + head)
        hasher.update(payload)
        self._last = hasher.digest()
        return self._last

    def framed(self, kind: bytes, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """The bytes of the next frame in three parts: head, payload, digest."""
        head = self.head(kind, len(payload))
        return head, payload, self.digest(head, payload)


class Frames:
    """The frames of an open file.

    Attributes:
        cut: why the file ends inside a frame; empty until the end was met, and where it ends behind a frame.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self.cut = path, file, ""
        self._size = file.seek(0, os.SEEK_END)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every whole frame, from the first on.

        Raises:
            FileRefused: a byte of the file was altered, or the file is of another kind.
        """
        chain, at = Chain(), len(MAGIC)
        found = self._read(0, at)
        if found != MAGIC[: len(found)] or not found:
            raise FileRefused(self._path, "", f"a file that begins with {ascii(found[:16])}", "a file of frames")
        while at < self._size:
            head = self._read(at, _HEAD)
            if len(head) == _HEAD and head != chain.head(head[:1], int.from_bytes(head[1 : 1 + _LENGTH], "little")):
                raise self._altered(at)
            length = int.from_bytes(head[1 : 1 + _LENGTH], "little")
            if len(head) < _HEAD or at + _HEAD + length + _DIGEST > self._size:
                self.cut = f"the file ends at byte {self._size}, inside the record that begins at byte {at}"
                return
            payload = self._read(at + _HEAD, length)
            if self._read(at + _HEAD + length, _DIGEST) != chain.digest(head, payload):
                raise self._altered(at)
            yield Frame(head[:1], payload, at + _HEAD)
            at += _HEAD + length + _DIGEST
        if at > self._size:
            self.cut = f"the file ends at byte {self._size}, before its first record"

    def again(self, frame_at: int, length: int) -> bytes:
        """The payload of a frame that was read before, by its position and length."""
        return self._read(frame_at, length)

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)

    def _altered(self, at: int) -> FileRefused:
        return FileRefused(self._path, "", f"altered bytes in the record at byte {at}", "the bytes that were written")


@contextmanager
def opened(path: Path) -> Iterator[Frames]:
    """Open a file of frames for reading inside the block.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `reading.opened`.
    """
    with reading.opened(path, LARGEST) as file:
        yield Frames(path, file)
