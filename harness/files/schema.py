"""Holds documents to a schema: the annotations of a dataclass say which fields there are, and what each may be.

A schema is a class or an annotation: `str`, `int`, `float`, `bool`, `None`, `X | Y`, `tuple[X, ...]`, `tuple[X, Y]`,
`list[X]`, `Mapping[str, X]` or `dict[str, X]`, a dataclass, `Annotated[X, Within(...)]`, `Annotated[str, Text(...)]`
or `Any`. An integer is no text, a bool no integer; an integer is a float. A dataclass takes its fields and no others.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from harness.files.refused import FileRefused, Place, described, field_of


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both included."""

    low: float
    high: float

    def __call__(self, value: Any) -> bool:
        """True inside the bounds."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        """For messages."""
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Text:
    """The longest length of a text in characters, and a pattern that the whole text matches."""

    longest: int
    pattern: str = r"(?s:.*)"

    def __call__(self, value: Any) -> bool:
        """True for such a text."""
        return len(value) <= self.longest and re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        """For messages."""
        return f"of at most {self.longest} characters" + ("" if self.pattern == Text.pattern else f", {self.pattern}")


Sha256 = Annotated[str, Text(64, "[0-9a-f]{64}")]
"""A digest in hexadecimal."""
Name = Annotated[str, Text(4096)]
"""A name, a version or a reason."""
Folder = Annotated[str, Text(255, r"(?!\.)[^/\\\x00]+")]
"""The name of a file or folder inside a known folder, with no way out of it."""
Natural = Annotated[int, Within(0, 2**53)]
"""A count or a size."""


class _Unfit(Exception):
    def __init__(self, place: Place, got: str, expected: str) -> None:
        super().__init__(expected)
        self.place, self.got, self.expected = place, got, expected


def fit(kind: Any, document: Any, path: Path | str, place: Place = ()) -> Any:
    """The document as what the schema says.

    Args:
        kind: the schema, such as a dataclass.
        document: what a reader of this package returned.
        path: where it is from, for messages.
        place: where the document stands in its file.

    Raises:
        FileRefused: the document does not fit; the message names the first field that does not.
    """
    try:
        return _fit(kind, document, tuple(place))
    except _Unfit as unfit:
        raise FileRefused(path, field_of(unfit.place), unfit.got, unfit.expected) from None


def _fit(kind: Any, value: Any, place: Place) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _bounded(arguments[0], arguments[1], value, place)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, place)
    if is_dataclass(kind):
        return _record(kind, value, place)
    if origin in (list, tuple):
        return _listed(origin, arguments, value, place)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _Unfit(place, described(value), "a mapping")
        return {name: _fit(arguments[1], each, (*place, name)) for name, each in value.items()}
    return _plain(kind, value, place)


def _plain(kind: Any, value: Any, place: Place) -> Any:
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise _Unfit(place, described(value), _WORDS[kind])


_WORDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false", types.NoneType: "null"}


def _bounded(kind: Any, bound: Within | Text, value: Any, place: Place) -> Any:
    fitted = _fit(kind, value, place)
    if not bound(fitted):
        raise _Unfit(place, described(value), f"{_WORDS.get(kind, 'a value')} {bound}")
    return fitted


def _one_of(kinds: tuple[Any, ...], value: Any, place: Place) -> Any:
    """The first schema that fits; where none does, what the one of a mapping or a list says, which names a field."""
    unfit = []
    for kind in kinds:
        try:
            return _fit(kind, value, place)
        except _Unfit as error:
            unfit.append(error)
    deepest = max(unfit, key=lambda each: len(each.place))
    if len(deepest.place) > len(place):
        raise deepest
    raise _Unfit(place, described(value), " or ".join(dict.fromkeys(each.expected for each in unfit)))


def _listed(origin: Any, kinds: tuple[Any, ...], value: Any, place: Place) -> Any:
    if not isinstance(value, list):
        raise _Unfit(place, described(value), "a list")
    if origin is tuple and kinds[-1] is not ...:
        if len(value) != len(kinds):
            raise _Unfit(place, described(value), f"a list of {len(kinds)}")
    else:
        kinds = (kinds[0],) * len(value)
    steps = enumerate(zip(kinds, value, strict=True))
    return origin(_fit(kind, each, (*place, index)) for index, (kind, each) in steps)


def _record(kind: Any, value: Any, place: Place) -> Any:
    if not isinstance(value, dict):
        raise _Unfit(place, described(value), "a mapping")
    known = _fields(kind)
    for name in value:
        if name not in known:
            raise _Unfit((*place, name), "an unknown field", f"one of {', '.join(known)}")
    for name, (_, needed) in known.items():
        if needed and name not in value:
            raise _Unfit((*place, name), "no such field", "one")
    return kind(**{name: _fit(known[name][0], each, (*place, name)) for name, each in value.items()})


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The schema of each field, and whether the field has to be there."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        each.name: (hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    }
