"""`probe`: measure the guarantees of executors and compare them with the contract."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.commands import on_engine, recording, tables
from harness.commands.common import (
    CAPTURES_OPTION,
    DTYPES,
    check_writable,
    choice,
    could_not_run,
    json_option,
    progress,
    say,
    usage_errors,
    write_json,
)
from harness.commands.exits import COULD_NOT_RUN, DIFFERS, USAGE
from harness.engine.errors import EngineError, OutsideProfile
from harness.parity.baselines import contract, store
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.proofs.invariance import Subject
from harness.registry import ExecutorKind


@click.command("probe", short_help="Measure which bits executors guarantee on this machine.")
@click.option(
    "--decoder",
    "decoders",
    multiple=True,
    help="affine, tiny, mid, 2b or a checkpoint's folder; may be given several times.",
)
@choice("--executor", list(ExecutorKind), "Only this kind; may be given several times.")
@on_engine.OPTION
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(DTYPES),
    help="Dtype of the decoder; may be given several times.",
)
@click.option("--frames", multiple=True, type=click.IntRange(min=1), help="Latent frames T; 25 are a second.")
@click.option(
    "--max-rows", default=8, type=click.IntRange(min=1), show_default=True, help="Largest number of rows of a run."
)
@click.option("--device", default="cpu", show_default=True, help="Device of the decoder, such as cuda.")
@click.option("--reason", default="", help="Record what is measured as this platform's contract, and why.")
@json_option("Write the findings here too.")
@CAPTURES_OPTION
@click.pass_context
def probe_command(context: click.Context, /, **options: Any) -> None:
    """Measure what executors guarantee about a row's bits, and compare it with this platform's contract.

    Without options: the affine and the tiny decoder, eager and static, float32, 16 and 75 frames; with free rows and
    with rows pinned to --max-rows. Nothing is written without --reason.

    Exits with 0 where every recorded property holds, with 1 where one is lost, and with 125 where there is no contract
    of this very machine to compare with; the last line then names the command that records one. The exit code is also
    125 where nothing could be measured: an executor that fails, or an output that is not finite.
    """
    engine, device = on_engine.probed(options)
    check_writable(options["json_path"])
    chosen = {"decoders": options["decoders"], "executors": options["executor"], "dtypes": options["dtypes"]}
    chosen = {name: values for name, values in {**chosen, "frames": options["frames"]}.items() if values}
    subjects = contract.declared(**chosen, max_rows=options["max_rows"], device=device, engine=engine)
    console = Console()
    total = len(subjects) * (2 if options["reason"] else 1)
    # An output that is not finite is an ArithmeticError: nothing can be compared, so nothing is lost.
    known = store.CapturesError, EngineError, OutsideProfile, ArithmeticError
    with could_not_run("probe", *known), progress(console, total, "probing") as advance:
        found = _measured(subjects, options["reason"], options["captures"], advance)
    write_json(options["json_path"], found.document())
    console.print(tables.probed(found))
    say(found.summary() + ("; recorded" if options["reason"] else ""))
    if not options["reason"] and not found.gated:
        say(recording.advice(found, subjects, _given(context)))
    sys.exit(
        DIFFERS if found.lost and not options["reason"] else 0 if found.gated or options["reason"] else COULD_NOT_RUN
    )


def _measured(
    subjects: Sequence[Subject], reason: str, captures: Path, advance: Callable[[str], None]
) -> contract.Findings:
    """Measure; with a reason, record. Exit with 2 where recording is refused.

    Raises:
        UsageError: a decoder or executor that cannot be made so.
    """
    try:
        with usage_errors():
            if reason:
                return contract.record(reason, subjects, captures, advance)
            return contract.probe(subjects, captures, advance)
    except BlessRefused as error:
        say(f"refused: {error}", err=True)
        sys.exit(USAGE)


def _given(context: click.Context) -> dict[str, Any]:
    """The options of the command line that decide what is measured and where the contract is."""
    names = {"decoders": "decoder", "dtypes": "dtype"}
    given = [name for name in context.params if context.get_parameter_source(name) is _COMMAND_LINE]
    return {names.get(name, name): context.params[name] for name in given if name not in ("reason", "json_path")}


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
