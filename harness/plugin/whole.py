"""Test how much of a suite a run was asked for, and why the run may have been less than the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from harness.plugin.places import shown


def left_out(session: pytest.Session) -> Iterator[str]:
    """Yield the reasons why a run may not have been one of the whole suite."""
    config = session.config
    finished = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if session.shouldstop or session.shouldfail or session.exitstatus not in finished:
        yield "the run was stopped"
    options = (
        "collectonly", "setuponly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow",
        "lf", "ignore", "ignore_glob",
    )  # fmt: skip
    yield from (f"--{option} was given" for option in options if config.getoption(option, None))
    suite = [config.rootpath / path for path in config.getini("testpaths")] or [config.rootpath]
    if not asked_for(config, suite):
        yield f"only {' '.join(config.args)} was run, of {' '.join(shown(config, path) for path in suite)}"


def asked_for(config: pytest.Config, folders: Iterable[Path]) -> bool:
    """True where a run was asked for every test in each of `folders`, be it by the folder or by one around it."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return True
    targets = [Path(os.path.abspath(config.invocation_params.dir / arg)) for arg in config.args]
    return all(any(folder.is_relative_to(target) for target in targets) for folder in folders)
