"""Two revisions of any project, compared by a command that prints what a file in each says."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.rails.compare import commands
from harness.rails.compare.commands import Asked, Compared, Outputs, compare
from harness.rails.compare.statistics import TimeVerdict
from harness.rails.compare.worktrees import CannotCompare, Revision
from tests.rails.compare.fake_tree import commit, git

# The n-th run of a side prints its n-th values, the last ones from then on.
BENCH = """
import hashlib, json, os, sys, time
import engine
with open(engine.SAYS["log"], "a+") as log:
    log.seek(0)
    runs = log.read().split().count(engine.SAYS["name"])
    log.write(engine.SAYS["name"] + "\\n")
for name, digests in engine.SAYS["outputs"].items():
    print(json.dumps({"output": name, "sha256": digests[min(runs, len(digests) - 1)] * 64}))
for name, values in engine.SAYS["metrics"].items():
    for factor in (0.5, 1, 1, 9):
        print(json.dumps({"metric": name, "value": factor * values[min(runs, len(values) - 1)]}))
print(engine.SAYS["rest"], end="")
sys.exit(engine.SAYS["code"])
"""
SAYS: dict[str, Any] = {"outputs": {"latents": ["a"]}, "metrics": {"tick_ms": [2.0]}, "rest": "", "code": 0}
COMMAND = ("python", "bench.py")


class Project:
    """A project of somebody else's: its first commit is BASE, its working tree HEAD."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root.parent / "log"
        root.mkdir()
        (root / "bench.py").write_text(BENCH)
        self.says(name="base")
        commit(root, "first")
        self.says()

    def says(self, **says: Any) -> None:
        given = {**SAYS, "name": "head", "log": str(self.log), **says}
        (self.root / "engine.py").write_text(f"SAYS = {given!r}\n")

    def base_says(self, **says: Any) -> None:
        self.says(name="base", **says)
        commit(self.root, "other")
        self.says()

    def compare(self, *command: str, quads: int = 2, most: int = 2) -> Compared:
        return compare("HEAD", None, Asked(command or COMMAND, quads, most), self.root, lambda _: None)

    def order(self) -> str:
        return "".join(name[0] for name in self.log.read_text().split())


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Project(tmp_path / "project")


# Times.


