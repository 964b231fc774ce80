"""Files are written completely or not at all, and that they can be is known before."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.parity.baselines import store


@pytest.mark.parametrize("name", ["a.json", "new/deep/a.json", "there.json"])
def test_a_target_that_can_be_written_is_let_pass_and_nothing_is_left_behind(name: str, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    store.check_writable(tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.json", "old")]
    store.replace(tmp_path / name, b"new")


def test_a_target_is_checked_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store.check_writable(Path("a.json"), Path("new/a.json"))


@pytest.mark.parametrize("name", ["file/a.json", "file/deep/a.json", "folder", "nowhere/a.json", "nowhere/b/a.json"])
def test_a_target_that_replace_could_not_write_is_refused_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=name):
        store.check_writable(tmp_path / "a.json", tmp_path / name)
    with pytest.raises(OSError):
        store.replace(tmp_path / name, b"new")
