from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from harness.cli import main
from harness.engine import DCW, Condition, Finished, Guidance, LatentMask, PipelineConfig, Request, Switches, X0Target
from harness.engine.plan import SharedControl
from harness.parity.captures import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = [Condition, Guidance, X0Target, LatentMask, Request, PipelineConfig, DCW, Finished]


def row(name: str) -> str:
    """What a table of the README says in the row that starts with `name`."""
    (found,) = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", README, re.MULTILINE)
    return str(found)


def test_the_example_runs_as_it_is_printed() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["plain (1, 50, 8) 8", "guided (1, 50, 8) 8", "self-guided (1, 50, 8) 8"]


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
