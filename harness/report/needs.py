"""The packages that a report needs, which are an extra of the installation."""

from __future__ import annotations

from importlib.util import find_spec

from harness.engine.errors import EngineError

PACKAGES = {"jinja2": "Jinja2", "PIL": "pillow"}


class NotInstalled(EngineError):
    """A report needs packages that are not installed; the message says how to get them."""


def check() -> None:
    """Check that a report can be made, before the work that it is about.

    Raises:
        NotInstalled: a package is missing.
    """
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise NotInstalled(f"a report needs {' and '.join(missing)}: pip install 'stream-harness[report]'")
