"""Names of results: a caller's own, and automatic ones, `request-0`, `request-1` and so on."""

from __future__ import annotations

import re

from harness.engine import checks
from harness.engine.errors import InvalidInput

_AUTOMATIC = re.compile(r"request-(0|[1-9][0-9]*)")

DIGITS = 18
"""A caller's name may have the form of an automatic one with so many digits; longer ones are automatic names alone."""


def automatic(number: int) -> str:
    """Return the automatic name with a number."""
    return f"request-{number}"


def beyond(name: str | int) -> int:
    """Return the first number whose automatic name comes after a caller's `name`; 0 for a name of another form.

    Raises:
        InvalidInput: the form is that of an automatic name, and the number has more than `DIGITS` digits.
    """
    found = _AUTOMATIC.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        return 0
    if len(found[1]) > DIGITS:
        raise InvalidInput("id", checks.describe(name), f"a number of at most {DIGITS} digits after `request-`")
    return int(found[1]) + 1