def test_runs_alternate_behind_one_of_each_and_medians_of_their_samples_are_compared(project: Project) -> None:
    found = project.compare()
    assert project.order() == "bh" + "bhhb" * 2
    (metric,) = found.metrics
    assert (metric.name, metric.base, metric.head, metric.verdict) == ("tick_ms", 2.0, 2.0, TimeVerdict.SAME)
    assert (found.verdict, found.outputs) == (TimeVerdict.SAME, Outputs((), (), (), 1))
    assert found.summary() == "same: tick_ms"
    assert list((project.root.parent / "temporary").iterdir()) == []
    assert git(project.root, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize(
    ("head", "verdict", "quads"),
    [(2.2, TimeVerdict.SLOWER, 4), (1.8, TimeVerdict.FASTER, 4), (2.04, TimeVerdict.SAME, 2)],
)
def test_a_difference_is_a_verdict_where_it_recurs_in_a_second_draw(
    project: Project, head: float, verdict: TimeVerdict, quads: int
) -> None:
    project.says(metrics={"tick_ms": [head]})
    found = project.compare()
    assert (found.verdict, len(project.order())) == (verdict, 2 + 4 * quads)
    assert f"tick_ms: {verdict}: B is {head / 2:.3f} of A" in found.metrics[0].summary()


def test_a_difference_that_does_not_recur_is_inconclusive(project: Project) -> None:
    project.says(metrics={"tick_ms": [2.0, *[2.2] * 4, 2.0]})
    found = project.compare()
    assert found.verdict is TimeVerdict.INCONCLUSIVE
    assert found.metrics[0].summary() == "tick_ms: inconclusive: slower did not recur in a second draw"


def test_quads_are_added_until_there_is_a_verdict_or_the_most(project: Project) -> None:
    project.says(metrics={"tick_ms": [2.0, 1.0, 1.0, 4.0, 4.0, 2.0]})
    assert project.compare(most=3).verdict is TimeVerdict.INCONCLUSIVE
    assert project.order() == "bh" + "bhhb" * 3


def test_the_worst_verdict_of_several_metrics_is_that_of_all_and_each_has_its_own(project: Project) -> None:
    both = {"tick_ms": [2.0], "load": [5.0]}
    project.base_says(metrics=both)
    project.says(metrics={**both, "load": [6.0]})
    found = project.compare()
    assert {each.name: each.verdict for each in found.metrics} == {"tick_ms": "same", "load": "slower"}
    assert {each.name: len(each.draws) for each in found.metrics} == {"tick_ms": 1, "load": 2}
    assert (found.verdict, found.summary()) == (TimeVerdict.SLOWER, "slower: load")


def test_the_seed_of_hashes_is_the_same_in_every_run_whatever_the_caller_has(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    asks = 'import os; assert os.environ["PYTHONHASHSEED"] == "0"; print(\'{"metric": "s", "value": 1.0}\')'
    assert project.compare("python", "-c", asks).verdict is TimeVerdict.SAME


ORDER = (TimeVerdict.SLOWER, TimeVerdict.INCONCLUSIVE, TimeVerdict.FASTER, TimeVerdict.SAME)


@pytest.mark.parametrize(("worse", "better"), [*itertools.combinations(ORDER, 2)])
def test_of_two_verdicts_the_worse_one_is_that_of_all(worse: TimeVerdict, better: TimeVerdict) -> None:
    for verdicts in ((worse, better), (better, worse)):
        metrics: Any = tuple(SimpleNamespace(verdict=each) for each in verdicts)
        sides = Revision("a"), Revision("b")
        assert Compared(*sides, Asked(COMMAND), Outputs((), (), (), 1), metrics).verdict is worse


def test_small_numbers_are_compared_as_large_ones(project: Project) -> None:
    project.base_says(metrics={"tick_s": [2e-6]})
    project.says(metrics={"tick_s": [2.2e-6]})
    assert project.compare().verdict is TimeVerdict.SLOWER


# Outputs.


@pytest.mark.parametrize(
    ("base", "head", "outputs"),
    [
        ({"a": ["a"]}, {"a": ["b"]}, Outputs(("a",), (), (), 0)),
        ({"a": ["a"]}, {"a": ["a", "a", "b"]}, Outputs(("a",), (), (), 0)),
        ({"a": ["a"], "b": ["b"]}, {"b": ["b"]}, Outputs((), ("a",), (), 1)),
        ({"b": ["b"]}, {"a": ["a"], "b": ["b"]}, Outputs((), (), ("a",), 1)),
        ({}, {}, Outputs((), (), (), 0)),
    ],
)
def test_every_output_is_compared_in_every_run(
    project: Project, base: dict[str, list[str]], head: dict[str, list[str]], outputs: Outputs
) -> None:
    project.base_says(outputs=base)
    project.says(outputs=head)
    found = project.compare().outputs
    assert found == outputs
    assert found.passes == (not outputs.moved and not outputs.only_base)


def test_a_base_that_makes_another_output_from_run_to_run_is_no_base(project: Project) -> None:
    project.base_says(outputs={"latents": ["a", "b"]})
    with pytest.raises(CannotCompare, match=r"^HEAD \(\w+\) makes another latents from run to run"):
        project.compare()


# Commands that cannot be compared.


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ({"code": 3}, "bench.py of the working tree"),
        ({"code": 3}, "exited with 3:"),
        ({"rest": "done\n"}, ", line 6: got Expecting value"),
        ({"metrics": {}}, "got 0 metrics"),
        ({"metrics": {}, "outputs": {}}, "got nothing printed"),
        ({"metrics": {"other": [1.0]}}, "prints no tick_ms"),
        ({"metrics": {"tick_ms": [2.0], "other": [1.0]}}, "HEAD (") ,
    ],
)  # fmt: skip
def test_a_side_that_fails_or_prints_something_else_is_named(project: Project, says: dict[str, Any], said: str) -> None:
    project.says(**says)
    with pytest.raises(CannotCompare) as cannot:
        project.compare()
    assert said in str(cannot.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program"], "no-such-program of HEAD"),
        (["python", "-c", "import sys; sys.exit('the decoder broke')"], "exited with 1:\nthe decoder broke"),
        (["yes"], "expected at most 4194304 bytes"),
        (["python", "nothing.py"], "exited with 2:"),
    ],
)
def test_a_command_that_does_not_run_is_named_with_its_last_words(
    project: Project, command: list[str], said: str
) -> None:
    with pytest.raises(CannotCompare) as cannot:
        project.compare(*command)
    assert said in str(cannot.value)
    assert list((project.root.parent / "temporary").iterdir()) == []


