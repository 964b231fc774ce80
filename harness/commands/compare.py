"""`compare`: outputs and times of two revisions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from harness.commands.common import (
    check_writable,
    could_not_run,
    json_option,
    progress,
    say,
    write_json,
)
from harness.commands.exits import DIFFERS, INCONCLUSIVE
from harness.rails.compare import commands, revisions
from harness.rails.compare import tables as rail_tables
from harness.rails.compare.statistics import TimeVerdict
from harness.rails.compare.worktrees import CannotCompare

_TWO = click.IntRange(min=2)
_COMMAND = f"{__name__}.command"
"""Name under which the words after `--` are kept in a context."""


class _WithCommand(click.Command):
    """A command line whose words after `--` are a command of the caller's, and no options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words after `--`, and read those before."""
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_COMMAND] = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, args)


@click.command(
    "compare",
    cls=_WithCommand,
    short_help="Compare outputs and times of two revisions.",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "--rounds", type=_TWO, help=f"Before the first verdict: {revisions.ROUNDS}, of a COMMAND {commands.QUADS}."
)
@click.option(
    "--most", type=_TWO, help=f"Rounds until it gives up: {revisions.MOST_ROUNDS}, of a COMMAND {commands.MOST_QUADS}."
)
@click.option("--calibrate", is_flag=True, help="Find the smallest slowdown of BASE that is caught today.")
@json_option("Write everything here too.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="BASE [HEAD] [BENCH OPTIONS] [-- COMMAND ...]")
@click.pass_context
def compare_command(
    ctx: click.Context,
    rounds: int | None,
    most: int | None,
    calibrate: bool,
    json_path: Path | None,
    words: tuple[str, ...],
) -> None:
    """Compare what two revisions make, and then what their ticks take.

    BASE and HEAD are revisions that git knows in the working folder, or folders that hold the package. Without HEAD it
    is the working tree as it is now. Any option of `bench` may follow them and goes to the bench of both. With
    --calibrate BASE, else the working tree, is compared with itself, its ticks made slower by more or by less.

    With a COMMAND after -- the revisions are those of any project: the command runs in the top folder of each, and
    prints {"output": NAME, "sha256": DIGEST} and {"metric": NAME, "value": NUMBER}, one a line.

    Exits with 0 where HEAD is faster or the same, with 1 where it is slower in two draws, with 3 where that cannot be
    said, and with 125 where a revision cannot be had or does not run. Where outputs moved, or HEAD lacks a scenario,
    the exit code is 1 whatever the times are. --calibrate exits with 0 where it found a slowdown that is caught, else
    with 3.
    """
    named, options = _revisions_and_options(words)
    if len(named) > (1 if calibrate else 2) or not (named or calibrate):
        raise click.UsageError(f"expected BASE{'' if calibrate else ' [HEAD]'} before any option of bench, got {named}")
    command: tuple[str, ...] | None = ctx.meta.get(_COMMAND)
    if command is not None:
        if not command or calibrate or options:
            raise click.UsageError(
                f"expected BASE [HEAD] -- COMMAND and no option of bench, got {(*words, '--', *command)}"
            )
        _by_command(named, commands.Asked(command, *_counts(rounds, most, *_QUADS)), json_path)
        return
    check_writable(json_path)
    base, head = (*named, None, None)[:2]
    console = Console()
    with could_not_run("compare", CannotCompare), progress(console, None, "comparing") as advance:
        asked = revisions.Asked(options, *_counts(rounds, most, *_ROUNDS))
        if calibrate:
            tried = revisions.calibrate(base, asked, Path.cwd(), advance)
        else:
            tried = {0.0: revisions.compare(str(base), head, asked, Path.cwd(), advance)}
        documents = [one.document() for one in tried.values()]
    if json_path is not None:
        smallest = revisions.smallest_caught(tried)
        write_json(json_path, {"smallest_caught": smallest, "tried": documents} if calibrate else documents[0])
    _print(console, rail_tables.calibrated(tried) if calibrate else rail_tables.compared(tried[0.0]))
    sys.exit(_exit_code(tried, calibrate))


_ROUNDS, _QUADS = (revisions.ROUNDS, revisions.MOST_ROUNDS), (commands.QUADS, commands.MOST_QUADS)


def _counts(rounds: int | None, most: int | None, first: int, last: int) -> tuple[int, int]:
    """The rounds before the first verdict and at most, with the numbers that stand in for those not given."""
    first = rounds or first
    return first, max(first, most or last)


def _by_command(named: tuple[str, ...], asked: commands.Asked, json_path: Path | None) -> None:
    """Compare by the caller's command, print, and exit."""
    check_writable(json_path)
    base, head = (*named, None)[:2]
    console = Console()
    with could_not_run("compare", CannotCompare), progress(console, None) as advance:
        found = commands.compare(str(base), head, asked, Path.cwd(), advance)
    write_json(json_path, found.document())
    _print(console, rail_tables.of_command(found))
    sys.exit(_CODES.get(found.verdict, 0) if found.outputs.passes else DIFFERS)


def _print(console: Console, parts: Iterable[Table | str]) -> None:
    for part in parts:
        # Rich would break a line where a log has no width.
        (say if isinstance(part, str) else console.print)(part)


_CODES = {TimeVerdict.SLOWER: DIFFERS, TimeVerdict.INCONCLUSIVE: INCONCLUSIVE}


def _revisions_and_options(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words before the first option, and the rest: which options of a bench take a value is for it to know."""
    first = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:first], words[first:]


def _exit_code(tried: Mapping[float, revisions.Comparison], calibrate: bool) -> int:
    """A moved output is never silent, whatever the times say."""
    if not all(one.outputs.passes for one in tried.values()):
        return DIFFERS
    if calibrate:
        return INCONCLUSIVE if revisions.smallest_caught(tried) is None else 0
    return _CODES.get(tried[0.0].verdict, 0)
