"""Captures of this GPU: blessed here, checked here, and the kept ones where they are of this very GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.checkout import PACKAGE
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import BATTERY, bless
from harness.parity.baselines.captures import CAPTURES, check
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import SCENARIOS

CUDA = "cuda"
FEW = {name: SCENARIOS[name] for name in ("cfg_full", "ace_tiny_cfg")}


@pytest.fixture(name="captures")
def _captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CI", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    bless("a new GPU", replace(BATTERY, scenarios=FEW).on(CUDA), tmp_path / "captures")
    return tmp_path / "captures"


def test_what_was_blessed_on_a_gpu_is_found_again_in_another_process_and_a_moved_bit_is_seen(captures: Path) -> None:
    there = replace(BATTERY, scenarios=FEW).on(CUDA)
    report = check(there.scenarios, there.play, captures, device=CUDA)
    assert [result.verdict for result in report.results] == [Verdict.EXACT, Verdict.EXACT], report
    command = [sys.executable, "-m", "harness", "check", "--device", CUDA, "--captures", str(captures), *FEW]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    def moved(scenario):
        played = there.play(scenario)
        return replace(played, finished={n: torch.nextafter(x, x + 1) for n, x in played.finished.items()})

    report = check(there.scenarios, moved, captures, device=CUDA)
    assert {result.verdict for result in report.results} == {Verdict.MOVED}


def test_the_kept_captures_of_this_model_are_exact_here_or_of_another_gpu() -> None:
    kept = CAPTURES / platform.name(CUDA) / "scenarios"
    if not kept.is_dir():
        return  # no GPU of this model has blessed any
    there = BATTERY.on(CUDA)
    report = check(there.scenarios, there.play, device=CUDA)
    with platform.one_thread():
        differs = platform.differing(platform.of_captures(CUDA), store.read_manifest(kept).fingerprint)
    expected = Verdict.NOT_GATED if differs else Verdict.EXACT
    assert {result.verdict for result in report.results} == {expected}, report
