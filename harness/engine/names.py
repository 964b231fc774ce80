"""Names of results: a caller's own, and automatic ones, `request-0`, `request-1` and so on."""

from __future__ import annotations

import re

_AUTOMATIC = re.compile(r"request-(0|[1-9][0-9]{0,17})")
"""Longer numbers are not reached by counting."""


def automatic(number: int) -> str:
    """Return the automatic name with a number."""
    return f"request-{number}"


def beyond(name: str | int) -> int:
    """Return the first number whose automatic name comes after `name`; 0 for a name of another form."""
    found = _AUTOMATIC.fullmatch(name) if isinstance(name, str) else None
    return 0 if found is None else int(found[1]) + 1
