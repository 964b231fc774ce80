"""Options, progress, errors and JSON files: the parts that several commands have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from harness.commands.exits import COULD_NOT_RUN, DIFFERS
from harness.engine import atomic
from harness.engine.errors import EngineError, ExportRefused, InvalidInput
from harness.parity.baselines.bless import Battery
from harness.parity.baselines.captures import CAPTURES, select

FILE = click.Path(path_type=Path, dir_okay=False)
CAPTURES_OPTION = click.option(
    "--captures", type=click.Path(path_type=Path, file_okay=False), default=CAPTURES, help="Folder of captures."
)
DTYPES = ("float32", "bfloat16", "float16")
ONLY_OPTION = click.option(
    "--only", multiple=True, metavar="NAME", help="Only this scenario; may be given several times."
)


def json_option(words: str) -> Callable[[Any], Any]:
    """The option `--json PATH`, passed on as `json_path`."""
    return click.option("--json", "json_path", type=FILE, help=words)


def choice(name: str, values: Iterable[str], words: str) -> Callable[[Any], Any]:
    """An option that may be given several times, with one of `values` each time."""
    return click.option(name, multiple=True, type=click.Choice([str(value) for value in values]), help=words)


def write_json(path: Path | None, document: Mapping[str, object]) -> None:
    """Write a report to `path`, whole or not at all; None writes nothing. Exits with 125 where it cannot be written."""
    if path is None:
        return
    data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    with _writing(path):
        atomic.write(path, data)


def check_writable(*paths: Path | None) -> None:
    """End the command before its work, with exit code 125, where one of its files could not be written."""
    for path in paths:
        if path is not None:
            with _writing(path):
                atomic.check_writable(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        click.echo(f"cannot write {path}: {error}", err=True)
        sys.exit(COULD_NOT_RUN)


def chosen(battery: Battery, only: Sequence[str]) -> Sequence[str]:
    """The names in `only`.

    Raises:
        UsageError: one of them is no scenario of the battery.
    """
    with usage_errors():
        select(battery.scenarios, only)
    return only


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a refused input into a wrong command line, exit code 2."""
    try:
        yield
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Print an error of a compiled decoder in one line, and exit.

    Args:
        what: the command, as the message says it: `cannot export: ...`.
    """
    try:
        with usage_errors():
            yield
    except ExportRefused as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(DIFFERS)
    except (EngineError, OSError) as error:
        click.echo(f"cannot {what}: {error}", err=True)
        sys.exit(COULD_NOT_RUN)


@contextmanager
def progress(console: Console, total: int | None) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, and nothing in a log."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("check", total=total)
        yield lambda name: shown.update(task, advance=1, description=name)
