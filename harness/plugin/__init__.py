"""Pytest plugin: fixtures that give the harness's proofs to projects with an engine of their own.

`blessed` compares trees of tensors with captures, `lockstep` compares two engines, `cost_rail` compares the costs of a
block of code with blessed counts, `time_rail` compares the times of two functions, `scripts` plays random scripts on
two engines. Captures are written only with `--harness-bless "reason"`. A run that blessed anything fails, because a
comparison with captures of the same run proves nothing. A run of the whole suite also fails if no test asked for some
blessed entry. A test that failed fails again in every rerun of the same run.

The plugin imports torch only when a test uses a fixture, when there are blessed files, or with `--harness-bless`.
"""

from __future__ import annotations

from harness.plugin.fixtures import blessed, cost_rail, lockstep, time_rail
from harness.plugin.hooks import (
    pytest_addoption,
    pytest_collection_finish,
    pytest_configure,
    pytest_itemcollected,
    pytest_report_collectionfinish,
    pytest_runtest_call,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from harness.plugin.trials import scripts

__all__ = [
    "blessed",
    "cost_rail",
    "lockstep",
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_configure",
    "pytest_itemcollected",
    "pytest_report_collectionfinish",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "scripts",
    "time_rail",
]
