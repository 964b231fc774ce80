"""The command line: exit codes, the JSON report, what a person reads last."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner

import harness
from harness.cli import main
from harness.commands.check_report import CheckReport
from harness.parity.baselines import platform
from harness.parity.baselines.bless import BATTERY, Battery, digests
from harness.parity.baselines.verdicts import Verdict


class Fake:
    def __init__(self):
        self.x = torch.arange(6.0).reshape(1, 2, 3) + 1
        self.fails = False

    def play(self, scenario):
        if self.fails:
            raise RuntimeError("engine broke")
        return SimpleNamespace(finished={"r0": self.x.clone()}, ticks=("aa",))

    def battery(self):
        scenarios = {"one": SimpleNamespace(name="one"), "two": SimpleNamespace(name="two")}
        return Battery(
            scenarios,
            self.play,
            lambda names: {name: digests(self.play(None)) for name in names},
            lambda names: {name: {"r0": self.x} for name in names},
        )


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def invoke(fake, tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def call(command, *arguments):
        captures = [] if command.startswith("_") else ["--captures", str(tmp_path / "captures")]
        return CliRunner().invoke(main, [command, *captures, *arguments], obj=fake.battery())

    return call


def test_a_blessed_battery_checks_with_exit_0_and_a_summary_last(invoke):
    assert invoke("bless", "--reason", "first").exit_code == 0
    result = invoke("check")
    assert result.exit_code == 0
    last = result.stdout.rstrip().splitlines()[-1]
    assert last == f"2 scenarios: 2 exact ({platform.name()}, the platform that blessed them)"


def test_any_difference_exits_with_1_and_is_in_the_json(invoke, fake, tmp_path):
    invoke("bless", "--reason", "first")
    fake.x[0, 1, 2] += 1
    assert invoke("check", "--json", str(tmp_path / "r.json")).exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report.keys() == {"scenarios", "switches", "costs", "platform", "summary", "failed"}
    assert report["scenarios"][0].keys() == {"name", "verdict", "max_abs", "bound", "detail", "compared_with"}
    assert [(each["name"], each["verdict"], each["max_abs"]) for each in report["scenarios"]] == [
        ("one", "moved", 1.0),
        ("two", "moved", 1.0),
    ]
    assert report["platform"]["blessed_here"] and report["summary"]["verdicts"] == {"moved": 2}


@pytest.mark.parametrize("wrong", ["captures", "switches", "costs", None])
def test_a_check_of_several_things_passes_where_each_of_them_does(wrong):
    captures = SimpleNamespace(compared=True, passes=wrong != "captures")
    switched = SimpleNamespace(verdict=Verdict.MOVED if wrong == "switches" else Verdict.EXACT, acted=True)
    counted = SimpleNamespace(gated=True, passes=wrong != "costs")
    assert CheckReport(captures, (switched,), counted).passes is (wrong is None)


def test_no_captures_exits_with_125(invoke):
    result = invoke("check")
    assert result.exit_code == 125 and "no such folder of captures" in result.stderr


def test_a_crash_of_the_engine_exits_with_125(invoke, fake):
    invoke("bless", "--reason", "first")
    fake.fails = True
    result = invoke("check")
    assert result.exit_code == 125 and "engine broke" in result.stderr


def test_an_unknown_scenario_is_a_usage_error(invoke):
    result = invoke("check", "--only", "nine")
    assert result.exit_code == 2 and "nine" in result.stderr


def test_only_takes_several_names(invoke):
    invoke("bless", "--reason", "first")
    assert invoke("check", "--only", "two").stdout.rstrip().splitlines()[-1].startswith("1 scenario: 1 exact")
    assert "2 scenarios: 2 exact" in invoke("check", "--only", "two", "one").stdout


def test_bless_refuses_with_exit_2_and_says_why(invoke, monkeypatch):
    assert "no reason" in invoke("bless").stderr
    monkeypatch.setenv("CI", "true")
    result = invoke("bless", "--reason", "x")
    assert result.exit_code == 2 and "CI" in result.stderr


def test_a_second_bless_over_uncommitted_captures_exits_with_2(invoke):
    invoke("bless", "--reason", "first")
    result = invoke("bless", "--reason", "again")
    assert result.exit_code == 2 and "uncommitted" in result.stderr


def test_the_hidden_replay_prints_digests_as_json(invoke, fake):
    found = json.loads(invoke("_digests", "one").stdout)
    assert found == {"one": {"content": digests(fake.play(None)).content, "ticks": ["aa"]}}
    assert "_digests" not in CliRunner().invoke(main, ["--help"]).stdout


def test_version_prints_the_packages():
    assert harness.__version__ in CliRunner().invoke(main, ["--version"]).stdout


def test_bless_writes_what_changed_as_json(invoke, tmp_path):
    invoke("bless", "--reason", "first", "--json", str(tmp_path / "blessed.json"))
    document = json.loads((tmp_path / "blessed.json").read_text())
    assert {change["what"] for change in document["changes"]} == {"new"}
    assert document["identical"] == 0


@pytest.mark.parametrize("options", [{"terminal_width": 80}, {"env": {"COLUMNS": "80"}}])
def test_every_command_is_described_in_one_whole_line_of_80_columns(options):
    shown = CliRunner().invoke(main, ["--help"], **options).stdout
    lines = shown.partition("Commands:\n")[2].splitlines()
    listed = {name for name, command in main.commands.items() if not command.hidden}
    assert [line.split()[0] for line in lines] == sorted(listed), "one line each"
    assert [line for line in lines if "..." in line or not line.endswith(".")] == []
    assert max(map(len, shown.splitlines())) <= 80


def test_every_option_says_in_a_sentence_what_it_is_for():
    shown = [command for command in main.commands.values() if not command.hidden]
    options = [(c.name, p.name, p.help) for c in shown for p in c.params if isinstance(p, click.Option)]
    assert len(options) > 50
    assert [each[:2] for each in options if not (each[2] or "").endswith(".")] == []


def test_without_another_battery_it_is_the_engine_s_own():
    context = click.Context(main, info_name="harness")
    with context:
        main.callback()
    assert context.obj is BATTERY
    result = CliRunner().invoke(main, ["check", "--only", "no such scenario"])
    assert (result.exit_code, "no such scenario" in result.stderr) == (2, True)


def test_usage_names_the_command_that_was_typed_whatever_process_runs_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["elsewhere", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(harness.__path__[0] + "/__main__.py", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: python -m harness [OPTIONS] COMMAND")
