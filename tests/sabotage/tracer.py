"""A pytest plugin of the mutants' forks: runs the tests that are wanted, and says what became of each.

The file that SABOTAGE_JOB names says which tests; what became of them is written to the file that it names in turn.
Where it asks for that, the lines that each test runs are recorded too, also those that it runs in other processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

UNWANTED = ("alone", "sabotage")
"""Marks of tests that say nothing of a mutant: they measure time, or plant defects themselves."""

CONTEXT = "SABOTAGE_TEST"
"""Names the test whose lines a process that it starts records."""

SETTINGS = """\
[run]
source = {root}/harness
data_file = {data}
parallel = true
context = ${{SABOTAGE_TEST-}}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
"""


class Wanted:
    """Keeps the tests that are wanted, in their order, and notes how each ended.

    Attributes:
        found: ids of the tests that were collected and are wanted.
        outcomes: `passed`, `failed` (by its call), `error` (before it or after it) or `skipped` by id.
        seconds: how long each took, set-up included.
    """

    def __init__(self, wanted: list[str] | None) -> None:
        self._wanted = None if wanted is None else set(wanted)
        self.found: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._is_wanted(item)]
        self.found = [item.nodeid for item in items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            bad = "error" if report.when != "call" else "failed"
            outcome = bad if report.failed else str(report.outcome)
            if self.outcomes.get(report.nodeid) not in ("failed", "error"):
                self.outcomes[report.nodeid] = outcome

    def _is_wanted(self, item: pytest.Item) -> bool:
        if any(item.get_closest_marker(mark) for mark in UNWANTED):
            return False
        return self._wanted is None or item.nodeid in self._wanted


class Lines:
    """Records the lines of `harness` that each test runs."""

    def __init__(self, folder: Path) -> None:
        import coverage  # noqa: PLC0415 - no other fork needs it

        settings = folder / "settings.ini"
        settings.write_text(SETTINGS.format(root=Path.cwd(), data=folder / "data"))
        os.environ[CONTEXT] = ""
        os.environ["COVERAGE_PROCESS_START"] = str(settings)  # read anew, with its context, by each process
        self._coverage = coverage.Coverage(config_file=str(settings))
        self._coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        named = quote(item.nodeid)  # coverage puts `|` between contexts, and an id may hold one
        self._coverage.switch_context(named)
        os.environ[CONTEXT] = named
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")
            os.environ[CONTEXT] = ""

    def read(self) -> dict[str, dict[int, list[str]]]:
        """The tests by module and line."""
        self._coverage.stop()
        self._coverage.save()
        self._coverage.combine()
        data = self._coverage.get_data()
        root = Path.cwd()
        found = {}
        for file in data.measured_files():
            if Path(file).is_relative_to(root / "harness"):
                by_line = data.contexts_by_lineno(file)
                lines = {line: sorted({_test(each) for each in by_line[line]} - {""}) for line in by_line}
                found[str(Path(file).relative_to(root))] = lines
        return found


def _test(context: str) -> str:
    """The test that a context names, of a process of its own or not."""
    return unquote(next((part for part in context.split("|") if part), ""))


def run(job: dict[str, Any]) -> None:
    """Run a job in this very process, a fresh fork, and write what became of it."""
    started = time.perf_counter()
    report = Path(job["report"])
    lines = Lines(report.parent) if job["record"] else None
    wanted = Wanted(job["tests"])
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:benchmark", "-p", "no:xdist", "-o", "addopts="]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins, which are imported already
    if not job["record"]:
        options.append("-x")
    code = int(pytest.main([*options, *job["files"]], plugins=[wanted, *([lines] if lines else [])]))
    made = {
        "code": code,
        "found": wanted.found,
        "outcomes": wanted.outcomes,
        "seconds": wanted.seconds,
        "took": time.perf_counter() - started,
        "lines": lines.read() if lines else {},
    }
    partly = report.with_suffix(".part")
    partly.write_text(json.dumps(made))
    partly.replace(report)
