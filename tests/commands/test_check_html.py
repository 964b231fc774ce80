"""`check --html`: a difference that is planted is found in the report, and what stops a report stops it early."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.commands.check_html import page_of
from harness.commands.check_report import CheckReport
from harness.rails.costs import rails
from tests.judged.conftest import Made, _template, made  # noqa: F401 - fixtures
from tests.parity.baselines.test_gpu_captures import GPU, NAME, Board, _board  # noqa: F401 - the fixture
from tests.sabotage.defects import FUSED

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "captures/cuda-nvidia-h200/bench/steady.json"
ONE = ["--switches", "--switch", "fused_cfg", "--executor", "eager", "--decoder", "affine", "--only"]


def check(*words: str) -> Result:
    return CliRunner().invoke(main, ["check", *words])


def test_a_check_that_passes_writes_a_page_that_says_so_and_has_no_differences(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert check(*ONE, "cfg_full", "--html", str(page)).exit_code == 0
    text = page.read_text()
    assert "<b>Passes</b>" in text and 'id="differences"' not in text and 'id="matrix"' in text


def test_a_row_of_sabotage_is_pointed_at_by_tick_slot_and_stage(tmp_path: Path) -> None:
    defect = next(each for each in FUSED if each.name == "the halves of the fused batch are swapped")
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / defect.file
    file.write_text(file.read_text().replace(defect.old, defect.new))
    command = [sys.executable, "-m", "harness", "check", *ONE, "cfg_full", "--html", "r.html"]
    command += ["--captures", str(ROOT / "captures")]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    text = (tmp_path / "r.html").read_text()
    (where,) = re.findall(r'<p class="where">First difference: ([^<]*)</p>', text)
    said = re.search(r"differ at (tick \d+, slot \d+, stage \w+)", text)
    assert said is not None and said[1] == where == "tick 0, slot 0, stage decoder"
    assert len(re.findall(r'aria-label="(?:expected|got|distance)"', text)) >= 3
    assert "python -m harness check --switches --only cfg_full" in text


def test_a_capture_that_moved_has_its_command_and_what_is_no_difference_of_bytes_is_said(
    made: Made,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    made.nudge(1)
    made.file("beta").unlink()
    result = made.invoke("check", "--html", str(tmp_path / "r.html"))
    assert result.exit_code == 1
    text = (tmp_path / "r.html").read_text()
    assert 'alpha: captures: <b class="x">moved</b>' in text and "python -m harness check --only alpha" in text
    assert "1 of 12 elements differ, first at frame 0, channel 0" in text
    assert 'beta: captures: <b class="x">missing</b>' in text and "there is nothing to play again" in text


def test_a_capture_of_another_machine_has_no_tick_where_it_parted_because_states_may_differ_there(
    made: Made,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    made.elsewhere()
    made.ticks["alpha"] = ("aa", "xx", "cc")
    made.nudge(1000)
    result = made.invoke("check", "--html", str(tmp_path / "r.html"))
    assert result.exit_code == 1
    text = (tmp_path / "r.html").read_text()
    assert "1 of 12 elements differ" in text and re.findall(r"First difference: ([^<]*)<", text) == ["stage state"]


def test_a_difference_on_a_gpu_is_played_again_on_that_gpu(board: Board) -> None:  # noqa: F811 - the fixture
    board.moved = 1.0
    checked = CheckReport(board.check(), device=GPU)
    document = checked.document()
    board.devices.clear()
    options = {"html_path": Path("r.html"), "captures": board.captures, "engine": None}
    text = page_of(checked, document, (), board.battery, options, lambda _name: None)
    assert board.devices == [GPU, GPU] and f"on {NAME}</p>" in text
    assert f"python -m harness check --only a --device {GPU}" in text and "could not be played again" not in text


def test_the_verdict_of_a_difference_that_cannot_be_played_again_stands(
    made: Made,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    made.nudge(1)
    played, calls = made.play, []

    def once(scenario: Any) -> Any:
        calls.append(scenario.name)
        if calls.count(scenario.name) > 1:
            raise RuntimeError("gone <now>")
        return played(scenario)

    made.play = once  # type: ignore[method-assign]
    result = made.invoke("check", "--html", str(tmp_path / "r.html"))
    assert result.exit_code == 1
    assert "it could not be played again: RuntimeError: gone &lt;now&gt;" in (tmp_path / "r.html").read_text()


def test_figures_of_kept_reports_are_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert check(*ONE, "ode_plain", "--html", str(page), "--figures", str(KEPT)).exit_code == 125
    first = json.loads(KEPT.read_text())["found"][0]
    text = page.read_text()
    assert f"{first['ratio']:.4g} [{first['low']:.4g}, {first['high']:.4g}]" in text
    assert "cuda-nvidia-h200 2026-11-28, steady.json" in text


def test_a_file_of_figures_that_is_refused_stops_the_check_before_its_work(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("[1]")
    result = check("--html", str(tmp_path / "r.html"), "--figures", str(tmp_path / "f.json"))
    assert (result.exit_code, result.stdout) == (125, "")
    assert result.stderr.startswith("cannot check: ") and "a report of bench or compare" in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_figures_without_a_report_are_a_wrong_command_line() -> None:
    result = check("--figures", str(KEPT))
    assert result.exit_code == 2 and "--figures goes with --html" in result.stderr


def test_a_missing_package_is_named_before_the_work_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.report.needs.find_spec", lambda name: None if name == "PIL" else object())
    result = check("--html", str(tmp_path / "r.html"))
    assert (result.exit_code, result.stdout) == (125, "")
    assert result.stderr == "cannot check: a report needs pillow: pip install 'stream-harness[report]'\n"


def test_a_page_that_cannot_be_written_stops_the_check_before_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rails, "check", None)
    (tmp_path / "file").touch()
    result = check("--costs", "--html", str(tmp_path / "file" / "r.html"))
    assert result.exit_code == 125 and result.stderr.startswith("cannot write ")


def test_a_check_without_a_report_imports_nothing_that_only_a_report_needs() -> None:
    shown = "import sys, harness.cli; print(sorted(m for m in sys.modules if m.startswith('harness.report')))"
    ran = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['harness.report', 'harness.report.needs']"
