"""A variant that is added in one place is offered, drawn and compared everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.engine.switches import SWITCHES
from harness.registry import COMPARED

ROOT = Path(__file__).resolve().parent.parent
# Each variant: the one file that it is written in, the line before it, and its record.
VARIANTS = {
    "switch": (
        "harness/engine/switches.py",
        "    joined_stream: bool = switch(plain=False, fast=True, acted=lambda on, _off: on.joins > 0, "
        "needs_own_stream=True)\n",
        "    made_up: bool = switch(plain=False, fast=True, acted=lambda on, _off: on.ticks > 0)\n",
    ),
    "control": (
        "harness/engine/controls.py",
        '    X0_STRENGTH = "x0_strength", _has_strength, lambda r: required(_target(r).strength), 0.0, SHARE\n',
        '    MADE_UP = "made_up", _always, lambda r: normal(r.velocity_scale), 1.0, FACTOR\n',
    ),
    "mode": (
        "harness/engine/guidance_modes.py",
        '    SELF = "self", NegativeSource.INITIAL_NOISE, NegativeSource.INITIAL_NOISE\n',
        '    MADE_UP = "made_up", NegativeSource.ROWS, NegativeSource.ROWS\n',
    ),
    "kind": (
        "harness/registry.py",
        '    STATIC = "static", ExecutorRecord(_static, streams=("cuda",))\n',
        '    MADE_UP = "made_up", ExecutorRecord(_eager)\n',
    ),
}
# What the made-up control does: it takes the place of the velocity scale.
USE = (
    "harness/engine/plan.py",
    "        velocity_scale=controls.in_force(SharedControl.VELOCITY_SCALE, request, gate),\n",
    "        velocity_scale=controls.in_force(SharedControl.MADE_UP, request, gate),\n",
)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    copy = tmp_path_factory.mktemp("variants")
    for name in ("harness", "tests", "captures"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for file, before, record in VARIANTS.values():
        replace_once(copy / file, before, before + record)
    replace_once(copy / USE[0], *USE[1:])
    ran = subprocess.run([sys.executable, "-m", "tests.made_up"], cwd=copy, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    return found


def replace_once(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path.name} has this {text.count(before)} times: {before}"
    path.write_text(text.replace(before, after))


def test_a_switch_is_offered_drawn_and_compared(facts: dict[str, dict[str, Any]]) -> None:
    found = facts["switch"]
    executors = [*map(str, COMPARED), "cuda_graph", "made_up"]
    assert (found["plain"], found["bench"]) == (False, False)
    assert found["check"] and found["rail"] and found["acted"]
    assert found["ablated"] == len(SWITCHES) + 1
    assert found["drawn"] == [True, True]
    assert sorted(found["properties"]) == sorted(executors)
    assert sorted(found["verdicts"]) == sorted([kind, "exact", True] for kind in executors)


def test_a_switch_that_moves_a_bit_is_noticed(facts: dict[str, dict[str, Any]]) -> None:
    assert facts["switch"]["moved"] == "moved"


def test_a_live_control_is_offered_drawn_and_compared_with_an_oracle_that_has_to_learn_it(
    facts: dict[str, dict[str, Any]],
) -> None:
    assert facts["control"] == {"drawn": True, "unset": "agrees", "set": "differs"}


def test_a_guidance_mode_is_offered_drawn_and_compared(facts: dict[str, dict[str, Any]]) -> None:
    assert facts["mode"] == {"bench": True, "drawn": True, "rail": True, "oracle": "agrees"}


def test_an_executor_kind_is_offered_drawn_and_compared(facts: dict[str, dict[str, Any]]) -> None:
    found = facts["kind"]
    assert found["made"] == 8
    assert found["choices"] == [True, True, True, True]
    assert found["plugin"] and found["contract"] and found["drawn"]
    assert found["verdicts"] == [["made_up", "exact", True]]
