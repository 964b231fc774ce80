"""The error of a file that is not used, and how values of such a file are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_SHOWN = 120
"""Characters of a value in a message."""

Place = Sequence[str | int]
"""The way to a value in a document: names of mappings and indices of lists, outermost first."""


class FileRefused(ValueError):
    """A file cannot be used.

    Attributes:
        path: the file.
        field: the field of the file, such as `scenarios.cfg_full.size`; empty where it is the file as a whole.
        why: the message without the path.
    """

    def __init__(self, path: Path | str, field: str, got: str, expected: str) -> None:
        """Make the message: the `path`, the `field`, what it `got`, and what was `expected`."""
        self.path = Path(path)
        self.field = field
        self.why = (f"{field}: " if field else "") + f"got {got}, expected {expected}"
        super().__init__(f"{path}: {self.why}")


class FileMissing(FileRefused):
    """There is no such file."""


def described(value: object) -> str:
    """A value of a file for a message, in one line and cut to a length; control characters are escaped."""
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = ascii(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def field_of(place: Place) -> str:
    """A place in a document as text, such as `scenarios.cfg_full.ticks[3]`."""
    words = [f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in place]
    return "".join(words).removeprefix(".")


def shown(text: str) -> str:
    """A text for a terminal: characters that are not printable, but line ends, become escape sequences.

    An escape character of a file would otherwise move the cursor, colour or overwrite what is on the terminal.
    """
    if text.isprintable():
        return text
    return "".join(each if each == "\n" or each.isprintable() else ascii(each)[1:-1] for each in text)


def _name(step: str) -> str:
    cut = step if len(step) <= _SHOWN else step[:_SHOWN] + "..."
    return cut if cut.isascii() and cut.isprintable() else ascii(cut)
