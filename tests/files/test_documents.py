"""Strict JSON is JSON whose values mean the same wherever they are read; everything else is refused by field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.files import FileRefused, documents

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(documents.LOWEST, documents.HIGHEST), st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
DOCUMENTS = st.recursive(LEAVES, lambda inside: st.one_of(st.lists(inside), st.dictionaries(st.text(), inside)))


@given(DOCUMENTS, st.booleans())
def test_every_document_of_json_reads_back(document: object, ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    assert documents.parse(text.encode(), "a") == document


REFUSED = {
    "NaN": ('{"a": [1, NaN]}', r"a\[1\]: got NaN, expected a finite number"),
    "infinity": ('{"a": {"b": -Infinity}}', r"a\.b: got -Infinity, expected a finite number"),
    "overflow": ('{"a": 1e999}', "a: got 1e999, expected a finite number"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "a: got an integer of 5000 characters, expected an integer of 64 bits"),
    "65 bits": ('{"a": 18446744073709551616}', "a: got an integer of 20 characters"),
    "below 64 bits": ('{"a": -9223372036854775809}', "a: got an integer of 20 characters"),
    "fraction": ('{"a": 0.' + "1" * 5000 + "}", "a: got a number of 5002 characters"),
    "twice": ('{"a": {"b": 1, "c": 2, "b": 1}}', r"a\.b: got the name twice, expected each name once"),
    "surrogate": ('{"a": ["x", "y\\ud800"]}', r"a\[1\]: got a lone surrogate at 1, expected text in Unicode"),
    "surrogate in a name": ('{"a": {"\\udfff": 1}}', "a: got a lone surrogate at 0"),
    "nothing": ("", "expected JSON"),
    "half": ('{"a": ', "expected JSON"),
    "two": ("{} {}", "expected JSON"),
    "byte order mark": ("\ufeff{}", "expected JSON"),
    "control character": ('{"a": "\x1b[31m"}', "expected JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_strict_json_is_refused_by_file_and_field(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(FileRefused, match=f"^some.json: .*{message}") as refused:
        documents.parse(text.encode(), "some.json")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("data", [b"\xff\xfe{\x00}\x00", b'"\xed\xa0\x80"', b'{"a": "\xff"}'])
def test_no_other_encoding_is_guessed(data: bytes) -> None:
    with pytest.raises(FileRefused, match="expected text in UTF-8"):
        documents.parse(data, "a")


@pytest.mark.parametrize("levels", [documents.DEPTH + 1, 500, 100_000])
@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")])
def test_deep_nesting_is_refused(levels: int, opening: str, closing: str) -> None:
    with pytest.raises(FileRefused, match=f"nested deeper than {documents.DEPTH}"):
        documents.parse(opening * levels + "1" + closing * levels, "a")


def test_the_depth_itself_is_allowed() -> None:
    documents.parse("[" * documents.DEPTH + "]" * documents.DEPTH, "a")


@pytest.mark.parametrize("value", [",", "[],", "{},", '"",'])
def test_more_values_than_memory_is_meant_for_are_refused_before_they_are_made(value: str) -> None:
    text = "[" + value * 4_000_000 + "1]"
    with pytest.raises(FileRefused, match="expected at most 1000000 values"):
        documents.parse(text, "a")


def test_the_number_of_values_is_a_bound_itself() -> None:
    assert documents.parse("[1, 2, 3]", "a", values=4) == [1, 2, 3]
    with pytest.raises(FileRefused, match="at most 3 values"):
        documents.parse("[1, 2, 3]", "a", values=3)


def test_a_file_is_read_within_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1.5}')
    assert documents.load(path) == {"a": 1.5}
    with pytest.raises(FileRefused, match="expected at most 9 bytes"):
        documents.load(path, limit=9)


def test_zero_keeps_its_sign() -> None:
    assert math.copysign(1, documents.parse("-0.0", "a")) == -1
