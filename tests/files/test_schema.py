"""A document that fits its schema becomes what the schema says, and one that does not is refused by the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from harness.files import FileRefused
from harness.files.schema import Natural, Sha256, Text, Within, fit


@dataclass(frozen=True)
class Inner:
    size: Natural
    shapes: tuple[tuple[int, ...], ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    inner: Mapping[str, Inner]
    pair: tuple[int, str]
    share: Annotated[float, Within(0, 1)] = 0.5
    found: list[Inner] = field(default_factory=list)
    short: Annotated[str, Text(3, "[a-z]*")] = ""
    extra: Any = None
    on: bool = False


GOOD = {
    "inner": {"a": {"size": 3, "shapes": [[1, 2], []]}},
    "pair": [1, "x"],
    "share": 1,
    "found": [{"size": 0, "note": "why"}],
    "extra": {"anything": [None]},
    "on": True,
}


def test_a_document_that_fits_becomes_the_record() -> None:
    made = fit(Outer, GOOD, "a.json")
    assert made == Outer(
        {"a": Inner(3, ((1, 2), ()))}, (1, "x"), 1.0, [Inner(0, note="why")], extra={"anything": [None]}, on=True
    )
    assert type(made.share) is float


UNFIT: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("inner",), [], r"inner: got a mapping|inner: got a list of 0, expected a mapping"),
    (("inner", "a", "size"), "3", r"inner\.a\.size: got '3', expected an integer"),
    (("inner", "a", "size"), True, r"inner\.a\.size: got True, expected an integer"),
    (("inner", "a", "size"), 3.0, r"inner\.a\.size: got 3\.0, expected an integer"),
    (("inner", "a", "size"), -1, r"inner\.a\.size: got -1, expected an integer from 0"),
    (("inner", "a", "size"), 2**60, r"inner\.a\.size: got \d+, expected an integer from 0"),
    (("inner", "a", "shapes", 0, 1), None, r"inner\.a\.shapes\[0\]\[1\]: got None, expected an integer"),
    (("inner", "a", "shapes", 0), {}, r"inner\.a\.shapes\[0\]: got a mapping of 0, expected a list"),
    (("inner", "a", "note"), 5, r"inner\.a\.note: got 5, expected a text or null"),
    (("inner", "a", "new"), 5, r"inner\.a\.new: got an unknown field, expected one of size, shapes, note"),
    (("inner", "a"), "text", r"inner\.a: got 'text', expected a mapping"),
    (("inner", "\x1b[31m"), 1, r"inner\.'\\x1b\[31m': got 1, expected a mapping"),
    (("pair",), [1], r"pair: got a list of 1, expected a list of 2"),
    (("pair", 1), 1, r"pair\[1\]: got 1, expected a text"),
    (("share",), 1.5, r"share: got 1\.5, expected a number from 0 to 1"),
    (("share",), "1", "share: got '1', expected a number"),
    (("found", 0, "size"), None, r"found\[0\]\.size: got None"),
    (("short",), "abcd", "short: got 'abcd', expected a text of at most 3 characters"),
    (("short",), "AB", "short: got 'AB'"),
    (("on",), 1, "on: got 1, expected true or false"),
]


@pytest.mark.parametrize(("place", "value", "message"), UNFIT)
def test_what_does_not_fit_is_refused_by_field(place: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(FileRefused, match=f"^a.json: ({message})") as refused:
        fit(Outer, changed(GOOD, place, value), "a.json")
    assert str(refused.value).isprintable()


def test_a_field_that_has_to_be_there_is_missed_by_name() -> None:
    with pytest.raises(FileRefused, match=r"a\.json: pair: got no such field, expected one"):
        fit(Outer, {"inner": {}}, "a.json")


@pytest.mark.parametrize("document", [None, 1, "text", [], [GOOD]])
def test_what_is_no_mapping_is_no_record(document: Any) -> None:
    with pytest.raises(FileRefused, match=r"^a\.json: got .*, expected a mapping"):
        fit(Outer, document, "a.json")


def test_a_document_inside_another_one_is_named_with_its_place() -> None:
    with pytest.raises(FileRefused, match=r"^a\.json: scenarios\.x\.size: got None"):
        fit(Inner, {"size": None}, "a.json", ("scenarios", "x"))


@pytest.mark.parametrize("text", ["0" * 63, "0" * 65, "0" * 63 + "G", "0" * 64 + "\n", ""])
def test_a_digest_is_64_digits(text: str) -> None:
    assert fit(Sha256, "0" * 64, "a") == "0" * 64
    with pytest.raises(FileRefused):
        fit(Sha256, text, "a")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(FileRefused) as refused:
        fit(Natural, "x" * 10**6, "a")
    assert len(str(refused.value)) < 300


def changed(document: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """A copy of a document with another value in one place."""
    if not place:
        return value
    step, *rest = place
    copy = list(document) if isinstance(document, list) else dict(document)
    inside = copy[step] if isinstance(copy, list) or step in copy else None  # type: ignore[index]
    copy[step] = changed(inside, tuple(rest), value)  # type: ignore[index]
    return copy
