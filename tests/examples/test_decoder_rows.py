"""The command of docs/examples that `docs/compare.md` compares two revisions with, and its kept report."""

from __future__ import annotations

import json
import runpy

import pytest
import torch

from harness.parity.baselines.platform import ROOT
from harness.rails.compare import printed

SCRIPT = ROOT / "docs/examples/compare/decoder_rows.py"
REPORT = json.loads((ROOT / "captures/cpu-x86_64-avx2/compare/decoder_rows.json").read_text())


@pytest.mark.engine
def test_the_command_prints_what_compare_reads_with_the_metrics_of_the_kept_report() -> None:
    example = runpy.run_path(str(SCRIPT))
    example["CALLS"].update(dict.fromkeys(example["CALLS"], 1))
    with torch.inference_mode():
        text = "".join(json.dumps(line) + "\n" for line in example["lines"]())
    found = printed.parsed(text.encode(), "the command")
    assert list(found.metrics) == list(found.outputs) == list(REPORT["metrics"])
    assert len(set(found.outputs.values())) == len(found.outputs) == 6


def test_the_kept_report_is_of_that_command_on_two_commits_that_make_the_same_bits() -> None:
    assert REPORT["command"] == ["python", "-m", SCRIPT.stem]
    assert REPORT["outputs"] == {"moved": [], "only_base": [], "only_head": [], "same": 6, "passes": True}
    assert [REPORT[side]["uncommitted"] for side in ("base", "head")] == [[], []]
    assert len({REPORT[side]["commit"] for side in ("base", "head")} - {None}) == 2
    assert REPORT["platform"]["name"] == "cpu-x86_64-avx2"
