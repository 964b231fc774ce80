"""Check that a run of tests covered the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.plugin.places import shown


def left_out(session: pytest.Session) -> Iterator[str]:
    """Yield the reasons why a run may not have been one of the whole suite."""
    config = session.config
    finished = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if session.shouldstop or session.shouldfail or session.exitstatus not in finished:
        yield "the run was stopped"
    options = ("collectonly", "setuponly", "setupplan", "lf", "ignore", "ignore_glob")
    yield from (f"--{option} was given" for option in options if config.getoption(option, None))
    here = config.invocation_params.dir
    targets = [Path(os.path.abspath(here / arg)) for arg in config.args]
    suite = [config.rootpath / path for path in config.getini("testpaths")] or [config.rootpath]
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if chosen and not all(any(path.is_relative_to(target) for target in targets) for path in suite):
        yield f"only {' '.join(config.args)} was run, of {' '.join(shown(config, path) for path in suite)}"
