"""Strict JSON: UTF-8, finite numbers of 64 bits, no name twice, no lone surrogate, bounded depth and number of values.

JSON as Python reads it allows all of these, and each is a value that is read here and fails elsewhere: a NaN that no
comparison finds, an integer that takes minutes to print, a text that cannot be encoded, a mapping that says two things.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from harness.files import reading
from harness.files.refused import FileRefused, Place, field_of

LIMIT = 64 * reading.MIB
"""The largest JSON file in bytes."""
DEPTH = 32
"""The most lists and mappings inside each other."""
VALUES = 1_000_000
"""The most values in a document: each takes some hundred bytes of memory, however few it has in the file."""
LOWEST, HIGHEST = -(2**63), 2**64 - 1
"""The integers that a document may hold."""
_DIGITS = 400
"""The most characters of a number."""


class _Bad(NamedTuple):
    """Takes the place of a value that is refused, until the place in the document is known."""

    got: str
    expected: str


def load(path: Path, limit: int = LIMIT, values: int = VALUES) -> Any:
    """The document in a JSON file.

    Args:
        path: the file.
        limit: its largest size in bytes.
        values: the most values in it.

    Raises:
        FileMissing: there is no such file.
        FileRefused: see `reading.whole` and `parse`.
    """
    return parse(reading.whole(path, limit), path, values)


def parse(data: bytes | str, path: Path | str, values: int = VALUES) -> Any:
    """The document in a JSON text.

    Args:
        data: the text, as bytes in UTF-8.
        path: where it is from, for messages.
        values: the most values in it.

    Raises:
        FileRefused: it is not strict JSON; see the module.
    """
    text = data if isinstance(data, str) else reading.decoded(path, data)
    # Counted in the text, strings included, because the values would take the memory that this is to protect.
    if 1 + sum(map(text.count, ",[{")) > values:
        raise FileRefused(path, "", "more values than that", f"at most {values} values")
    try:
        document = json.loads(
            text,
            object_pairs_hook=_mapping,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=lambda name: _Bad(name, "a finite number"),
        )
    except RecursionError as error:
        raise FileRefused(path, "", f"values nested deeper than {DEPTH}", "JSON") from error
    except ValueError as error:
        raise FileRefused(path, "", ascii(str(error))[1:-1], "JSON") from error
    _check(path, document)
    return document


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        found[twice] = _Bad("the name twice", "each name once")
    return found


def _integer(digits: str) -> int | _Bad:
    if len(digits) <= _DIGITS and LOWEST <= (value := int(digits)) <= HIGHEST:
        return value
    return _Bad(f"an integer of {len(digits)} characters", "an integer of 64 bits")


def _number(digits: str) -> float | _Bad:
    if len(digits) <= _DIGITS and math.isfinite(value := float(digits)):
        return value
    return _Bad(digits if len(digits) <= _DIGITS else f"a number of {len(digits)} characters", "a finite number")


def _check(path: Path | str, document: Any) -> None:
    """Refuse a value that is no value of strict JSON."""
    waiting: list[tuple[Place, Any]] = [((), [document])]
    while waiting:
        place, container = waiting.pop()
        for name in container if isinstance(container, dict) else ():
            _check_text(path, place, name)
        for step, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, str):
                _check_text(path, (*place, step), value)
            elif isinstance(value, _Bad):
                raise FileRefused(path, field_of((*place, step)[1:]), *value)
            elif isinstance(value, dict | list):
                # The outermost list is this function's own.
                if len(place) == DEPTH:
                    raise FileRefused(path, field_of(place[1:]), f"values nested deeper than {DEPTH}", "fewer")
                waiting.append(((*place, step), value))


def _check_text(path: Path | str, place: Place, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FileRefused(path, field_of(place[1:]), f"a lone surrogate at {error.start}", "text in Unicode") from error
