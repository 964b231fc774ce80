"""Trees of events as documents of strict JSON; tensors stay outside and are named by their content.

A document holds null, booleans, texts, numbers, and mappings of one name that say what they stand for:

    {"tensor": DIGEST} {"list": [...]} {"tuple": [...]} {"dict": [[key, value], ...]} {"float": "nan"} {"int": "0x..."}
    {"array": DIGEST}                          an array of NumPy
    {"record": [NAME, {field: value}]}         a record of the engine; see `records`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.files import FileRefused, documents
from harness.files.refused import described, field_of
from harness.files.schema import Name, Sha256, fit

DEPTH = 12
"""The most containers inside each other in an event."""
TENSORS = 4096
"""The most tensors of an event."""

Place = tuple[str | int, ...]


class NotStorable(TypeError):
    """A value of an event cannot be stored in a trace; the message names its place."""


class Encoder:
    """Encoder of one event.

    Args:
        records: encoders of further types by type; each takes the encoder, the value and its place.

    Attributes:
        tensors: the tensors that were met, by place, in order.
    """

    def __init__(self, records: Mapping[type, Callable[[Encoder, Any, Place], Any]] | None = None) -> None:
        self.tensors: list[tuple[Place, Tensor]] = []
        self._records = records or {}

    def encoded(self, value: object, place: Place = ()) -> Any:
        """The document of a value; each tensor is a `Slot`, which `filled` replaces once its digest is known.

        Raises:
            NotStorable: a value of a kind that no document can hold, or too many of them inside each other.
        """
        if len(place) > DEPTH:
            raise NotStorable(f"{_shown(place)} lies deeper than {DEPTH} containers")
        if type(value) in self._records:
            return self._records[type(value)](self, value, place)
        if isinstance(value, Tensor):
            return {"tensor": self._slot(value, place)}
        if isinstance(value, np.ndarray):
            return {"array": self._slot(torch.from_numpy(value.copy()), place)}
        if value is None or isinstance(value, bool):
            return value
        return self._plain(value, place)

    def _plain(self, value: object, place: Place) -> Any:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            fits = documents.LOWEST <= value <= documents.HIGHEST
            return int(value) if fits else {"int": hex(value)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return {type(value).__name__: [self.encoded(each, (*place, n)) for n, each in enumerate(value)]}
        if isinstance(value, dict) and type(value) is dict:
            pairs = [[self._key(key, place), self.encoded(each, (*place, key))] for key, each in value.items()]
            return {"dict": pairs}
        raise NotStorable(f"{_shown(place)} is a {type(value).__name__}, which a trace cannot hold")

    def _key(self, key: object, place: Place) -> str | int:
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise NotStorable(f"{_shown(place)} has the key {key!r}, expected texts and integers")
        return key

    def _slot(self, tensor: Tensor, place: Place) -> Slot:
        if len(self.tensors) == TENSORS:
            raise NotStorable(f"the event has more than {TENSORS} tensors")
        self.tensors.append((place, tensor))
        return Slot(len(self.tensors) - 1)


class Slot(int):
    """Number of a tensor of an event, in the place where its digest will be."""


def filled(document: Any, digests: list[str]) -> Any:
    """The document with the digest of each tensor in place of its number."""
    if isinstance(document, Slot):
        return digests[document]
    if isinstance(document, dict):
        return {name: filled(each, digests) for name, each in document.items()}
    if isinstance(document, list):
        return [filled(each, digests) for each in document]
    return document


class Decoder:
    """Decoder of the events of a trace.

    Args:
        path: the trace, for messages.
        tensor: returns the tensor of a digest; raises `FileRefused` where the trace has none.
        records: makers of records by name; each takes the fields.
    """

    def __init__(
        self,
        path: Path,
        tensor: Callable[[str, str], Tensor],
        records: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
    ) -> None:
        self._path, self._tensor, self._records = path, tensor, records or {}
        self._rules: dict[str, Callable[[Any, Place], Any]] = {
            "tensor": lambda given, place: tensor(self._fit(Sha256, given, place), field_of(place)),
            "array": lambda given, place: tensor(self._fit(Sha256, given, place), field_of(place)).numpy(),
            "list": lambda given, place: self._items(given, place),
            "tuple": lambda given, place: tuple(self._items(given, place)),
            "dict": self._mapping,
            "int": self._integer,
            "float": self._number,
            "record": self._record,
        }

    def decoded(self, document: Any, place: Place = ()) -> Any:
        """The value of a document.

        Raises:
            FileRefused: the document is none of those that `Encoder` makes.
        """
        if isinstance(document, dict) and len(document) == 1:
            ((kind, given),) = document.items()
            if kind in self._rules:
                return self._rules[kind](given, place)
        if isinstance(document, dict | list):
            raise self._bad(place, document, "a value of an event")
        return document

    def _items(self, given: Any, place: Place) -> list[Any]:
        return [self.decoded(each, (*place, n)) for n, each in enumerate(self._fit(list[Any], given, place))]

    def _mapping(self, given: Any, place: Place) -> dict[Any, Any]:
        pairs = self._fit(list[tuple[str | int, Any]], given, place)
        found = {key: self.decoded(each, (*place, key)) for key, each in pairs}
        if len(found) != len(pairs):
            raise self._bad(place, given, "each key once")
        return found

    def _integer(self, given: Any, place: Place) -> int:
        text = self._fit(Name, given, place)
        try:
            return int(text, 16)
        except ValueError:
            raise self._bad(place, given, "an integer in hexadecimal") from None

    def _number(self, given: Any, place: Place) -> float:
        if given not in ("nan", "inf", "-inf"):
            raise self._bad(place, given, "nan, inf or -inf")
        return float(given)

    def _record(self, given: Any, place: Place) -> Any:
        name, fields = self._fit(tuple[Name, dict[str, Any]], given, place)
        if name not in self._records:
            raise self._bad(place, name, f"one of {', '.join(self._records)}")
        values = {field: self.decoded(each, (*place, field)) for field, each in fields.items()}
        try:
            return self._records[name](values)
        except (InvalidInput, TypeError, ValueError) as error:
            if isinstance(error, FileRefused):
                raise
            raise self._bad(place, name, f"a {name} that can be made ({ascii(str(error))[1:-1][:200]})") from error

    def _fit(self, kind: Any, given: Any, place: Place) -> Any:
        return fit(kind, given, self._path, place)

    def _bad(self, place: Place, given: object, expected: str) -> FileRefused:
        return FileRefused(self._path, field_of(place), described(given), expected)


def _shown(place: Place) -> str:
    return field_of(place) or "the event"
