"""Where a made-up run's captures are, whether it may bless them, and what it may have left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.parity.baselines import blessed, refusals
from harness.plugin.places import captures_of, place_of, refuse_to_bless, shown
from harness.plugin.whole import left_out
from tests.plugin.test_hooks import made_up

pytestmark = pytest.mark.no_cover


# Captures.


@pytest.mark.parametrize(("given", "found"), [
    (None, "project/captures"),
    ("", "project/tests"),
    ("golden", "project/tests/golden"),
    ("../a b", "project/tests/../a b"),
    ("/golden", "/golden"),
])  # fmt: skip
def test_captures_are_the_project_s_own_or_in_the_folder_named_from_where_the_run_was_started(
    tmp_path: Path, given: str | None, found: str
) -> None:
    config = made_up(tmp_path / "project", captures=given, platform="board")
    config.invocation_params.dir = tmp_path / "project" / "tests"
    assert captures_of(config) == tmp_path / found
    assert place_of(config) == blessed.Place(tmp_path / found, tmp_path / "project", "board")


@pytest.mark.parametrize(("path", "text"), [
    ("project/captures/a b/x", "captures/a b/x"),
    ("project", "."),
    ("project-2/captures", "{}/project-2/captures"),
    ("captures", "{}/captures"),
])  # fmt: skip
def test_a_path_is_shown_from_the_project_s_folder_where_it_lies_inside(tmp_path: Path, path: str, text: str) -> None:
    assert shown(made_up(tmp_path / "project"), tmp_path / path) == text.format(tmp_path)


# Leave to bless.


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """What git is asked; there it says that nothing is wrong."""
    asked: list[tuple[str, Path]] = []
    monkeypatch.setattr(refusals, "refuse_unless_explicit", lambda reason, captures: asked.append((reason, captures)))
    return asked


@pytest.mark.parametrize("reason", ["tests/test_a.py why", "test_b", "a::b", "w" * 300, "why " * 100, "a\0b"])
def test_any_words_that_are_no_path_are_a_reason_and_git_is_asked_of_the_run_s_captures(
    tmp_path: Path, asked: list[tuple[str, Path]], reason: str
) -> None:
    (tmp_path / "test_b").touch()
    config = made_up(tmp_path, bless=reason, captures="golden")
    config.invocation_params.dir = tmp_path / "tests"
    config.option.numprocesses = 0
    (tmp_path / "tests").mkdir()
    refuse_to_bless(config)
    assert asked == [(reason, tmp_path / "tests" / "golden")]


@pytest.mark.parametrize(("reason", "worker", "option", "said"), [
    ("tests", {}, {}, "'tests' is a path, not a reason"),
    ("tests/test_a.py::test_a[x::y]", {}, {}, "'tests/test_a.py::test_a[x::y]' is a path, not a reason"),
    ("../outside", {}, {}, "'../outside' is a path, not a reason"),
    ("why", {"workerinput": {}}, {}, "several processes would bless at once: run without -n"),
    ("why", {}, {"numprocesses": 1}, "several processes would bless at once: run without -n"),
    ("why", {}, {"numprocesses": "auto"}, "several processes would bless at once: run without -n"),
])  # fmt: skip
def test_a_path_and_several_processes_are_refused_before_git_is_asked(
    tmp_path: Path,
    asked: list[tuple[str, Path]],
    reason: str,
    worker: Mapping[str, Any],
    option: Mapping[str, Any],
    said: str,
) -> None:
    config = made_up(tmp_path / "project", bless=reason)
    (tmp_path / "outside").mkdir()
    (tmp_path / "project" / "tests").mkdir(parents=True)
    (tmp_path / "project" / "tests" / "test_a.py").touch()
    vars(config).update(worker)
    vars(config.option).update(option)
    with pytest.raises(pytest.UsageError) as refused:
        refuse_to_bless(config)
    assert (str(refused.value), asked) == (f"--harness-bless: {said}", [])


@pytest.mark.parametrize("reason", ["", "  ", "\n"])
def test_a_reason_of_no_words_is_said_to_be_none_also_where_it_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "  ").mkdir()
    with pytest.raises(pytest.UsageError) as refused:
        refuse_to_bless(made_up(tmp_path, bless=reason))
    assert str(refused.value) == "--harness-bless: no reason given: say why the captures may change"


# What was left out.


def session(
    root: Path, *arguments: str, paths: tuple[str, ...] = ("tests",), source: str = "ARGS", **options: Any
) -> Any:
    """A run that ended well, with these arguments and options, in a project with these `testpaths`."""
    config = made_up(root)
    vars(config.option).update(options)
    config.getini = {"testpaths": list(paths)}.__getitem__
    config.args, config.args_source = list(arguments), pytest.Config.ArgsSource[source]
    return SimpleNamespace(config=config, shouldstop=False, shouldfail=False, exitstatus=pytest.ExitCode.OK)


def reasons(made: Any) -> list[str]:
    return list(left_out(made))


ENDED = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}


@pytest.mark.parametrize("status", pytest.ExitCode)
def test_a_run_that_did_not_come_to_its_end_was_stopped(tmp_path: Path, status: pytest.ExitCode) -> None:
    made = session(tmp_path, "tests")
    made.exitstatus = status
    assert reasons(made) == ([] if status in ENDED else ["the run was stopped"])


@pytest.mark.parametrize("flag", ["shouldstop", "shouldfail"])
def test_a_run_that_should_stop_was_stopped(tmp_path: Path, flag: str) -> None:
    made = session(tmp_path, "tests")
    setattr(made, flag, "stopping after 1 failures")
    assert reasons(made) == ["the run was stopped"]


LEAVES_OUT = {
    "collectonly": True,
    "setuponly": True,
    "setupplan": True,
    "lf": True,
    "ignore": ["tests/test_a.py"],
    "ignore_glob": ["*_a.py"],
    "showfixtures": True,
    "show_fixtures_per_test": True,
    "cacheshow": ["*"],
}


@pytest.mark.parametrize(("option", "value"), LEAVES_OUT.items())
def test_an_option_that_runs_no_test_or_not_all_leaves_some_out_and_is_named(
    tmp_path: Path, option: str, value: object
) -> None:
    assert reasons(session(tmp_path, "tests", **{option: value})) == [f"--{option} was given"]
    unset = {name: type(given)() for name, given in LEAVES_OUT.items()}
    assert reasons(session(tmp_path, "tests", **unset, failedfirst=True)) == []


@pytest.mark.parametrize(("flag", "option"), [
    ("--collect-only", "collectonly"),
    ("--setup-only", "setuponly"),
    ("--setup-plan", "setupplan"),
    ("--last-failed", "lf"),
    ("--ignore=tests/test_a.py", "ignore"),
    ("--ignore-glob=*_a.py", "ignore_glob"),
    ("--fixtures", "showfixtures"),
    ("--fixtures-per-test", "show_fixtures_per_test"),
    ("--cache-show", "cacheshow"),
    ("--failed-first", None),
    ("--exitfirst", None),
])  # fmt: skip
def test_these_options_are_known_by_the_names_that_pytest_gives_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, flag: str, option: str | None
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    given = pytester.parseconfig(flag)
    made = session(pytester.path, "tests")
    made.config.getoption = given.getoption
    assert reasons(made) == ([] if option is None else [f"--{option} was given"])


def test_every_reason_is_given(tmp_path: Path) -> None:
    made = session(tmp_path, "tests/a", "tests/b", paths=("tests", "more"), lf=True, collectonly=True)
    made.shouldfail = "yes"
    assert reasons(made) == [
        "the run was stopped",
        "--collectonly was given",
        "--lf was given",
        "only tests/a tests/b was run, of tests more",
    ]


@pytest.mark.parametrize(
    ("paths", "arguments", "start", "whole"),
    [
        (("tests",), ("tests",), "", True),
        (("tests",), ("tests/",), "", True),
        (("tests",), (".",), "", True),
        (("tests",), ("..",), "", True),
        (("tests",), (".",), "tests", True),
        (("tests",), ("../tests",), "tests", True),
        (("tests",), ("tests/../tests",), "", True),
        (("tests",), ("/",), "", True),
        (("tests",), ("tests/a.py", "tests"), "", True),
        (("tests",), ("tests",), "tests", False),
        (("tests",), ("test",), "", False),
        (("tests",), ("tests-2",), "", False),
        (("tests",), ("tests/a.py",), "", False),
        (("tests",), ("tests::a",), "", False),
        (("tests",), (), "", False),
        (("tests", "tests-2"), ("tests",), "", False),
        (("tests", "more"), ("more", "tests"), "", True),
        (("tests/a", "tests/b"), ("tests",), "", True),
        (("tests/a", "tests/b"), ("tests/a", "tests/c"), "", False),
        ((), (".",), "", True),
        ((), ("tests",), "", False),
        ((), (".",), "tests", False),
    ],
)
def test_a_run_is_of_the_whole_suite_where_each_folder_of_it_is_in_one_that_was_asked_for(
    tmp_path: Path, paths: tuple[str, ...], arguments: tuple[str, ...], start: str, whole: bool
) -> None:
    made = session(tmp_path, *arguments, paths=paths)
    made.config.invocation_params.dir = tmp_path / start
    said = f"only {' '.join(arguments)} was run, of {' '.join(paths) or '.'}"
    assert reasons(made) == ([] if whole else [said])


def test_a_run_without_arguments_is_of_the_whole_suite_where_pytest_took_the_folders_from_testpaths(
    tmp_path: Path,
) -> None:
    assert reasons(session(tmp_path, "tests/a", paths=("tests/*",), source="TESTPATHS")) == []
    started = session(tmp_path, str(tmp_path / "tests"), paths=(), source="INVOCATION_DIR")
    assert reasons(started) == [f"only {tmp_path / 'tests'} was run, of ."]
    started.config.args = [os.fspath(tmp_path)]
    assert reasons(started) == []
