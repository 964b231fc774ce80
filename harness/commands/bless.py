"""`bless`: make the present results the captures, or the present costs the blessed ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.commands.advice import advised
from harness.commands.common import (
    CAPTURES_OPTION,
    DEVICE_OPTION,
    FILE,
    ONLY_OPTION,
    check_device,
    check_writable,
    chosen,
    could_not_run,
    json_option,
    progress,
    say,
    usage_errors,
    write_json,
)
from harness.commands.exits import USAGE
from harness.commands.replay import player
from harness.engine.errors import EngineError
from harness.files import FileRefused
from harness.parity.baselines import store
from harness.parity.baselines.bless import Battery, ReplayFailed, bless
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.traces.kept import keep
from harness.parity.traces.replay import OtherPlatform, TraceParted
from harness.rails.costs import rails as costs


@click.command("bless", short_help="Make the present results this platform's captures.")
@click.option("--reason", default="", help="Reason of the change, kept with the captures or costs.")
@click.option("--costs", "with_costs", is_flag=True, help="Bless the costs of steady rings, instead of the captures.")
@click.option("--from-trace", "trace", type=FILE, help="Bless a moment of production, of this trace of a pipeline.")
@click.option("--name", help="With --from-trace: the name of what is blessed.")
@click.option("--until", type=click.IntRange(min=1), metavar="TICK", help="With --from-trace: its last tick.")
@DEVICE_OPTION
@json_option("Write the changes to this file too.")
@CAPTURES_OPTION
@ONLY_OPTION
@click.pass_obj
def bless_command(
    battery: Battery,
    /,
    reason: str,
    with_costs: bool,
    device: str,
    json_path: Path | None,
    captures: Path,
    only: tuple[str, ...],
    **of_trace: Any,
) -> None:
    """Make the engine's present results this platform's captures, and print the changes.

    With --device cuda, the captures are those of the GPU. They are compared on GPUs with the same fingerprint only.

    The command refuses with exit code 2 under CI, without a reason, with captures that are not committed or that git
    ignores, and if three replays of a scenario do not give the same bits. The exit code is 125 if the engine fails.

    With --from-trace, the events of a trace from its beginning to the tick --until are played, and kept with their
    digests. `harness check` and `harness replay --blessed` compare them.
    """
    if any(of_trace.values()):
        _bless_trace(reason, captures, device, **of_trace)
        return
    if with_costs and only:
        raise click.UsageError("--costs blesses every rail: --only goes with captures")
    if with_costs and device != "cpu":
        raise click.UsageError("--costs are counted on the CPU: --device goes with captures")
    check_writable(json_path)
    names = chosen(battery, only)
    check_device("bless", device)
    with could_not_run("bless"):
        try:
            if with_costs:
                _bless_costs(reason, captures, json_path)
                return
            with progress(Console(), None, "playing every scenario three times"):
                blessed = bless(reason, battery.on(device), captures, names)
        except (BlessRefused, ReplayFailed, store.CapturesError) as error:
            say(f"refused: {advised(error)}", err=True)
            sys.exit(USAGE)
    write_json(json_path, blessed.document())
    say(blessed.summary())


def _bless_trace(
    reason: str, captures: Path, device: str, trace: Path | None, name: str | None, until: int | None
) -> None:
    """Bless a trace up to a tick, with the decoder and the executor that it names."""
    if trace is None or name is None or until is None:
        raise click.UsageError("--from-trace, --name and --until go together")
    check_device("bless", device)
    options = dict.fromkeys(("decoder", "executor", "engine", "pin_rows", "dtype", "ring"))
    with could_not_run("bless", FileRefused, EngineError):
        try:
            play = player(trace, {**options, "device": device})
            with usage_errors():
                path = keep(trace, name, reason, captures, until, lambda source: play(source, until=until))
        except (BlessRefused, TraceParted, OtherPlatform, store.CapturesError) as error:
            say(f"refused: {error}", err=True)
            sys.exit(USAGE)
    say(f"{path} written")


def _bless_costs(reason: str, captures: Path, json_path: Path | None) -> None:
    """Bless the costs and print the changes."""
    with progress(Console(), None, "counting"):
        found = costs.bless(reason, captures)
    write_json(json_path, {"costs": found.document()})
    changed = [row for row in found.rows if not row.same]
    for row in changed:
        say(f"{row.rail}: {row.name} {row.blessed} -> {row.now}")
    say(f"{len(changed)} of {len(found.rows)} counts written" if changed else "all as blessed, nothing written")
