"""A file is written whole or not at all, and that it can be is known before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness.engine import atomic


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for data in (b"first", b"second, which is longer"):
        atomic.write(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_everybody_may_read_it(tmp_path: Path) -> None:
    atomic.write(tmp_path / "file", b"data")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"first")

    def full(_handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        atomic.write(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        atomic.write(tmp_path / "taken", b"data")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("name", ["a.json", "new/deep/a.json", "there.json"])
def test_a_target_that_can_be_written_is_let_pass_and_nothing_is_left_behind(name: str, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    atomic.check_writable(tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.json", "old")]
    atomic.write(tmp_path / name, b"new")


def test_a_target_is_checked_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic.check_writable(Path("a.json"), Path("new/a.json"))


@pytest.mark.parametrize("name", ["file/a.json", "file/deep/a.json", "folder", "nowhere/a.json", "nowhere/b/a.json"])
def test_a_target_that_write_could_not_write_is_refused_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=name):
        atomic.check_writable(tmp_path / "a.json", tmp_path / name)
    with pytest.raises(OSError):
        atomic.write(tmp_path / name, b"new")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_whoever_reads_the_folder_reads_the_file_whatever_the_writer_s_umask_is(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        atomic.write(tmp_path / "a.json", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
