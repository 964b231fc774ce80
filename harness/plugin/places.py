"""Places of a run's captures, the check that the run may bless them, and the check that the engine is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.parity.baselines.blessed import Place


def refuse_to_bless(config: pytest.Config) -> None:
    """Check that the run may bless, and keep other processes from blessing the same captures until it ends.

    Raises:
        UsageError: under continuous integration, without a reason, with uncommitted captures, in several processes, or
            while another process blesses.
    """
    from harness.parity.baselines.refusals import BlessRefused, held, refuse_unless_explicit  # noqa: PLC0415 - torch

    reason: str = config.option.harness_bless
    try:
        if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
            raise BlessRefused("several processes would bless at once: run without -n")
        if reason.strip() and _exists(config.invocation_params.dir / reason.split("::")[0]):
            raise BlessRefused(f"{reason!r} is a path, not a reason")
        until_the_end = ExitStack()
        config.add_cleanup(until_the_end.close)
        until_the_end.enter_context(held(captures_of(config)))
        refuse_unless_explicit(reason, captures_of(config))
    except BlessRefused as error:
        raise pytest.UsageError(f"--harness-bless: {error}") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # Words that are longer than a name may be are no path.
        return False


def captures_of(config: pytest.Config) -> Path:
    """Folder with one folder of captures for each platform."""
    given: str | None = config.option.harness_captures
    return config.rootpath / "captures" if given is None else config.invocation_params.dir / given


def place_of(config: pytest.Config) -> Place:
    """Place of the captures that the run compares with."""
    from harness.parity.baselines.blessed import Place  # noqa: PLC0415 - imports torch

    return Place(captures_of(config), config.rootpath, config.option.harness_platform)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one torch thread inside a `with` block, as captures are made and checked."""
    from harness.parity.baselines import platform  # noqa: PLC0415 - imports torch

    with platform.one_thread():
        yield


@contextmanager
def engine_for(who: str) -> Iterator[None]:
    """Say what to install if a module of this project's engine cannot be imported inside a `with` block.

    Raises:
        UsageError: a package of the extra `engine` is not installed.
    """
    from harness.extras import ENGINE, needed  # noqa: PLC0415 - the plugin imports the others inside functions alone

    try:
        yield
    except ModuleNotFoundError as error:
        missing = needed(who, ENGINE, error)
        if not missing:
            raise
        raise pytest.UsageError(missing) from None


def shown(config: pytest.Config, path: Path) -> str:
    """Path as text, relative to the project's folder where it lies inside."""
    return os.path.relpath(path, config.rootpath) if path.is_relative_to(config.rootpath) else str(path)
