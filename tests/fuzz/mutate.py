"""Mutations of files: bytes flipped and cut, values of documents replaced by hostile ones, nesting, huge numbers."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

from tests.files.hostile import sealed

RAW = "\0raw:"
"""Begins a text that stands for JSON which `json.dumps` does not write."""
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 2**200, -(2**70), 0.5, -0.0, 1e308, -1e308, float("nan"),
    float("inf"), "", "0", "x" * 100_000, "\x1b[2J\x1b]0;owned\x07", "\ud800", "\u202e", "../../outside", "/etc/passwd",
    "1-200000000", "\0", [], {}, [[]], {"": 0}, [None] * 1000, {"a": {"b": {"c": []}}}, "9" * 5000, "NaN",
    "[ONNX Layer: " * 20_000, RAW + '{"a":' * 2000 + "1" + "}" * 2000,
    RAW + "9" * 5000, RAW + "1e999", RAW + "-Infinity", RAW + "[" * 2000 + "]" * 2000,
    RAW + '{"a": 1, "a": 2}', RAW + "0." + "1" * 5000, RAW + "[" + "[]," * 300_000 + "[]]", RAW + '"\\ud800"',
)  # fmt: skip
_NOISE = (b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN", b"[" * 1000, b'"', b"\\ud800", b"\x1b[31m", b"9" * 500, b"}", b",")


def mutated(data: bytes, draw: Random, *, seals: bool) -> tuple[bytes, bool]:
    """A mutation of a file.

    Args:
        data: the file.
        draw: decides which mutation.
        seals: True: the file is a document with a digest of itself, and some mutations renew it.

    Returns:
        The mutation, and whether its digest was renewed.
    """
    document = _document(data)
    if document is None or draw.random() < 0.3:
        for _ in range(draw.choice((1, 1, 2, 8))):
            data = _bytes(data, draw)
        return data, False
    for _ in range(draw.choice((1, 1, 2, 4))):
        document = _replaced(document, draw)
    if seals and isinstance(document, dict) and draw.random() < 0.8:
        with suppress(ValueError, TypeError, RecursionError):  # what no writer can seal
            return sealed(document), True
    return _written(document), False


def _document(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _bytes(data: bytes, draw: Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 2, 8, 64, 4096)))
    return draw.choice((
        data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
        data[:at],
        data[at:],
        data[:at] + data[end:],
        data[:end] + data[at:],
        data[:at] + draw.choice(_NOISE) + data[at:],
        data[:at] + draw.choice(_NOISE) + data[end:],
    ))  # fmt: skip


def _replaced(document: Any, draw: Random) -> Any:
    """A copy with one value replaced, removed, doubled or moved to another place."""
    if not isinstance(document, dict | list) or not document or draw.random() < 0.05:
        return draw.choice(HOSTILE)
    copy = dict(document) if isinstance(document, dict) else list(document)
    step: Any = draw.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    action = draw.random()
    if action < 0.6 and isinstance(copy[step], dict | list):
        copy[step] = _replaced(copy[step], draw)
    elif action < 0.85:
        copy[step] = draw.choice(HOSTILE)
    elif action < 0.92:
        del copy[step]
    elif isinstance(copy, dict):
        name = draw.choice(("", "new", "../x", "\x1b[31m", "x" * 5000, step + "\0"))
        copy[name] = copy[step]
    else:
        copy.extend(copy[:])
    return copy


def _written(document: Any) -> bytes:
    text = json.dumps(document)
    begin = json.dumps(RAW)[:-1]
    while (at := text.find(begin)) >= 0:
        end = json.JSONDecoder().raw_decode(text, at)[1]
        text = text[:at] + json.loads(text[at:end])[len(RAW) :] + text[end:]
    return text.encode(errors="surrogatepass")
