"""Option `--harness-html`: a page for a browser with the verdicts of a run and the words of its differences."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.plugin.fixtures import FIXTURES
from harness.plugin.ledger import LEDGER, UNASKED

PLACE = ("event", "tick", "slot", "stage")
"""Attributes of an error of lockstep that name the place of the first difference."""
AGAIN = ("repro", "script")
"""Attributes of an error whose message has the code that shows the failure again."""


def register(config: pytest.Config) -> None:
    """Add the hooks that make the page, where it is asked for.

    Raises:
        UsageError: a package that a page needs is missing.
    """
    if config.option.harness_html is None:
        return
    from harness.report import needs  # noqa: PLC0415 - imported where a page is asked for

    try:
        needs.check()
    except needs.NotInstalled as error:
        raise pytest.UsageError(f"--harness-html: {error}") from error
    config.pluginmanager.register(_Places(), "harness-places")
    if not hasattr(config, "workerinput"):
        path = config.invocation_params.dir / config.option.harness_html
        config.pluginmanager.register(_Page(config, path), "harness-page")


class _Places:
    """Puts into every report which fixtures the test used, and where a difference is."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        used = [name for name in FIXTURES if name in getattr(item, "fixturenames", ())]
        error = None if call.excinfo is None else call.excinfo.value
        found = {name: getattr(error, name, None) for name in PLACE if isinstance(error, AssertionError)}
        place = {
            name: value if isinstance(value, int) else str(value) for name, value in found.items() if value is not None
        }
        # Plain values, because pytest-xdist sends the report to another process.
        again = isinstance(error, AssertionError) and any(hasattr(error, name) for name in AGAIN)
        report.harness = {"fixtures": used, "place": place, "again": again}  # type: ignore[attr-defined]
        return report


class _Page:
    """Keeps the reports of a run, and writes the page at its end."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config, self._path = config, path
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        noted = getattr(report, "harness", {"fixtures": [], "place": {}, "again": False})
        kept = self._tests.setdefault(report.nodeid, {"outcome": "passed", "fixtures": (), "place": {}, "words": ""})
        kept["fixtures"] = tuple(noted["fixtures"])
        # A failed try stays failed, and the first words are those of the difference.
        if report.outcome != "passed" and kept["outcome"] != "failed":
            words = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            words = words.removeprefix("Skipped: ")  # the page says it itself
            kept |= {"outcome": report.outcome, "place": noted["place"], "words": words, "again": noted["again"]}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from harness.engine import atomic  # noqa: PLC0415 - imported where a page is asked for
        from harness.report import tests_page  # noqa: PLC0415 - needs the extra `report`

        tests = [tests_page.Row(nodeid, **kept) for nodeid, kept in self._tests.items()]
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        made = f"{now}: pytest {' '.join(map(str, self._config.invocation_params.args))}"
        unasked: list[str] = self._config.stash.get(UNASKED, [])
        text = tests_page.page(
            tests,
            asdict(self._config.stash[LEDGER]),
            unasked,
            passes=session.exitstatus == pytest.ExitCode.OK,
            made=made,
        )
        atomic.write(self._path, text.encode())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"harness: report written to {self._path}")
