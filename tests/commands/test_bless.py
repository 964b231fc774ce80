"""What `bless` is asked for and what it prints; when it refuses is in `tests/judged`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import bless as command
from harness.commands.advice import advised
from harness.parity.baselines.bless import BATTERY, Battery, Blessed, ReplayFailed
from harness.parity.baselines.captures import CAPTURES
from harness.parity.baselines.changes import Change
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.store import CapturesError
from harness.parity.battery.scenarios import SCENARIOS
from harness.rails.costs import rails as costs
from harness.rails.costs.counts import Row
from harness.rails.costs.rails import CostReport

ROWS = (Row("plain/1", "copies", 3, 4), Row("plain/1", "ticks", 8, 8), Row("cfg/4", "gone", 1, None),
        Row("cfg/4", "new", None, 0))  # fmt: skip
CHANGED = Blessed(Path("f"), (Change("beta", "moved", 0.5, (1.0, 2.0)), Change("old", "removed")), 1)


class Asked:
    """What was asked to be blessed; nothing is."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.captures: list[tuple[Any, ...]] = []
        self.costs: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.rows = ROWS
        self.blessed = CHANGED

        def bless(*asked: Any) -> Blessed:
            self.captures.append(asked)
            if self.fails:
                raise self.fails
            return self.blessed

        def bless_costs(*asked: Any) -> CostReport:
            self.costs.append(asked)
            if self.fails:
                raise self.fails
            return CostReport(self.rows, Path("costs.json"), "2.0.0", gated=True)

        patch.setattr(command, "bless", bless)
        patch.setattr(costs, "bless", bless_costs)


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def battery() -> Battery:
    scenarios: Any = {name: SimpleNamespace(name=name) for name in ("alpha", "beta")}
    return Battery(scenarios, BATTERY.play, BATTERY.fresh, BATTERY.plain)


def bless(*words: str) -> Result:
    return CliRunner().invoke(main, ["bless", *words], obj=battery())


@pytest.mark.parametrize(("words", "reason", "folder", "only"), [
    ([], "", CAPTURES, ()),
    (["--reason", "a new torch", "--captures", "c"], "a new torch", Path("c"), ()),
    (["--only", "beta", "--only", "alpha", "--reason", " "], " ", CAPTURES, ("beta", "alpha")),
])  # fmt: skip
def test_every_option_reaches_the_captures(
    words: list[str], reason: str, folder: Path, only: tuple[str, ...], asked: Asked
) -> None:
    assert bless(*words).exit_code == 0
    ((said, found, captures, names),) = asked.captures
    assert (said, list(found.scenarios), captures, names) == (reason, ["alpha", "beta"], folder, only)
    assert asked.costs == []


def test_every_option_reaches_the_costs_and_no_scenario_can_be_chosen_with_them(asked: Asked) -> None:
    assert bless("--costs", "--reason", "why", "--captures", "c").exit_code == 0
    assert bless("--costs").exit_code == 0
    assert asked.costs == [("why", Path("c")), ("", CAPTURES)]
    result = bless("--costs", "--only", "beta", "--reason", "why")
    assert result.exit_code == 2 and "--costs blesses every rail: --only goes with captures" in result.stderr
    assert (asked.captures, len(asked.costs)) == ([], 2)


def test_captures_are_blessed_on_the_device_that_was_named_and_costs_on_the_cpu(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[str] = []
    monkeypatch.setattr(registry, "check_here", here.append)
    words = ["--reason", "why", "--device", "cuda:1"]
    on_gpu = replace(battery(), scenarios={"beta": SCENARIOS["ode_plain"]})
    assert CliRunner().invoke(main, ["bless", *words], obj=on_gpu).exit_code == 0
    ((_, found, *_),) = asked.captures
    assert (found.device, found.scenarios["beta"].device, found.play) == ("cuda:1", "cuda:1", BATTERY.play)
    assert (found.fresh.func, found.fresh.keywords, here) == (BATTERY.fresh, {"device": "cuda:1"}, ["cuda:1"])
    result = bless("--costs", *words)
    assert result.exit_code == 2 and "--costs are counted on the CPU: --device goes with captures" in result.stderr
    assert asked.costs == []


def test_a_device_that_the_machine_does_not_have_is_one_line_and_nothing_is_blessed(asked: Asked) -> None:
    result = bless("--reason", "why", "--device", "cuda:99")
    assert (result.exit_code, asked.captures) == (125, [])
    assert result.stderr.startswith("cannot bless: device: got 'cuda:99', expected an available device")


def test_an_unknown_scenario_is_a_usage_error_and_nothing_is_blessed(asked: Asked) -> None:
    result = bless("--only", "beta", "--only", "nine", "--reason", "why")
    assert result.exit_code == 2 and "only: got nine, expected some of alpha, beta" in result.stderr
    assert asked.captures == []


def test_the_changes_of_captures_are_printed_and_written_whole(asked: Asked, tmp_path: Path) -> None:
    result = bless("--reason", "why", "--json", str(tmp_path / "r.json"))
    assert result.stdout == CHANGED.summary() + "\n"
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(CHANGED.document()))
    asked.blessed = Blessed(Path("f"), (), 2)
    assert bless("--reason", "why").stdout == "all 2 identical, nothing written\n"


def test_the_changes_of_costs_are_printed_one_a_line_and_every_count_is_written(asked: Asked, tmp_path: Path) -> None:
    result = bless("--costs", "--reason", "why", "--json", str(tmp_path / "r.json"))
    assert result.stdout.splitlines() == [
        "plain/1: copies 3 -> 4",
        "cfg/4: gone 1 -> None",
        "cfg/4: new None -> 0",
        "3 of 4 counts written",
    ]
    row = {"rail": "plain/1", "name": "copies", "blessed": 3, "now": 4, "verdict": "moved"}
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "costs": [
            row,
            {**row, "name": "ticks", "blessed": 8, "now": 8, "verdict": "exact"},
            {**row, "rail": "cfg/4", "name": "gone", "blessed": 1, "now": None},
            {**row, "rail": "cfg/4", "name": "new", "blessed": None, "now": 0},
        ]
    }
    asked.rows = (ROWS[1],)
    assert bless("--costs", "--reason", "why").stdout == "all as blessed, nothing written\n"


@pytest.mark.parametrize("part", [[], ["--costs"]])
@pytest.mark.parametrize(("error", "code", "said"), [
    (BlessRefused("CI is set"), 2, "refused: CI is set\n"),
    (ReplayFailed("exited with 1"), 2, "refused: exited with 1\n"),
    (CapturesError("altered"), 2, f"refused: {advised(CapturesError('altered'))}\n"),
    (RuntimeError("engine broke"), 125, "engine broke"),
])  # fmt: skip
def test_a_refusal_is_one_line_and_a_crash_has_its_traceback(
    error: Exception, code: int, said: str, part: list[str], asked: Asked, tmp_path: Path
) -> None:
    asked.fails = error
    result = bless(*part, "--reason", "why", "--json", str(tmp_path / "r.json"))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == said if code == 2 else ("Traceback" in result.stderr and said in result.stderr)
    assert list(tmp_path.iterdir()) == []
