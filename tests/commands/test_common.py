"""Common parts of the commands: what an option takes, and what a terminal shows while one waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.commands import build, common, exits
from harness.commands.common import check_writable, choice, could_not_run, progress, reported, write_json
from harness.commands.on_engine import CannotRun
from harness.engine.errors import BuildFailed, EngineError, ExportRefused, Inaccurate, InvalidInput, PackageMissing
from harness.registry import ExecutorKind


@click.command()
@choice("--executor", ExecutorKind, "Some of them.")
def command(executor: tuple[str, ...]) -> None:
    click.echo(", ".join(executor))


def test_one_of_several_values_is_typed_as_it_is_printed() -> None:
    assert CliRunner().invoke(command, ["--executor", "eager", "--executor", "onnx"]).stdout == "eager, onnx\n"


@pytest.mark.parametrize(("total", "share"), [(2, "50%"), (4, "25%")])
def test_the_bar_shows_the_share_of_the_steps_that_were_announced(total: int, share: str) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=80)
    with progress(terminal, total) as advance:
        advance("one")
    assert share in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_shows_the_step_that_is_done_and_a_log_shows_nothing() -> None:
    terminal, log = Console(file=StringIO(), force_terminal=True, width=80), Console(file=StringIO(), width=80)
    for console in (terminal, log):
        with progress(console, 2) as advance:
            advance("the first")
    assert "the first" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert log.file.getvalue().strip() == ""  # type: ignore[attr-defined]


# What is written.


def test_a_report_is_written_whole_with_a_line_for_each_value(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "r.json"
    write_json(path, {"one": [1, None], "two": {"ü": True, "x": 0.1}})
    assert path.read_bytes() == (
        b'{\n  "one": [\n    1,\n    null\n  ],\n  "two": {\n    "\\u00fc": true,\n    "x": 0.1\n  }\n}\n'
    )
    write_json(path, {})
    assert path.read_bytes() == b"{}\n"
    assert [each.name for each in path.parent.iterdir()] == ["r.json"]
    write_json(None, {"one": 1})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_no_json_is_refused_and_the_report_that_was_there_stays(
    number: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    path.write_text("before")
    code, said = ended(lambda: write_json(path, {"x": [number]}), capsys)
    assert (code, said.startswith(f"cannot write {path}: "), "JSON" in said) == (125, True, True)
    assert path.read_text() == "before"


def ended(act: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The exit code, or the exception that came through, and what stood on stderr."""
    try:
        act()
    except SystemExit as error:
        return error.code, capsys.readouterr().err
    except (click.ClickException, click.exceptions.Exit, KeyboardInterrupt) as error:
        return type(error), capsys.readouterr().err
    return None, capsys.readouterr().err


def test_the_first_target_that_cannot_be_written_is_named_and_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    good, bad, worse = tmp_path / "good", tmp_path / "file" / "bad", tmp_path
    assert ended(lambda: check_writable(None, good), capsys) == (None, "")
    code, said = ended(lambda: check_writable(good, None, bad, worse), capsys)
    assert (code, said.startswith(f"cannot write {bad}: "), said.count("\n")) == (125, True, 1)
    code, said = ended(lambda: check_writable(good, worse), capsys)
    assert (code, said.startswith(f"cannot write {worse}: ")) == (125, True)
    code, said = ended(lambda: write_json(bad, {}), capsys)
    assert (code, said.startswith(f"cannot write {bad}: "), said.count("\n")) == (125, True, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# How a command ends.


def within(block: AbstractContextManager[None], error: BaseException | None) -> Callable[[], None]:
    def act() -> None:
        with block:
            if error:
                raise error

    return act


@pytest.mark.parametrize(("error", "code", "said"), [
    (None, None, ""),
    (InvalidInput("x", 1, "2"), click.UsageError, ""),
    (Inaccurate("too far"), 1, "refused: too far\n"),
    (ExportRefused("frozen"), 2, "refused: frozen\n"),
    (BuildFailed("no kernel"), 125, "cannot build: no kernel\n"),
    (PackageMissing("onnx", "onnx"), 125, f"cannot build: {PackageMissing('onnx', 'onnx')}\n"),
    (FileNotFoundError("gone"), 125, "cannot build: gone; name a file that is there\n"),
    (click.UsageError("wrong"), click.UsageError, ""),
])  # fmt: skip
def test_each_error_of_a_compiled_decoder_has_its_exit_code(
    error: Exception | None, code: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(within(reported("build"), error), capsys) == (code, said)


def test_an_error_that_no_compiled_decoder_has_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="broke"):
        within(reported("build"), RuntimeError("broke"))()


@pytest.mark.parametrize(("error", "code", "said"), [
    (None, None, ""),
    (KeyError("known"), 125, "cannot check: 'known'\n"),
    (EngineError("known too"), 125, "cannot check: known too\n"),
    (PackageMissing("onnx", "onnx"), 125, f"cannot check: {PackageMissing('onnx', 'onnx')}\n"),
    (click.UsageError("wrong"), click.UsageError, ""),
    (CannotRun("no GPU"), CannotRun, ""),
    (click.exceptions.Exit(7), click.exceptions.Exit, ""),
    (SystemExit(3), 3, ""),
    (KeyboardInterrupt(), KeyboardInterrupt, ""),
])  # fmt: skip
def test_a_known_error_is_one_line_and_how_else_a_command_ends_is_left_as_it_is(
    error: BaseException | None, code: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(within(could_not_run("check", KeyError, EngineError), error), capsys) == (code, said)


@pytest.mark.parametrize("known", [(), (KeyError,)])
def test_any_other_error_is_125_with_its_traceback_and_never_the_1_of_a_difference(
    known: tuple[type[Exception], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(within(could_not_run("check", *known), ValueError("broke")), capsys)
    assert code == 125 and "Traceback" in said and "ValueError: broke" in said and "cannot check" not in said


def test_the_exit_codes_are_those_that_the_docs_and_git_bisect_know() -> None:
    assert (exits.PASSED, exits.DIFFERS, exits.USAGE, exits.INCONCLUSIVE, exits.COULD_NOT_RUN) == (0, 1, 2, 3, 125)
    assert CannotRun("x").exit_code == 125


@pytest.mark.parametrize(("option", "flag", "words"), [
    (lambda: common.json_option("Write it here."), "--json", "Write it here."),
    (lambda: common.choice("--kind", ["a"], "Of this kind."), "--kind", "Of this kind."),
    (lambda: common.CAPTURES_OPTION, "--captures", "Folder of captures."),
    (lambda: common.ONLY_OPTION, "--only", "Only this scenario; may be given several times."),
    (lambda: build._sizes("--frames", (2, 4, 6), "Latent frames."), "--frames", "Latent frames."),
])  # fmt: skip
def test_an_option_that_commands_share_has_its_name_and_its_help(option: Any, flag: str, words: str) -> None:
    def shared(**_options: Any) -> None:
        pass

    (made,) = option()(shared).__click_params__
    assert (made.opts, made.help) == ([flag], words)
