"""Common parts of the commands: options, progress, errors and JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness import registry
from harness.commands.advice import advised
from harness.commands.exits import COULD_NOT_RUN, DIFFERS, USAGE
from harness.engine import atomic
from harness.engine.errors import CheckpointRefused, EngineError, ExportRefused, Inaccurate, InvalidInput
from harness.files import FileRefused
from harness.files.refused import shown
from harness.parity.baselines.bless import Battery
from harness.parity.baselines.captures import CAPTURES, select

FILE = click.Path(path_type=Path, dir_okay=False)
CAPTURES_OPTION = click.option(
    "--captures", type=click.Path(path_type=Path, file_okay=False), default=CAPTURES, help="Folder of captures."
)
DTYPES = registry.DTYPES
ONLY_OPTION = click.option(
    "--only", multiple=True, metavar="NAME", help="Only this scenario; may be given several times."
)


def _parsed(_context: click.Context, _option: click.Parameter, named: str) -> str:
    try:
        torch.device(named)
    except RuntimeError as error:
        raise click.BadParameter(f"device: got {named!r}, expected a device of torch, such as cpu or cuda") from error
    return named


DEVICE_OPTION = click.option(
    "--device", default="cpu", show_default=True, callback=_parsed, help="Device of the decoder, such as cuda."
)


def json_option(words: str) -> Callable[[Any], Any]:
    """Make the option `--json PATH`, passed to the command as `json_path`; `words` is its help text."""
    return click.option("--json", "json_path", type=FILE, help=words)


def choice(name: str, values: Iterable[str], words: str) -> Callable[[Any], Any]:
    """Make an option that may be given several times, with one of `values` each time; `words` is its help text."""
    return click.option(name, multiple=True, type=click.Choice([str(value) for value in values]), help=words)


def say(words: object, *, err: bool = False) -> None:
    """Print a line in which nothing controls the terminal: files give some of the words, and escapes are shown as such.

    Args:
        words: the line, or several ones.
        err: True prints to standard error.
    """
    click.echo(shown(str(words)), err=err)


def write_json(path: Path | None, document: Mapping[str, object]) -> None:
    """Write a report to `path`, whole or not at all, through a link or a device that is there; None writes nothing.

    Exit with 125 if the write fails or if a number is not finite, which JSON cannot hold.
    """
    if path is None:
        return
    with _writing(path):
        atomic.write_output(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def write_text(path: Path | None, text: str) -> None:
    """Write a text to `path` in UTF-8, as `write_json` writes a report; None writes nothing."""
    if path is not None:
        with _writing(path):
            atomic.write_output(path, text.encode())


def check_writable(*paths: Path | None) -> None:
    """Exit with 125 before the command's work if one of its output files could not be written."""
    for path in paths:
        if path is not None:
            with _writing(path):
                atomic.check_output(path)


def check_device(what: str, named: str) -> None:
    """Exit with 125 before the command's work if the machine does not have a device.

    Args:
        what: the verb of the message, such as `check` in `cannot check: ...`.
        named: the device's name, which torch knows.
    """
    with could_not_run(what, InvalidInput):
        registry.check_here(named)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        say(f"cannot write {path}: {advised(error)}", err=True)
        sys.exit(COULD_NOT_RUN)


def chosen(battery: Battery, only: Sequence[str]) -> Sequence[str]:
    """Return the names in `only`.

    Raises:
        UsageError: a name that is no scenario of the battery.
    """
    with usage_errors():
        select(battery.scenarios, only)
    return only


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn `InvalidInput` inside a `with` block into a wrong command line, exit code 2; not so a broken checkpoint."""
    try:
        yield
    except CheckpointRefused as error:
        say(f"cannot use the checkpoint: {advised(error)}", err=True)
        sys.exit(COULD_NOT_RUN)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Print an error of a compiled decoder inside a `with` block in one line, and exit.

    The code is 1 for a file that is inaccurate, 2 for any other file that is refused, and 125 where nothing could run.

    Args:
        what: the verb of the message, such as `export` in `cannot export: ...`.
    """
    try:
        with usage_errors():
            yield
    except ExportRefused as error:
        say(f"refused: {error}", err=True)
        sys.exit(DIFFERS if isinstance(error, Inaccurate) else USAGE)
    except (EngineError, FileRefused, OSError) as error:
        say(f"cannot {what}: {advised(error)}", err=True)
        sys.exit(COULD_NOT_RUN)


@contextmanager
def could_not_run(what: str, *known: type[Exception]) -> Iterator[None]:
    """Exit with 125 if a `with` block raises: Python's exit code 1 of a crash would be read as a difference.

    Args:
        what: the verb of the message, such as `check` in `cannot check: ...`.
        known: errors that are printed in one line; any other one is printed with its traceback.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit):
        raise
    except known as error:
        say(f"cannot {what}: {advised(error)}", err=True)
        sys.exit(COULD_NOT_RUN)
    except Exception:  # noqa: BLE001 - a crash of any kind is no verdict
        Console(stderr=True).print_exception()
        sys.exit(COULD_NOT_RUN)


@contextmanager
def progress(console: Console, total: int | None, what: str = "check") -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal, nothing in a log; yield a function that takes the next step's name.

    Args:
        console: where the command writes.
        total: number of steps; None if it is unknown. A bar that gets more steps shows no share any more.
        what: description before the first step.
    """
    clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(), TaskProgressColumn(), clock)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        number = shown.add_task(what, total=total)

        def advance(name: str) -> None:
            (task,) = shown.tasks
            if task.total is not None and task.completed >= task.total:
                task.total = None
            shown.update(number, advance=1, description=name)

        yield advance
