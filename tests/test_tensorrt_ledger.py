"""Tests that need TensorRT are skipped without it, listed with the reason, and a failure where they are required."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.tensorrt import ledger

ROOT = Path(__file__).parent.parent


def report(name: str, marker: str = ledger.MARKER, longrepr: Any = ("file.py", 3, "Skipped: no card")) -> Any:
    return SimpleNamespace(nodeid=name, keywords={marker: 1}, longrepr=longrepr)


def test_only_tests_that_need_tensorrt_are_listed_each_under_its_reason() -> None:
    skipped = [report("a"), report("b", "gpu"), report("c", longrepr="other"), report("d")]
    assert ledger.not_run(skipped) == {"no card": ["a", "d"], "other": ["c"]}


def test_the_ledger_names_every_test_and_its_reason() -> None:
    assert ledger.lines({"no card": ["a", "d"]}) == [
        "no card:", "  a", "  d", "  (HARNESS_REQUIRE_TENSORRT=1 makes this a failure)"
    ]  # fmt: skip
    assert ledger.lines({}) == []


def test_the_reason_is_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.bindings, "installed", lambda: ())
    assert "pip install 'stream-harness[trt]'" in str(ledger.absent())
    monkeypatch.setattr(ledger.bindings, "installed", lambda: ("tensorrt",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ledger.absent() == "there is no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ledger.absent() is None
    assert ledger.header(None) == "engines of tensorrt: built and run here"


@pytest.mark.parametrize(
    ("reason", "required", "raised"),
    [("no card", "", pytest.skip.Exception), ("no card", "1", pytest.fail.Exception), (None, "1", None)],
)
def test_what_cannot_run_is_skipped_or_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, required: str, raised: type[BaseException] | None
) -> None:
    monkeypatch.setattr(ledger, "absent", lambda: reason)
    monkeypatch.setenv(ledger.REQUIRED, required)
    if raised is None:
        return ledger.demand()
    with pytest.raises(raised, match="no card"):
        ledger.demand()
    return None


@pytest.mark.skipif(ledger.absent() is None, reason="TensorRT is here")
def test_a_report_lists_what_did_not_run_and_why() -> None:
    node = "tests/tensorrt/test_engines.py::test_a_truncated_plan_is_refused"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", node]
    environment = {**os.environ, ledger.REQUIRED: ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "engines of TensorRT: not run here, " in done.stdout
    assert re.search(rf"that did not run here =+\n[^\n]+:\n  {re.escape(node)}\n", done.stdout), done.stdout
