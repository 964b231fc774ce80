"""A pytest plugin that writes what became of each test to the file that SABOTAGE_REPORT names."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

OUTCOMES: dict[str, str] = {}
WORDS: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test is `failed` by its call alone: what breaks before it or after it is an `error`."""
    if report.when == "call" or report.outcome != "passed":
        outcome = "error" if report.failed and report.when != "call" else report.outcome
        OUTCOMES[report.nodeid] = outcome
    if report.failed:
        WORDS[report.nodeid] = report.longreprtext[-4000:]


def pytest_sessionfinish() -> None:
    package = sys.modules.get("harness")
    where = "" if package is None else str(Path(package.__file__ or "").resolve())
    written = {"outcomes": OUTCOMES, "words": WORDS, "package": where}
    Path(os.environ["SABOTAGE_REPORT"]).write_text(json.dumps(written))
