"""Runs of make below tests, which make itself may have started."""

from __future__ import annotations

import os


def without_make() -> dict[str, str]:
    """The environment without what a make that runs the tests tells one that a test runs, which then prints more."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
