"""Common parts of the commands: what an option takes, and what a terminal shows while one waits."""

from __future__ import annotations

from io import StringIO

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.commands.common import choice, progress
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
