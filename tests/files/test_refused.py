"""What a file says is shown on a terminal without moving its cursor or colouring it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.files.refused import FileRefused, described, field_of, shown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain, max |Δ| 0.1 – ok", "plain, max |Δ| 0.1 – ok"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\x08c\x7f\x9b31m", r"a\rb\x08c\x7f\x9b31m"),
        ("right \u202e to left", r"right \u202e to left"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_control_character_becomes_an_escape_sequence(text: str, escaped: str) -> None:
    assert shown(text) == escaped


@given(st.text(st.characters()))
def test_nothing_that_is_shown_controls_a_terminal(text: str) -> None:
    assert all(each == "\n" or each.isprintable() for each in shown(text))
    assert shown(shown(text)) == shown(text)


def test_an_error_says_file_field_value_and_expectation() -> None:
    error = FileRefused(Path("a") / "b.json", "c.d", "1", "a text")
    assert str(error) == "a/b.json: c.d: got 1, expected a text"
    assert (error.path, error.field) == (Path("a/b.json"), "c.d")
    assert str(FileRefused("a", "", "1", "a text")) == "a: got 1, expected a text"


def test_a_place_reads_like_a_path_of_attributes() -> None:
    assert field_of(("a", 0, "b", "c\x1b")) == "a[0].b.'c\\x1b'"
    assert field_of(()) == ""
    assert len(field_of(("x" * 10_000,))) < 200


@pytest.mark.parametrize("value", ["x" * 10**6, "\ud800\x1b" * 10, {"a": 1}, [1] * 10**6, 10**400, 1.5, None])
def test_any_value_is_described_in_one_short_line(value: object) -> None:
    assert described(value).isprintable()
    assert len(described(value)) <= 120
