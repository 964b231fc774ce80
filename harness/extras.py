"""Packages that only an extra of this project installs, by the module that is imported."""

from __future__ import annotations

ENGINE, COMMAND = "engine", "engine,cli"
"""Extras that the engine needs, and that the command line needs."""

MODULES = ("click", "rich", "diffusers", "ptwt", "pywt")
"""Modules of the extras `engine` and `cli`."""


def needed(who: str, extras: str, error: ModuleNotFoundError) -> str:
    """Return the sentence that says what to install; empty if the missing module belongs to none of these extras.

    Args:
        who: the part of the project that needs the module, such as `lockstep.switch`.
        extras: the extras to install, separated by commas.
        error: the failed import.
    """
    module = (error.name or "").split(".")[0]
    return f"{who} needs pip install 'stream-harness[{extras}]'" if module in MODULES else ""
