"""Blessed traces: a moment of production is kept, and nothing else passes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.parity.baselines import platform
from tests.git import commit, git
from tests.parity.traces.plain import counted
from tests.parity.traces.rings import recorded
from tests.parity.traces.test_reading import changed


class Project:
    """A project with a trace of six ticks beside it."""

    def __init__(self, root: Path) -> None:
        self.captures, self.trace = root / "captures", recorded(root / "night.trace")
        self.folder = self.captures / platform.name() / "traces"
        git(root, "init", "-q")
        commit(root)

    def run(self, *words: Any) -> Result:
        return CliRunner().invoke(main, [*map(str, words), "--captures", str(self.captures)])

    def bless(self, until: int = 3, name: str = "night", reason: str = "why") -> Result:
        words = ("--from-trace", self.trace, "--name", name, "--until", until)
        return self.run("bless", *words, "--reason", reason)

    def replay(self) -> Result:
        return self.run("replay", "--blessed")


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("CI", raising=False)
    return Project(tmp_path)


def test_a_moment_is_blessed_and_replayed_up_to_its_tick(project: Project) -> None:
    assert "night.trace written" in project.bless().stdout
    result = project.replay()
    assert (result.exit_code, "night: 12 events, 3 ticks: all" in result.stdout) == (0, True), result.output
    assert "blessed up to tick 3" in result.stdout


def test_a_second_moment_is_kept_beside_the_first(project: Project) -> None:
    assert project.bless().exit_code == 0
    assert "uncommitted changes" in project.bless(2, "early").stderr
    commit(project.captures.parent)
    assert project.bless(2, "early").exit_code == 0
    assert [line.split(":")[0] for line in project.replay().stdout.splitlines()] == ["early", "night"]


def test_a_digest_that_moved_is_named_with_the_blessed_trace(project: Project) -> None:
    project.trace = changed(project.trace, -2, lambda d: {**d, "made": []})
    assert project.bless(until=5).exit_code == 2
    assert not project.folder.exists()


def spoil(project: Project, act: Any) -> Result:
    assert project.bless().exit_code == 0
    act(project.folder)
    return project.replay()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda folder: (folder / "night.trace").unlink(), "night.trace: missing"),
        (lambda folder: (folder / "night.trace").write_bytes(b"x"), "night.trace: altered, its SHA-256"),
        (lambda folder: (folder / "more.trace").write_bytes(b"x"), "more.trace: no blessed trace"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json: format version"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: missing"),
    ],
)
def test_a_blessed_trace_that_is_not_what_was_blessed_fails(project: Project, act: Any, words: str) -> None:
    result = spoil(project, act)
    assert (result.exit_code, words in result.stdout) == (1, True), result.output


def test_without_a_blessed_trace_nothing_could_be_compared(project: Project) -> None:
    result = project.replay()
    assert (result.exit_code, "no trace was blessed on this platform" in result.stderr) == (125, True)


def test_blessing_is_refused_without_a_reason_and_beyond_the_end(project: Project) -> None:
    for refused, words in ((project.bless(reason=" "), "no reason given"), (project.bless(99), "ends before tick 99")):
        assert (refused.exit_code, words in refused.stderr) == (2, True), refused.output
    assert not project.folder.exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(project: Project) -> None:
    assert project.bless(name="../night").exit_code == 2
    assert project.run("bless", "--name", "night").exit_code == 2


def test_a_trace_of_another_ring_is_not_blessed_by_the_command(project: Project, tmp_path: Path) -> None:
    project.trace = counted(tmp_path / "mine")
    assert project.bless().exit_code == 2


def test_one_trace_or_the_blessed_ones_are_replayed(project: Project) -> None:
    assert project.run("replay").exit_code == 2
    assert project.run("replay", project.trace, "--blessed").exit_code == 2
