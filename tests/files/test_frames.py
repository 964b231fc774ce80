"""Files of frames: what was written is read, and no byte of it can be another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.files import FileRefused, frames

RECORDS = [(b"A", b"first"), (b"B", b""), (b"A", b"third" * 20)]


def written(records: list[tuple[bytes, bytes]]) -> bytes:
    chain = frames.Chain()
    return frames.MAGIC + b"".join(b"".join(chain.framed(*each)) for each in records)


def read(path: Path, data: bytes) -> tuple[list[tuple[bytes, bytes]], str]:
    path.write_bytes(data)
    with frames.opened(path) as found:
        return [(each.kind, each.payload) for each in found], found.cut


def test_frames_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read(tmp_path / "a", written(RECORDS)) == (RECORDS, "")


def test_a_payload_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(written(RECORDS))
    with frames.opened(tmp_path / "a") as found:
        assert [found.again(each.at, len(each.payload)) for each in found] == [payload for _, payload in RECORDS]


def test_a_file_that_was_cut_off_anywhere_is_read_up_to_its_last_whole_frame(tmp_path: Path) -> None:
    whole = written(RECORDS)
    ends = [len(written(RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    for length in range(1, len(whole)):
        found, cut = read(tmp_path / "a", whole[:length])
        assert found == RECORDS[: max(0, sum(end <= length for end in ends) - 1)]
        assert (cut == "") == (length in ends), length


def test_any_byte_that_was_altered_is_refused(tmp_path: Path) -> None:
    whole = written(RECORDS)
    for at in range(len(whole)):
        with pytest.raises(FileRefused, match="altered bytes in the record at byte|a file that begins with"):
            read(tmp_path / "a", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (0, 1, 2, 2)])
def test_frames_that_were_moved_left_out_or_doubled_are_refused(tmp_path: Path, order: tuple[int, ...]) -> None:
    ends = [len(written(RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    whole = written(RECORDS)
    parts = [whole[ends[number] : ends[number + 1]] for number in order]
    with pytest.raises(FileRefused, match="altered bytes"):
        read(tmp_path / "a", frames.MAGIC + b"".join(parts))


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"harness frames 2"])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FileRefused, match="expected a file of frames"):
        read(tmp_path / "a", data)
