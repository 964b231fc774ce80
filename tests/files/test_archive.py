from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from harness.files import FileRefused, archive

FILES = {"a": b"", "b/c.so": b"\x00\xff" * 500, "b/d/e f": b"text"}
FROM = Path("code")


def zipped(*names: str, data: bytes = b"x") -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as written:
        for name in names:
            written.writestr(zipfile.ZipInfo(name), data)
    return made.getvalue()


def test_what_was_packed_is_unpacked() -> None:
    assert archive.unpacked(archive.packed(FILES), FROM) == FILES


def test_the_same_files_make_the_same_bytes() -> None:
    assert archive.packed(dict(reversed(FILES.items()))) == archive.packed(FILES)


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/a", "a//b", "./a", "a/.", "", "a/", "a\\b", ".."], ids=lambda name: name or "empty"
)
def test_a_path_that_may_lead_out_of_the_folder_is_refused(name: str) -> None:
    with pytest.raises(FileRefused, match="paths of files inside a folder"):
        archive.unpacked(zipped("first", name), FROM)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b/c", "a!", "z", "a")])
def test_a_path_that_is_there_twice_is_refused(names: tuple[str, str]) -> None:
    with pytest.raises(FileRefused, match=r"the path '.*' twice"):
        archive.unpacked(zipped(*names), FROM)


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-1], lambda data: data[:40]])
def test_a_truncated_archive_is_refused(change) -> None:
    with pytest.raises(FileRefused, match="expected a ZIP archive"):
        archive.unpacked(change(archive.packed(FILES)), FROM)


def test_a_file_that_was_altered_is_refused() -> None:
    data = zipped("a", data=b"0123456789" * 10)
    with pytest.raises(FileRefused, match="Bad CRC"):
        archive.unpacked(data.replace(b"0123456789" * 10, b"0123456780" * 10), FROM)


def test_an_archive_with_a_byte_of_another_value_is_refused_or_no_file_in_it_is_damaged() -> None:
    data = archive.packed(FILES)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x5A
        try:
            found = archive.unpacked(bytes(changed), FROM)
        except FileRefused:
            continue
        assert set(found.values()) <= set(FILES.values()), place


def test_more_bytes_or_files_than_the_limits_are_refused_before_they_are_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(FileRefused, match="at most 1003 bytes"):
        archive.unpacked(archive.packed(FILES), FROM, limit=1003)
    assert archive.unpacked(archive.packed(FILES), FROM, limit=1004) == FILES
    monkeypatch.setattr(archive, "MOST", 2)
    with pytest.raises(FileRefused, match="got 3 files, expected at most 2"):
        archive.unpacked(archive.packed(FILES), FROM)


def test_an_archive_that_says_that_a_file_is_smaller_than_it_is_is_refused() -> None:
    data = bytearray(zipped("a", data=b"0123456789"))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + at
        data[place : place + 4] = (4).to_bytes(4, "little")
    with pytest.raises(FileRefused, match=r"Bad CRC|of 5 bytes, expected 4 bytes|Overlapped"):
        archive.unpacked(bytes(data), FROM)


def test_another_compression_is_refused() -> None:
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as written:
        written.writestr("a", b"x" * 100)
    with pytest.raises(FileRefused, match="expected deflate"):
        archive.unpacked(made.getvalue(), FROM)
