"""`check`: the battery against its captures, switches in lockstep, costs counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness import registry
from harness.commands import on_engine, tables
from harness.commands.check_report import CheckReport
from harness.commands.common import (
    CAPTURES_OPTION,
    DTYPES,
    ONLY_OPTION,
    check_writable,
    choice,
    chosen,
    json_option,
    progress,
    write_json,
)
from harness.commands.exits import COULD_NOT_RUN, DIFFERS
from harness.engine.errors import EngineError, InvalidInput
from harness.engine.switches import SWITCHES
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery
from harness.parity.baselines.captures import Report, check, select
from harness.parity.proofs.float64 import Engine, EngineReport
from harness.parity.proofs.float64 import check as check_engine
from harness.parity.proofs.switches import Pair, check_switches, pairs
from harness.rails.costs import rails as costs
from harness.registry import ExecutorKind


@click.command("check", short_help="Compare what the engine makes with its captures.")
@click.option("--switches", is_flag=True, help="Compare every switch on and off in lockstep, instead of the captures.")
@click.option("--costs", is_flag=True, help="Count what steady rings cost, instead of the captures.")
@click.option("--all", "everything", is_flag=True, help="Captures, switches and costs.")
@choice("--switch", SWITCHES, "Of --switches, only this one; may be given several times.")
@choice("--executor", list(ExecutorKind), "Of --switches, only on this kind; without it onnx or tensorrt, see above.")
@on_engine.OPTION
@click.option("--decoder", multiple=True, help="Of --switches or an engine, this one instead of affine and tiny.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of its decoder.")
@click.option("--device", default="cpu", show_default=True, help="Where these are compared, such as cuda.")
@json_option("Write the report here too.")
@CAPTURES_OPTION
@ONLY_OPTION
@click.argument("names", nargs=-1)
@click.pass_obj
def check_command(battery: Battery, /, **options: Any) -> None:
    """Replay the battery, or NAMES of it, and compare it with its captures.

    With --switches it is played on two pipelines instead, one with a switch on and one with it off, and these are
    compared after every tick: scenario by scenario, switch by switch, on static and on eager executors, with the
    affine and the tiny ACE-Step decoder. With --costs the exact costs of steady rings are counted and compared with the
    blessed ones.

    With --executor onnx or tensorrt and none of these, the battery is played on an engine that was made ahead of time,
    --engine PATH or the decoder's export. Its latents must be the eager executor's to the bit, or at most twice as far
    from a replay in float64 as these are. What is outside the engine's profile is not compared.

    Exits with 0 where every verdict is exact or tolerance, with 1 on any other, with 2 on a wrong command line, and
    with 125 where it could not run: no captures for this platform, no costs for this version of torch, or an engine
    that fails before it can be compared. So it can be given to `git bisect run`.
    """
    names = chosen(battery, options["only"] + options["names"])
    with_switches = options["switches"] or options["everything"]
    with_costs = options["costs"] or options["everything"]
    alone = not with_switches and not with_costs
    engine = on_engine.engine_to_check(options, alone=alone)
    elsewhere = options["dtype"] != "float32" or options["device"] != "cpu"
    asked = options["switch"] or options["executor"] or options["decoder"] or elsewhere
    if not with_switches and engine is None and asked:
        raise click.UsageError(
            "--switch, --executor, --decoder, --dtype and --device go with --switches or --all, "
            "and all but --switch with --executor onnx or tensorrt alone"
        )
    check_writable(options["json_path"])
    compared = _pairs(battery, names, options) if with_switches else []
    scenarios = len(names or battery.scenarios) if options["everything"] or alone else 0
    console = Console()
    try:
        with progress(console, scenarios + len(compared) + len(costs.rails()) * with_costs) as advance:
            captures = _played(battery, engine, options["captures"], names, advance) if scenarios else None
            switches = check_switches(compared, battery.scenarios, advance, whole=not names)
            counted = costs.check(options["captures"], advance) if with_costs else None
            checked = CheckReport(captures, tuple(switches), counted)
    except (store.NoCaptures, platform.NoReferencePlatform, EngineError) as error:
        click.echo(f"cannot check: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    except Exception:  # noqa: BLE001 - a crash is no verdict, and Python's own exit code 1 would read as a difference
        Console(stderr=True).print_exception()
        sys.exit(COULD_NOT_RUN)
    write_json(options["json_path"], checked.document())
    for table in tables.check_tables(checked):
        console.print(table)
    for line in checked.summary():
        click.echo(line)
    sys.exit(0 if checked.passes else DIFFERS if checked.compared else COULD_NOT_RUN)


def _played(
    battery: Battery, engine: Engine | None, captures: Path, only: Sequence[str], advance: Callable[[str], None]
) -> Report | EngineReport:
    """The battery against its captures, or on an engine."""
    if engine is not None:
        return check_engine(engine, battery.scenarios, captures, only, advance)
    return check(battery.scenarios, battery.play, captures, only, advance)


def _pairs(battery: Battery, chosen: Sequence[str], options: Mapping[str, Any]) -> list[Pair]:
    """What `--switches` compares.

    Raises:
        UsageError: nothing at all, such as `joined_stream` on an executor without a stream of its own.
    """
    named = {"switches": options["switch"], "executors": options["executor"], "decoders": options["decoder"]}
    try:
        for name in options["decoder"]:
            registry.check_name(name)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    where = {"device": on_engine.device(options["executor"], options["device"]), "engine": options["engine"]}
    found = pairs(select(battery.scenarios, chosen), **named, dtype=options["dtype"], **where)
    if not found:
        raise click.UsageError(f"{', '.join(named['switches'])} does not act on {', '.join(named['executors'])}")
    return found