def test_a_file_of_the_checkout_by_its_full_path_would_be_the_same_for_both(project: Project) -> None:
    with pytest.raises(CannotCompare, match=r"is the same file for both revisions: name bench\.py, which each has"):
        project.compare("python", str(project.root / "bench.py"))
    elsewhere = project.root.parent / "elsewhere.py"
    elsewhere.write_text(BENCH)
    assert project.compare("python", str(elsewhere)).verdict is TimeVerdict.SAME


def test_python_is_this_one_and_a_program_of_the_folder_is_found_from_the_other(project: Project) -> None:
    (project.root / "bench.py").write_text(f"import sys\nassert sys.executable == {sys.executable!r}\n{BENCH}")
    commit(project.root, "other")
    project.compare()
    (project.root / "ignored").write_text(f"#!/bin/sh\nexec {sys.executable} bench.py\n")
    (project.root / "ignored").chmod(0o755)
    assert project.compare("./ignored").verdict is TimeVerdict.SAME


def test_packages_below_src_are_those_of_the_revision(project: Project) -> None:
    (project.root / "src").mkdir()
    (project.root / "engine.py").rename(project.root / "src" / "engine.py")
    (project.root / "src" / "engine.py").write_text((project.root / "src" / "engine.py").read_text())
    commit(project.root, "moved")
    project.compare()
    assert project.order().startswith("hh")


def test_what_a_command_started_ends_with_it(project: Project) -> None:
    pid = project.root.parent / "pid"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL)\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\nsys.exit(1)"
    )
    with pytest.raises(CannotCompare):
        project.compare("python", "-c", code)
    for _ in range(100):
        if not alive(int(pid.read_text())):
            return
        time.sleep(0.05)
    pytest.fail("the command's own process goes on")


def alive(pid: int) -> bool:
    """Whether a process is there and is more than an entry that nobody has waited for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# The command line.


def invoke(project: Project, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.chdir(project.root)
    return CliRunner().invoke(main, ["compare", *words])


QUICK = ("--rounds", "2", "--most", "2")
SAME = "1 output with equal digests"


@pytest.mark.parametrize(
    ("says", "code", "first", "last"),
    [
        ({}, 0, SAME, "same: tick_ms"),
        ({"metrics": {"tick_ms": [1.0]}}, 0, SAME, "faster: tick_ms"),
        ({"metrics": {"tick_ms": [4.0]}}, 1, SAME, "slower: tick_ms"),
        ({"metrics": {"tick_ms": [2.0, 1.0, 1.0, 4.0, 4.0]}}, 3, SAME, "inconclusive: tick_ms"),
        ({"outputs": {"latents": ["b"]}}, 1, "outputs MOVED: latents", "same: tick_ms"),
        ({"outputs": {}}, 1, "outputs not compared, missing in B: latents", "same: tick_ms"),
        ({"code": 1}, 125, "", ""),
    ],
)  # fmt: skip
def test_every_verdict_has_its_exit_code_and_outputs_come_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, says: dict[str, Any], code: int, first: str, last: str
) -> None:
    project.says(**says)
    result = invoke(project, monkeypatch, *QUICK, "HEAD", "--", *COMMAND)
    lines = result.stdout.splitlines() or [""]
    assert (result.exit_code, lines[0], lines[-1]) == (code, first, last), result.output


def test_a_report_has_outputs_metrics_and_command(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(
        project, monkeypatch, *QUICK, "HEAD", "--json", "report.json", "HEAD", "--", *COMMAND, "--json", "x"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((project.root / "report.json").read_text())
    assert (found["verdict"], found["command"]) == ("same", [*COMMAND, "--json", "x"])
    assert found["outputs"] == {"moved": [], "only_base": [], "only_head": [], "same": 1, "passes": True}
    assert found["metrics"]["tick_ms"]["draws"][0]["ratio"]["value"] == 1.0


@pytest.mark.parametrize("words", [
    ["HEAD", "--"], ["--calibrate", "HEAD", "--", "python"], ["HEAD", "--ticks", "80", "--", "python"],
    ["--", "python"],
])  # fmt: skip
def test_a_command_goes_with_revisions_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    assert invoke(project, monkeypatch, *words).exit_code == 2
    assert not project.log.exists()


def test_without_options_there_are_8_quads_before_the_first_verdict_and_24_at_most() -> None:
    assert Asked(COMMAND) == Asked(COMMAND, 8, 24) == Asked(COMMAND, commands.QUADS, commands.MOST_QUADS)
