"""A file is written whole or not at all, and that it can be is known before."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
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


@pytest.mark.parametrize("error", [OSError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("function", ["fsync", "fdopen", "replace"])
def test_a_write_that_breaks_off_leaves_what_was_there_and_nothing_else(
    function: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"first")
    path.chmod(0o600)

    def full(*_arguments: object, **_fields: object) -> None:
        raise error("no space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(error, match="no space left"):
        atomic.write(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_its_mode_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, modes = os.replace, list[int]()

    def noted(source: Path, target: Path) -> None:
        modes.append(stat.S_IMODE(source.stat().st_mode))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    for mode in (0o644, 0o600, 0o755):
        atomic.write(tmp_path / "file", b"data", mode)
    assert modes == [0o644, 0o600, 0o755]


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


REFUSED: dict[str, type[OSError]] = {
    "file/a.json": NotADirectoryError,
    "folder": IsADirectoryError,
    "nowhere/a.json": OSError,
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", REFUSED)
def test_every_target_is_checked_wherever_it_stands(name: str, place: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    there = sorted(tmp_path.iterdir())
    targets = [tmp_path / "a.json", tmp_path / "new" / "b.json"]
    targets.insert(place, tmp_path / name)
    with pytest.raises(REFUSED[name]) as refused:
        atomic.check_writable(*targets)
    assert refused.value.filename == str(tmp_path / name)
    assert refused.value.errno is not None
    assert refused.value.strerror == os.strerror(refused.value.errno)
    assert sorted(tmp_path.iterdir()) == there


def test_without_a_target_nothing_is_checked() -> None:
    atomic.check_writable()


@pytest.mark.parametrize("data", [b"", b"a\r\nb\n\x00\xff", bytes(range(256)) * 1000])
def test_all_of_the_data_is_on_disk_beside_the_target_before_it_takes_its_place(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees what was there before; a temporary file elsewhere could not take the target's place at once."""
    path, synced = tmp_path / "a folder" / "file name", os.fsync
    seen: list[dict[str, bytes]] = []
    folders: list[dict[str, bytes]] = []
    path.parent.mkdir()
    path.write_bytes(b"before")
    path.chmod(0o600)

    def sync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            seen.append({each.name: each.read_bytes() for each in path.parent.iterdir()})
        else:
            folders.append({each.name: each.read_bytes() for each in path.parent.iterdir()})
        synced(handle)

    monkeypatch.setattr(os, "fsync", sync)
    atomic.write(path, data)
    (during,) = seen
    assert folders == [{"file name": data}], "the folder is synced once, after the file has its name"
    assert during.pop("file name") == b"before"
    ((temporary, written),) = during.items()
    assert temporary.startswith(".writing-")
    assert written == data
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == {"file name": data}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_link_that_leads_nowhere_can_be_written_itself(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    atomic.check_writable(tmp_path / "nowhere")
    atomic.write(tmp_path / "nowhere", b"data")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("nowhere", b"data")]


def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "file").symlink_to(tmp_path / "other")
    atomic.write(tmp_path / "file", b"data")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "file").read_bytes() == b"data"
    assert not (tmp_path / "file").is_symlink()


OUTPUTS = ["file", "link", "link to a link", "link to nothing"]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_goes_through_the_links_that_are_there_and_a_file_keeps_its_mode(kind: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_bytes(b"before")
    (tmp_path / "real" / "a.json").chmod(0o600)
    (tmp_path / "link").symlink_to("real/a.json")
    (tmp_path / "link to a link").symlink_to("link")
    (tmp_path / "link to nothing").symlink_to("real/new.json")
    path = tmp_path / "real" / "a.json" if kind == "file" else tmp_path / kind
    atomic.check_output(path)
    atomic.write_output(path, b"after")
    assert path.read_bytes() == b"after"
    assert path.is_symlink() == (kind != "file")
    new = kind == "link to nothing"
    written = tmp_path / "real" / ("new.json" if new else "a.json")
    assert (written.read_bytes(), stat.S_IMODE(written.stat().st_mode)) == (b"after", 0o644 if new else 0o600)
    assert not written.is_symlink()


def test_a_device_is_written_to_and_stays(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.stat("/dev/null")
    atomic.check_output(Path("/dev/null"))
    atomic.write_output(Path("/dev/null"), b"gone")
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    os.write(1, b"a table\n")
    atomic.check_output(Path("/dev/stdout"))
    atomic.write_output(Path("/dev/stdout"), b"{}\n")
    assert capfd.readouterr().out == "a table\n{}\n"


def test_a_file_that_is_the_standard_output_is_appended_to(tmp_path: Path) -> None:
    code = "import os; os.write(1, b'table '); from harness.engine import atomic; from pathlib import Path; "
    code += "atomic.write_output(Path('/dev/stdout'), b'{}')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"table {}"


def test_an_open_file_is_appended_to_also_by_its_number_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("ab") as out:
        out.write(b"table ")
        out.flush()
        monkeypatch.chdir("/dev/fd")
        atomic.write_output(Path(str(out.fileno())), b"{}")
        assert os.path.samestat(os.fstat(out.fileno()), (tmp_path / "out").stat())
    assert (tmp_path / "out").read_bytes() == b"table {}"


def test_a_fifo_is_written_to_where_somebody_reads_and_nobody_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        atomic.write_output(tmp_path / "pipe", b"data")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic.write_output(tmp_path / "pipe", b"data")
    assert os.read(reader, 100) == b"data"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("function", [atomic.check_output, lambda path: atomic.write_output(path, b"")])
def test_a_socket_and_a_folder_are_no_output(
    function: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most about a hundred characters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        with pytest.raises(OSError, match="expected a file"):
            function(Path("socket"))
    with pytest.raises(IsADirectoryError):
        function(tmp_path)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_only_a_file_system_that_cannot_sync_folders_is_let_pass(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_handle: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "fsync", refused)
    if code == errno.EIO:
        with pytest.raises(OSError, match="no"):
            atomic.sync_folder(tmp_path)
    else:
        atomic.sync_folder(tmp_path)


def test_a_folder_is_held_by_one_block_and_free_after_it_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.locked(tmp_path):
        with pytest.raises(BlockingIOError), atomic.locked(tmp_path):
            pass
        raise KeyError
    with atomic.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
