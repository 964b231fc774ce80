from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.cli import main
from harness.engine import DCW, Condition, Finished, Guidance, LatentMask, PipelineConfig, Request, Switches, X0Target
from harness.engine.controls import SharedControl
from harness.parity.baselines.captures import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The third one is run by test_plugin.py.
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RECORDS = [Condition, Guidance, X0Target, LatentMask, Request, PipelineConfig, DCW, Finished]


def row(name: str) -> str:
    """What a table of the README says in the row that starts with `name`."""
    (found,) = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", README, re.MULTILINE)
    return str(found)


def test_the_example_runs_as_it_is_printed() -> None:
    example, _, _ = EXAMPLES
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["plain (1, 50, 8) 8", "guided (1, 50, 8) 8", "self-guided (1, 50, 8) 8"]


def test_the_example_of_an_engine_runs_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.onnx").symlink_to(registry.onnx_file("tiny"))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(EXAMPLES[1], "README.md", "exec"), made)
    assert (made["executor"].max_rows, made["pipeline"].config.depth) == (8, 4)
    made["pipeline"].close()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_is_listed_with_its_fields_in_order(record: type) -> None:
    names = {field.name for field in fields(record)}
    listed = [name for name in re.findall(r"`([a-z_0-9]+)[`(]", row(record.__name__)) if name in names]
    assert listed == [field.name for field in fields(record)]


def test_every_switch_has_a_row() -> None:
    assert all(row(field.name) for field in fields(Switches))


def test_every_verdict_that_check_gives_has_a_row_that_says_whether_it_passes() -> None:
    for verdict in Verdict:
        assert row(verdict).split("|")[-1].strip() == ("yes" if verdict.passes else "no")


def test_every_command_and_target_that_is_named_is_there() -> None:
    commands = set(re.findall(r"python -m harness ([a-z]+)", README))
    assert commands == {name for name, command in main.commands.items() if not command.hidden}
    targets = set(re.findall(r"^(?:- \*\*.*)?`?make ([a-z]+)", README, re.MULTILINE))
    rules = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= rules
    assert {"run", "test", "lint", "sabotage", "mutants"} <= targets


def test_every_shared_control_is_named() -> None:
    assert all(f'"{control}"' in README for control in SharedControl)


H200 = ROOT / "captures" / "cuda-nvidia-h200"
LOADS = {"plain": "plain", "dcw": "wavelet correction", "full": "full guidance", "both": "both"}


def test_what_it_says_of_exactness_is_what_the_contracts_record() -> None:
    gpu = json.loads((H200 / "contract.json").read_text())["subjects"]
    cpu = json.loads((ROOT / "captures" / "cpu-x86_64-avx512" / "contract.json").read_text())["subjects"]
    free = {f"the same, T {frames}": gpu[f"2b/eager/bfloat16/T{frames}/max8"] for frames in (40, 750, 1500)}
    free['ACE-Step `"tiny"`, float32, CPU'] = cpu["tiny/eager/float32/T75/max8"]
    for subject, entry in free.items():
        holds, fails = entry["holds"]["fused"] or "no", entry["fails"]["fused"]
        words = f"fused exact at {holds} rows a pass, not at {fails}; a row alone differs"
        assert f"| {subject} | free | {words} | exact |" in README
        rest = {name: rows for name, rows in entry["fails"].items() if name not in ("fused", "rows_alone", "padding")}
        assert not any(rest.values()), subject
        assert entry["fails"]["rows_alone"]
    exported = [cpu[f"tiny/onnx/float32/T{frames}/{rows}"] for frames in (16, 75) for rows in ("max8", "pinned8")]
    assert "ONNX Runtime, CPU, one thread | free or pinned | exact | exact |" in README
    assert not any(rows for entry in exported for rows in entry["fails"].values())
    pinned = {
        name: entry for name, entry in {**gpu, **cpu}.items() if name.endswith("pinned8") and "affine" not in name
    }
    assert len(pinned) >= 5
    assert not any(rows for e in pinned.values() for name, rows in e["fails"].items() if name != "padding")


def test_the_figures_of_the_h200_are_those_of_its_reports() -> None:
    reports = {load: json.loads((H200 / "bench" / f"{load}.json").read_text()) for load in LOADS}
    assert all(row in README for row in [*bench_rows(reports), *ablation_rows(reports)])
    switches = json.loads((H200 / "switches.json").read_text())["switches"]
    assert {result["verdict"] for result in switches} == {"exact"}
    assert f"all {len(switches)}\ncomparisons exact" in README


def bench_rows(reports: dict[str, Any]) -> list[str]:
    rows = []
    for load, report in reports.items():
        forms, tick = report["bare"]["forms"], report["tick"]["median"]
        figures = [tick, report["host"]["median"], *forms.values(), tick - forms["eager"]]
        cells = [LOADS[load], *(f"{ms:.2f}" for ms in figures), f"{report['realtime']:.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def ablation_rows(reports: dict[str, Any]) -> list[str]:
    saved = {load: [f"{row['saved_tick_ms']:.2f}" for row in report["ablation"]] for load, report in reports.items()}
    return ["| " + " | ".join([LOADS[load], *cells]) + " |" for load, cells in saved.items()]
