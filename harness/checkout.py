"""The checkout that commands work on: the folder with the settings, `[tool.harness]`, and with `captures/`.

It is the one that holds this package. Of a package that was installed elsewhere it is the checkout in which the process
stands, but only where that has no package of its own: captures say nothing of another engine than theirs.
"""

from __future__ import annotations

from pathlib import Path

from harness.files import FileRefused, reading

PACKAGE = Path(__file__).resolve().parent
"""The folder of this package."""


def root(package: Path = PACKAGE, folder: Path | None = None) -> Path:
    """The checkout to work on; the folder that holds the package where there is none.

    Args:
        package: the folder of the package that runs.
        folder: where the process stands; None is the working folder.
    """
    if is_checkout(package.parent):
        return package.parent
    found = around(folder)
    return package.parent if found is None or has_package(found) else found


def around(folder: Path | None = None) -> Path | None:
    """The nearest checkout among a folder and its parents; None where there is none.

    Args:
        folder: None is the working folder, which may have been deleted.
    """
    try:
        start = (folder or Path.cwd()).resolve()
    except FileNotFoundError:
        return None
    return next((each for each in (start, *start.parents) if is_checkout(each)), None)


def is_checkout(folder: Path) -> bool:
    """True where the folder has a `pyproject.toml` with `[tool.harness]`."""
    path = folder / "pyproject.toml"
    try:
        text = reading.whole(path).decode(errors="replace")
    except FileRefused:
        # A file above that this user may not read is nobody's settings, and neither is a folder or a FIFO.
        return False
    try:
        tool = reading.toml_of(text, path).get("tool", {})
    except FileRefused:
        # One that is being edited is still the checkout; whoever reads its settings says what is wrong with them.
        return "[tool.harness]" in text
    return isinstance(tool, dict) and "harness" in tool


def has_package(checkout: Path) -> bool:
    """True where the checkout holds a package of this name."""
    return (checkout / PACKAGE.name / "__init__.py").is_file()
