"""Common parts of the commands: what an option takes, and what a terminal shows while one waits."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.commands.common import choice, progress, reported, write_json
from harness.engine.errors import ExportRefused
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


def test_a_refused_export_is_said_where_errors_are_and_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, reported("export"):
        raise ExportRefused("too far")
    assert (ended.value.code, *capsys.readouterr()) == (1, "", "refused: too far\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", {"number": number})
    assert not list(tmp_path.iterdir())
