"""Completion of the command `harness` in a shell, from a file that names its commands, options and values.

A shell asks at every press of the key. To import the commands takes seconds, because they import torch; the file
`completion.json` says the same in a tenth of a second. `python -m harness _completion` makes the file from the
commands, and a test compares both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from harness.extras import COMMAND, needed
from harness.files import documents
from harness.files.schema import Name, Text, Within, fit

if TYPE_CHECKING:
    import click

VARIABLE = "_HARNESS_COMPLETE"
"""Environment variable in which a shell asks, as click names it."""
FILE = Path(__file__).with_name("completion.json")
_KIND = Annotated[str, Text(5, "plain|file|dir")]


@dataclass(frozen=True)
class Parameter:
    """An option or an argument.

    Attributes:
        names: of an option its words on the command line, of an argument its name.
        number: values that it takes on the command line: 0 for a flag, -1 for any number of an argument's values.
        values: values to offer; empty if there is nothing to offer.
        kind: `file` or `dir` if the shell itself completes a path.
        repeats: True if an option may be given several times.
        help: one line.
    """

    names: tuple[Name, ...]
    number: Annotated[int, Within(-1, 9)]
    values: tuple[Name, ...]
    kind: _KIND
    repeats: bool
    help: Name


@dataclass(frozen=True)
class Command:
    """A command, with its options and arguments in order."""

    help: Name
    parameters: tuple[Parameter, ...]


def read(path: Path = FILE) -> Mapping[str, Command]:
    """Return the commands of a file by name.

    Raises:
        FileRefused: the file is none of this schema.
    """
    found: dict[str, Command] = fit(dict[str, Command], documents.load(path), path)
    return found


def group(commands: Mapping[str, Command]) -> click.Group:
    """Return a group of commands that complete and that do nothing else."""
    import click  # noqa: PLC0415 - an extra

    version = click.Option(["--version"], is_flag=True, help="Show the version and exit.")
    found = click.Group("harness", params=[version], context_settings={"help_option_names": ["-h", "--help"]})
    for name, command in commands.items():
        params = [_made(f"of_{number}", each) for number, each in enumerate(command.parameters)]
        found.add_command(click.Command(name, params=params, short_help=command.help))
    return found


def _made(name: str, each: Parameter) -> click.Parameter:
    """Return a parameter of click that offers the values of one of a file."""
    import click  # noqa: PLC0415 - an extra
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - an extra

    def offered(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        if each.kind != "plain":
            return [CompletionItem(begun, type=each.kind)]
        return [CompletionItem(value) for value in each.values if value.startswith(begun)]

    if not each.names[0].startswith("-"):
        return click.Argument([name], nargs=each.number, required=False, shell_complete=offered)
    if each.number == 0:
        return click.Option([*each.names, name], is_flag=True, help=each.help)
    return click.Option(
        [*each.names, name], nargs=each.number, multiple=each.repeats, help=each.help, shell_complete=offered
    )


def asked() -> bool:
    """Say whether a shell asks for a completion."""
    return bool(os.environ.get(VARIABLE))


def answer() -> NoReturn:
    """Print what the shell asks for, and exit: with 0, or with 2 where click is missing or knows no such shell."""
    try:
        from click.shell_completion import shell_complete  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        sys.exit(needed("completion", COMMAND, error))
    sys.exit(2 * shell_complete(group(read()), {}, "harness", VARIABLE, os.environ[VARIABLE]))
