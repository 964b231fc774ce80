"""A file is read only if it is a regular file within its limit, and anything else is refused by name, at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.files import FileRefused, reading
from harness.files.refused import FileMissing

READERS: dict[str, Callable[[Path], object]] = {
    "check": reading.check, "whole": reading.whole, "text": reading.text, "toml": reading.toml,
}  # fmt: skip


@pytest.fixture(params=sorted(READERS))
def read(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return READERS[request.param]


def test_the_bytes_of_a_file_are_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 40_000_000)
    assert reading.whole(tmp_path / "a", 40_000_000) == b"x" * 40_000_000


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    assert reading.whole(tmp_path / "b") == b"1"


@pytest.mark.parametrize("name", ["nowhere", "file/below"])
def test_a_file_that_is_not_there_is_missing(name: str, tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileMissing, match=f"{name}: got no such file"):
        read(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(FileRefused, match="got a folder, expected a regular file"):
        read(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    with pytest.raises(FileRefused, match="pipe: got a FIFO, expected a regular file"):
        read(tmp_path / "pipe")
    assert time.monotonic() - started < 5


def test_a_fifo_that_takes_the_file_s_place_meanwhile_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    regular = os.stat(tmp_path / "file")
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda path: regular)
        with pytest.raises(FileRefused, match="got a FIFO"):
            reading.whole(tmp_path / "pipe")


def test_a_device_is_refused_before_it_is_opened(
    read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("was opened"))
    with pytest.raises(FileRefused, match="/dev/zero: got a character device"):
        read(Path("/dev/zero"))


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most about a hundred characters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        with pytest.raises(FileRefused, match="got a socket"):
            reading.whole(Path("socket"))


def test_links_in_a_circle_are_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileRefused, match="expected a file that can be read"):
        read(tmp_path / "a")


def test_a_path_with_a_null_character_is_refused(read: Callable[[Path], object]) -> None:
    with pytest.raises(FileRefused, match="null character"):
        read(Path("a\0b"))


def test_an_error_of_the_block_is_not_one_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(ValueError, match="^of the block$"), reading.opened(tmp_path / "a", 9):
        raise ValueError("of the block")


def test_a_file_over_the_limit_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(FileRefused, match="got 1099511627776 bytes, expected at most 1000 bytes"):
        reading.whole(tmp_path / "sparse", 1000)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert len(reading.whole(tmp_path / "a", 1000)) == 1000
    with pytest.raises(FileRefused, match="1000 bytes, expected at most 999"):
        reading.whole(tmp_path / "a", 999)


def test_a_file_that_has_no_size_is_read_whole_and_within_the_limit() -> None:
    """A file of the kernel is such a file, and so is one that grows while it is read."""
    assert b"Name:" in reading.whole(Path("/proc/self/status"))
    with pytest.raises(FileRefused, match="got more than 10 bytes"):
        reading.whole(Path("/proc/self/status"), 10)


def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc\xff")
    with pytest.raises(FileRefused, match="got the byte 0xff at 3, expected text in UTF-8"):
        reading.text(tmp_path / "a")


@pytest.mark.parametrize(
    "document",
    ["a = ", "a = " + "[" * 100_000, "a = " + "1" * 5000, "a = 1\na = 2", 'a = "\\ud800"', "\x1b[31m"],
    ids=["half", "nested", "digits", "twice", "surrogate", "escape"],
)
def test_what_is_not_toml_is_refused_without_a_control_character(document: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(document)
    with pytest.raises(FileRefused, match=r"a\.toml: got .*, expected TOML") as refused:
        reading.toml(tmp_path / "a.toml")
    assert str(refused.value).isprintable()


def test_toml_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[tool]\na = 1")
    assert reading.toml(tmp_path / "a.toml") == {"tool": {"a": 1}}
