"""A pytest plugin that lends the harness's proofs to projects with an engine of their own, as fixtures.

`blessed` holds trees of tensors against captures, `lockstep` two engines against each other, `cost_rail` the cost of a
block against blessed counts. Blessing is an explicit act, `--harness-bless "reason"`, and a run that blessed anything
is red: comparing with what one has just written proves nothing. So is a whole run in which no test asked for something
that is blessed; and a failure stays one however often its test is tried again.

Nothing here imports torch before a test uses a fixture, or blessed files or `--harness-bless` ask for it.
"""

from __future__ import annotations

from harness.plugin.fixtures import blessed, cost_rail, lockstep
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
]
