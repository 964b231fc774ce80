"""Which tests need TensorRT and a GPU, whether both are here, and what did not run because they are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import pytest
import torch

from harness.engine.aot import bindings

MARKER = "tensorrt"
REQUIRED = "HARNESS_REQUIRE_TENSORRT"
"""An environment variable: where it is set, a test that cannot run is a failure."""


def absent() -> str | None:
    """Why no engine can run here; None where one can."""
    if not bindings.installed():
        return "no TensorRT is installed: pip install 'stream-harness[trt]' or 'stream-harness[trt-rtx]'"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


def required() -> bool:
    """Whether what cannot run is a failure."""
    return bool(os.environ.get(REQUIRED))


def demand() -> None:
    """Skip the test that asks, where no engine can run here; fail it where that is required."""
    reason = absent()
    if reason is None:
        return
    if required():
        pytest.fail(f"{REQUIRED} is set, and {reason}")
    pytest.skip(reason)


def header(reason: str | None) -> str:
    """One line for a report's header."""
    if reason is None:
        return f"engines of {' and '.join(bindings.installed())}: built and run here"
    return f"engines of TensorRT: not run here, {reason}; {'a failure, as it is required' if required() else 'skipped'}"


def not_run(skipped: Iterable[pytest.TestReport | pytest.CollectReport]) -> dict[str, list[str]]:
    """The skipped tests that need TensorRT, by the reason why they did not run."""
    found: dict[str, list[str]] = {}
    for report in skipped:
        if MARKER in report.keywords:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            found.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    return found


def lines(ledger: Mapping[str, Iterable[str]]) -> list[str]:
    """The ledger as it is printed: every test under the reason why it did not run."""
    return [
        line
        for reason, names in ledger.items()
        for line in (f"{reason}:", *(f"  {name}" for name in names), f"  ({REQUIRED}=1 makes this a failure)")
    ]
