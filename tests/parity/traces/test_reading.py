"""Traces that were cut off, altered or made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.files import FileRefused, frames
from harness.parity.compare import NothingCompared
from harness.parity.traces import replayed
from harness.parity.traces.contents import stored
from harness.parity.traces.reading import opened, verified
from harness.parity.traces.replay import OtherPlatform
from tests.parity.traces.plain import Counter, Plain, counted

Records = list[tuple[bytes, bytes]]


def records(path: Path) -> Records:
    with frames.opened(path) as found:
        return [(each.kind, each.payload) for each in found]


def written(path: Path, kept: Records) -> Path:
    chain = frames.Chain()
    path.write_bytes(frames.MAGIC + b"".join(b"".join(chain.framed(*each)) for each in kept))
    return path


def changed(path: Path, number: int, change: Callable[[Any], Any]) -> Path:
    """The trace with another document in a record, and new digests."""
    kept = records(path)
    kept[number] = kept[number][0], json.dumps(change(json.loads(kept[number][1]))).encode()
    return written(path, kept)


def test_a_trace_that_was_cut_off_at_any_byte_has_its_whole_events_or_is_refused(tmp_path: Path) -> None:
    path = counted(tmp_path / "a", events=2)
    whole, found = path.read_bytes(), set()
    begins = len(written(tmp_path / "b", records(path)[:1]).read_bytes())
    some = range(begins + 60, len(whole) - 900, 211)
    for length in [*range(0, begins, 7), *range(begins, begins + 60), *some, *range(len(whole) - 900, len(whole))]:
        path.write_bytes(whole[:length])
        try:
            trace = verified(path)
        except FileRefused as refused:
            assert "got no header" in str(refused) or "expected a file of frames" in str(refused)
            found.add("refused")
        else:
            assert "the file ends" in trace.cut
            found.add(str(trace.events))
    assert found == {"refused", "0", "1", "2", "3"}


def test_a_trace_that_was_cut_off_is_played_up_to_its_last_whole_event_and_says_so(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-300])
    result = replayed(path, Counter)
    assert result.ticks in (4, 5)
    assert "the trace is not whole: the file ends at byte" in str(result)


def test_an_altered_byte_anywhere_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(FileRefused, match="altered bytes|a file that begins with"):
            replayed(path, lambda: pytest.fail("a ring was made"))


def test_a_tensor_in_the_place_of_another_one_is_refused(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    kept = records(path)
    at = max(number for number, (kind, _) in enumerate(kept) if kind == b"T")
    kept[at] = b"T", stored(torch.arange(3.0) + 99)
    with pytest.raises(
        FileRefused, match=r"\[0\].add: got the tensor .*, expected a tensor that a record before holds"
    ):
        replayed(written(path, kept), Counter)


LAST, FIRST_EVENT = -2, -8


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, lambda d: {**d, "format": 2}, "format: got 2, expected the format 1"),
        (0, lambda d: [], "format: got None"),
        (0, lambda d: {**d, "subject": "car"}, "subject: got 'car'"),
        (0, lambda d: {**d, "fingerprint": {"threads": "many"}}, "fingerprint.threads: got 'many'"),
        (LAST, lambda d: {**d, "n": 3}, "n: got 3, expected the event 6"),
        (LAST, lambda d: {**d, "ticks": 0}, "event 6.ticks: got 0, expected at least 5"),
        (LAST, lambda d: {**d, "more": 0}, "event 6.more: got an unknown field"),
        (LAST, lambda d: {**d, "made": [["a", 1]]}, r"event 6.made\[0\]\[1\]: got 1, expected a text"),
        (LAST, lambda d: {**d, "call": "begin"}, "event 6: got 'begin', expected a step"),
        (LAST, lambda d: {**d, "given": {"list": []}}, "expected a step, with one value"),
        (LAST, lambda d: {**d, "given": {"list": [{"set": 1}]}}, r"\[0\]: got a mapping of 1, expected a value of an"),
        (LAST, lambda d: {**d, "given": {"list": [{"float": "1"}]}}, r"\[0\]: got '1', expected nan, inf or -inf"),
        (LAST, lambda d: {**d, "given": {"list": [{"int": "x"}]}}, "expected an integer in hexadecimal"),
        (LAST, lambda d: {**d, "given": {"list": [{"dict": [["a", 1], ["a", 2]]}]}}, "expected each key once"),
        (LAST, lambda d: {**d, "given": {"list": [{"record": ["Request", {}]}]}}, "got 'Request', expected one of"),
        (FIRST_EVENT, lambda d: {**d, "given": {"list": [{"list": []}]}}, "event 0: got other generators"),
        (
            FIRST_EVENT,
            lambda d: {**d, "given": {"list": [{"list": [1] * 5}]}},
            r"event 0\[0\]: got a state that cannot",
        ),
        (-1, lambda d: {**d, "events": 9}, "end.events: got 9, expected 7"),
    ],
)
def test_a_made_up_record_is_refused_by_name(tmp_path: Path, number: int, change: Any, message: str) -> None:
    path = counted(tmp_path / "a")
    events = [n for n, (kind, _) in enumerate(records(path)) if kind != b"T"]
    with pytest.raises(FileRefused, match=message):
        replayed(changed(path, events[number], change), Counter)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((b"?", b""), r"a record of the kind b'\?'"),
        ((b"T", b"\x02\x00{}"), "tensor.dtype: got no such field"),
        ((b"T", stored(torch.zeros(3))[:-1]), "tensor: got 11 bytes of shape"),
        ((b"T", stored(torch.tensor([True]))[:-1] + b"\x02"), "tensor: got the byte 2, expected booleans"),
        ((b"E", b"[" * 40), "JSON"),
    ],
)
def test_a_record_of_no_known_form_is_refused(tmp_path: Path, more: tuple[bytes, bytes], message: str) -> None:
    path = counted(tmp_path / "a")
    with pytest.raises(FileRefused, match=message):
        verified(written(path, [*records(path)[:-1], more]))


def test_a_record_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    with pytest.raises(FileRefused, match="a record behind the end"):
        verified(written(path, [*records(path), records(path)[-1]]))


def test_a_trace_of_another_platform_is_not_compared_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), 0, lambda d: {**d, "fingerprint": {**d["fingerprint"], "torch": "0.1"}})
    with pytest.raises(OtherPlatform, match="which differs here in torch: not compared"):
        replayed(path, Counter)
    assert "other in torch" in str(replayed(path, Counter, any_platform=True))


def test_a_trace_in_which_nothing_was_made_is_no_proof(tmp_path: Path) -> None:
    path = counted(tmp_path / "a")
    with pytest.raises(NothingCompared, match="none of 0 events"):
        replayed(written(path, records(path)[:1]), Plain)


def test_a_tensor_is_what_it_was_in_every_dtype(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.complex64, torch.bool, torch.float8_e4m3fn, torch.uint16, torch.int64):
        with opened(written(tmp_path / "a", [*records(counted(tmp_path / str(dtype)))[:1]])) as trace:
            assert list(trace) == []
