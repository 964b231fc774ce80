"""How a command line starts: by `python -m harness`, by the console script, and with which commands."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

import harness
import harness.__main__
from harness import script
from harness.cli import main
from harness.parity.baselines.bless import BATTERY

ROOT = Path(__file__).resolve().parent.parent
START = str(harness.__main__.__file__)
SETTINGS = "[tool.harness]\n"


# python -m harness


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of `python -m harness` with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(START, run_name="__main__")
    return ended.value.code


def test_the_module_calls_itself_by_the_words_that_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, "--help") == 0
    assert capsys.readouterr().out.startswith("Usage: python -m harness [OPTIONS] COMMAND [ARGS]...\n")


@pytest.mark.parametrize("error", [RuntimeError("not today"), ImportError("not today"), SyntaxError("not today")])
def test_a_package_that_cannot_be_imported_could_not_run_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise error

    monkeypatch.setitem(sys.modules, "harness.cli", Broken("harness.cli"))
    assert started(monkeypatch, "--help") == 125
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Traceback (most recent call last):\n") and "not today" in said.err.splitlines()[-1]


def test_to_import_the_module_starts_nothing() -> None:
    names = runpy.run_path(START, run_name="harness.__main__")
    assert (names["main"], names["__all__"]) == (main, ["main"])


# The console script.


@pytest.fixture(name="replaced")
def _replaced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the console script does: the process that replaces it, or how the command line is called here."""

    def become(*what: Any) -> None:
        seen.append(what)
        raise SystemExit

    seen: list[Any] = []
    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(harness.__main__, "main", lambda **options: seen.append(options))
    monkeypatch.setattr(sys, "argv", ["harness", "check", "--only", "a b", ""])
    return seen


@pytest.mark.parametrize(("before", "after"), [(None, ""), ("", ""), ("behind", ":behind"), ("b:c", ":b:c")])
def test_python_s_path_begins_with_the_checkout_and_has_no_part_more_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: list[Any], before: str | None, after: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "harness")
    monkeypatch.setenv("OF_THE_CALLER", "kept")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    with pytest.raises(SystemExit):
        script.main()
    ((file, command, environment),) = replaced
    assert file == sys.executable
    assert command == [sys.executable, "-P", "-m", "harness", "check", "--only", "a b", ""]
    path = f"{tmp_path}{after.replace(':', os.pathsep)}"
    assert environment == {**os.environ, "PYTHONPATH": path} and environment["OF_THE_CALLER"] == "kept"


def nothing(folder: Path) -> Path:
    return folder


def settings_alone(folder: Path) -> Path:
    (folder / "pyproject.toml").write_text(SETTINGS)
    return folder


def without_init(folder: Path) -> Path:
    (folder / "harness").mkdir()
    return settings_alone(folder)


def another_s_package(folder: Path) -> Path:
    (folder / "harness").mkdir()
    (folder / "harness" / "__init__.py").touch()
    return folder


def own(_folder: Path) -> Path:
    return ROOT / "tests"


@pytest.mark.parametrize("where", [nothing, settings_alone, without_init, another_s_package, own])
def test_elsewhere_and_in_its_own_checkout_the_script_runs_here_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: list[Any], where: Callable[[Path], Path]
) -> None:
    monkeypatch.chdir(where(tmp_path))
    script.main()
    assert replaced == [{"prog_name": "harness"}]


def test_in_a_folder_that_was_deleted_the_script_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    script.main()
    assert replaced == [{"prog_name": "harness"}]


# The commands.


def test_there_are_these_commands_and_those_that_the_harness_calls_itself_are_hidden() -> None:
    shown = {"check", "bless", "probe", "bench", "compare", "export", "build", "profile", "replay"}
    hidden = {"_costs", "_digests", "_tensors", "_completion"}
    assert {name: command.hidden for name, command in main.commands.items()} == {
        **dict.fromkeys(shown, False),
        **dict.fromkeys(hidden, True),
    }
    assert [command.name for command in main.commands.values()] == list(main.commands)


def test_the_version_is_printed_with_the_name_of_the_command() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"harness, version {harness.__version__}\n")


@pytest.mark.parametrize("command", [(), *((name,) for name in main.commands)])
def test_the_short_option_for_help_says_the_same_for_every_command(command: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(main, [*command, option], prog_name="harness") for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (long.exit_code, long.output) == (0, short.output)
    assert short.output.startswith(f"Usage: {' '.join(['harness', *command])} [OPTIONS]")
    assert "-h, --help" in short.output


def test_a_command_works_on_the_battery_of_captures_where_nobody_brings_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    @click.command()
    @click.pass_obj
    def look(battery: object) -> None:
        seen.append(battery)

    monkeypatch.setitem(main.commands, "look", look)
    mine = object()
    for brought in (None, mine):
        assert CliRunner().invoke(main, ["look"], obj=brought).exit_code == 0
    assert seen == [BATTERY, mine]
