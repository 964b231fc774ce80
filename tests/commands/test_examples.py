"""Examples in the help of the commands: each is a command line that its command understands."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.commands.bench import bench_command
from harness.commands.common import chosen
from harness.commands.examples import EXAMPLES, PROGRAM, epilog
from harness.parity.baselines.bless import BATTERY

SHOWN = [name for name, command in main.commands.items() if not command.hidden]


def of(command: str) -> str:
    """The help of a command, as a terminal of 80 columns shows it."""
    result = CliRunner().invoke(main, [command, "--help"], prog_name=PROGRAM, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    return result.output


def parsed(line: str) -> click.Context:
    """The command line as its command understands it, not run."""
    name, *arguments = shlex.split(line.removeprefix(PROGRAM))
    return main.commands[name].make_context(name, arguments)


def examples() -> list[str]:
    return [line.strip() for name in SHOWN for line in of(name).splitlines() if line.startswith(f"    {PROGRAM} ")]


def test_every_command_has_an_example_and_every_example_is_shown_whole() -> None:
    assert list(EXAMPLES) == SHOWN
    assert examples() == [f"{PROGRAM} {line}" for named in EXAMPLES.values() for line in named.values()]


@pytest.mark.parametrize("name", main.commands)
def test_no_line_of_help_is_longer_than_80_columns(name: str) -> None:
    assert [line for line in of(name).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("line", [line for named in EXAMPLES.values() for line in named.values()])
def test_an_example_is_a_command_line_that_its_command_understands(line: str) -> None:
    found = parsed(line).params
    assert chosen(BATTERY, found.get("only", ())) == found.get("only", ())
    options = [word for word in found.get("words", ())[1:]]
    bench_command.make_context("bench", options)


@pytest.mark.parametrize("line", ["check --onyl ode_plain", "bench --cfg fall", "probe --frames 0", "export"])
def test_an_option_or_value_that_is_not_there_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(line)


def test_the_examples_are_the_last_lines_of_help_and_say_what_they_do() -> None:
    last = of("probe").partition("\n  Examples:\n")[2]
    assert re.fullmatch(rf"    # [a-z].*\n    {PROGRAM} probe .*\n", last)


def test_a_command_that_the_harness_calls_itself_has_no_example() -> None:
    assert {epilog(name) for name, command in main.commands.items() if command.hidden} == {None}
