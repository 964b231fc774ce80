"""`compare`: outputs and times of two revisions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console

from harness.commands.common import (
    check_writable,
    could_not_run,
    json_option,
    progress,
    say,
    write_json,
)
from harness.commands.exits import DIFFERS, INCONCLUSIVE
from harness.rails.compare import revisions
from harness.rails.compare import tables as rail_tables
from harness.rails.compare.statistics import TimeVerdict
from harness.rails.compare.worktrees import CannotCompare

_TWO = click.IntRange(min=2)


@click.command(
    "compare",
    short_help="Compare outputs and times of two revisions.",
    context_settings={"ignore_unknown_options": True},
)
@click.option("--rounds", default=revisions.ROUNDS, type=_TWO, show_default=True, help="Before the first verdict.")
@click.option("--most", default=revisions.MOST_ROUNDS, type=_TWO, show_default=True, help="Rounds until it gives up.")
@click.option("--calibrate", is_flag=True, help="Find the smallest slowdown of BASE that is caught today.")
@json_option("Write everything here too.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="BASE [HEAD] [BENCH OPTIONS]")
def compare_command(rounds: int, most: int, calibrate: bool, json_path: Path | None, words: tuple[str, ...]) -> None:
    """Compare what two revisions make, and then what their ticks take.

    BASE and HEAD are revisions that git knows in the working folder, or folders that hold the package. Without HEAD it
    is the working tree as it is now. Any option of `bench` may follow them and goes to the bench of both. With
    --calibrate BASE, else the working tree, is compared with itself, its ticks made slower by more or by less.

    Exits with 0 where HEAD is faster or the same, with 1 where it is slower in two draws, with 3 where that cannot be
    said, and with 125 where a revision cannot be had or does not run. Where outputs moved, or HEAD lacks a scenario,
    the exit code is 1 whatever the times are. --calibrate exits with 0 where it found a slowdown that is caught, else
    with 3.
    """
    named, options = _revisions_and_options(words)
    if len(named) > (1 if calibrate else 2) or not (named or calibrate):
        raise click.UsageError(f"expected BASE{'' if calibrate else ' [HEAD]'} before any option of bench, got {named}")
    check_writable(json_path)
    base, head = (*named, None, None)[:2]
    console = Console()
    with could_not_run("compare", CannotCompare), progress(console, None, "comparing") as advance:
        asked = revisions.Asked(options, rounds, max(rounds, most))
        if calibrate:
            tried = revisions.calibrate(base, asked, Path.cwd(), advance)
        else:
            tried = {0.0: revisions.compare(str(base), head, asked, Path.cwd(), advance)}
        documents = [one.document() for one in tried.values()]
    if json_path is not None:
        smallest = revisions.smallest_caught(tried)
        write_json(json_path, {"smallest_caught": smallest, "tried": documents} if calibrate else documents[0])
    for part in rail_tables.calibrated(tried) if calibrate else rail_tables.compared(tried[0.0]):
        # Rich would break a line where a log has no width.
        (say if isinstance(part, str) else console.print)(part)
    sys.exit(_exit_code(tried, calibrate))


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
    return {TimeVerdict.SLOWER: DIFFERS, TimeVerdict.INCONCLUSIVE: INCONCLUSIVE}.get(tried[0.0].verdict, 0)
