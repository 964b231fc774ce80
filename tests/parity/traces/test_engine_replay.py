"""A replay of a pipeline: what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.files import FileRefused
from harness.parity.traces import TraceParted, replayed
from harness.parity.traces.engine_replay import replayed_pipeline
from tests.parity.traces.plain import Counter, counted
from tests.parity.traces.rings import executor, recorded
from tests.parity.traces.test_reading import changed


def test_a_trace_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="subject: got 'pipeline', expected a trace of a ring"):
        replayed(recorded(tmp_path / "a"), Counter)
    with pytest.raises(FileRefused, match="subject: got 'ring', expected a trace of a pipeline"):
        replayed_pipeline(counted(tmp_path / "b"), executor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "call": "__init__"}, "got '__init__' of 0 arguments, expected one of submit, tick"),
        (lambda d: {**d, "call": "cancel"}, "got 'cancel' of 0 arguments"),
        (lambda d: {**d, "given": None}, "expected a list of arguments"),
        (lambda d: {**d, "raised": "E", "ticks": 2**40}, f"got {2**40} ticks"),
    ],
)
def test_a_call_that_no_pipeline_has_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = changed(recorded(tmp_path / "a"), -2, change)
    with pytest.raises(FileRefused, match=message):
        replayed_pipeline(path, executor)


def test_an_executor_of_other_rows_is_a_difference(tmp_path: Path) -> None:
    with pytest.raises(TraceParted, match="an executor with max_rows 4 .*, recorded 8"):
        replayed_pipeline(recorded(tmp_path / "a"), lambda _: executor(4))
