"""`check`: compare the battery with its captures, switches in lockstep, and costs with the blessed ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console

from harness import registry
from harness.commands import check_html as html
from harness.commands import on_engine, tables
from harness.commands.check_report import CheckReport
from harness.commands.common import (
    CAPTURES_OPTION,
    DEVICE_OPTION,
    DTYPES,
    ONLY_OPTION,
    check_device,
    check_writable,
    choice,
    chosen,
    could_not_run,
    json_option,
    progress,
    say,
    usage_errors,
    write_json,
    write_text,
)
from harness.commands.details import details
from harness.commands.exits import COULD_NOT_RUN, DIFFERS, PASSED
from harness.commands.parts import Parts
from harness.engine.errors import EngineError
from harness.engine.switches import SWITCHES
from harness.files import FileRefused
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery
from harness.parity.baselines.captures import Report, check, select
from harness.parity.proofs.float64 import Engine, EngineReport
from harness.parity.proofs.float64 import check as check_engine
from harness.parity.proofs.switches import Pair, SwitchResult, check_switches, pairs
from harness.parity.traces import blessed
from harness.parity.traces.blessed import TraceResult
from harness.rails.costs import rails as costs
from harness.registry import ExecutorKind


@click.command("check", short_help="Compare what the engine makes with its captures.")
@click.option("--switches", is_flag=True, help="Compare every switch on and off in lockstep, instead of the captures.")
@click.option("--costs", is_flag=True, help="Count the costs of steady rings, instead of the captures.")
@click.option("--all", "everything", is_flag=True, help="Captures, switches and costs.")
@choice("--switch", SWITCHES, "With --switches: only this switch; may be given several times.")
@choice(
    "--executor", list(ExecutorKind), "With --switches: only this kind. Alone: onnx or tensorrt, as described above."
)
@on_engine.OPTION
@click.option(
    "--decoder", multiple=True, help="Decoder of --switches or of --executor alone, instead of affine and tiny."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Dtype of the decoder.")
@DEVICE_OPTION
@json_option("Write the report to this file too.")
@html.OPTION
@html.FIGURES
@CAPTURES_OPTION
@ONLY_OPTION
@click.argument("names", nargs=-1)
@click.pass_obj
def check_command(battery: Battery, /, **options: Any) -> None:
    """Play the battery, or the scenarios NAMES, and compare the results with the captures.

    With --device cuda, the captures are those of the GPU. They are compared only if the fingerprint of this GPU is the
    one they were blessed with, because another GPU makes other bits.

    Blessed traces of the folder of captures are replayed too, unless scenarios are named. A trace that cannot be
    replayed here is listed as not_gated, and fails nothing.

    With --switches, every scenario is played on two pipelines, one with a switch on and one with the switch off. The
    two pipelines are compared after every tick: for every switch, on static and on eager executors, with the affine
    and the tiny ACE-Step decoder. With --costs, the exact costs of steady rings are counted and compared with the
    blessed costs.

    With --executor onnx or tensorrt alone, the battery is played on a compiled decoder: the file of --engine, or an
    export of the decoder. The finished latents must equal the eager executor's to the bit, or be at most twice as far
    from a replay in float64 as the eager executor's. Scenarios outside the compiled decoder's profile are not compared.

    With --html, a report for a browser is written too, in one file: where each difference is first, by tick, slot and
    stage, and what was not compared. Differences are played again for it; no verdict changes.

    With --all, a part that cannot run does not hide the others: they still give their verdicts.

    The exit code is 0 if every verdict is exact or tolerance, 1 on any other verdict, 2 on a wrong command line, and
    125 if something that was asked for could not be compared: no captures for this platform, captures of another GPU,
    no such device, no costs for this version of torch, a file that is refused, or a compiled decoder that fails before
    the comparison. `git bisect run` understands the exit codes.
    """
    names = chosen(battery, options["only"] + options["names"])
    with_switches = options["switches"] or options["everything"]
    with_costs = options["costs"] or options["everything"]
    alone = not with_switches and not with_costs
    engine = on_engine.engine_to_check(options, alone=alone)
    asked = options["switch"] or options["executor"] or options["decoder"] or options["dtype"] != "float32"
    if not with_switches and engine is None and asked:
        raise click.UsageError(
            "--switch, --executor, --decoder and --dtype need --switches or --all; "
            "--executor onnx or tensorrt also goes alone, with --decoder and --dtype"
        )
    if not (with_switches or alone or options["device"] == "cpu"):
        raise click.UsageError("--costs are counted on the CPU: --device goes with captures, --switches or --all")
    check_writable(options["json_path"], options["html_path"])
    figures = html.figures_of(options)
    if engine is None:
        check_device("check", options["device"])
    compared = _pairs(battery, names, options) if with_switches else []
    scenarios = len(select(battery.scenarios, names)) if options["everything"] or alone else 0
    console = Console()
    traces = blessed.number(options["captures"]) if scenarios and not names and engine is None else 0
    total = scenarios + traces + len(compared) + len(costs.rails()) * with_costs
    known = store.CapturesError, platform.NoReferencePlatform, EngineError, FileRefused
    parts = Parts("check", bool(scenarios) + bool(traces) + with_switches + with_costs > 1, known)
    captures: Report | EngineReport | None = None
    replayed: tuple[TraceResult, ...] = ()
    switches: list[SwitchResult] = []
    counted: costs.CostReport | None = None
    with could_not_run("check"), progress(console, total) as advance:
        with parts.isolated("captures"):
            captures = _played(battery, engine, options, names, advance) if scenarios else None
        with parts.isolated("traces"):
            replayed = blessed.check(options["captures"], options["device"], advance) if traces else ()
        with parts.isolated("switches"):
            switches = check_switches(compared, battery.scenarios, advance, whole=not names)
        with parts.isolated("costs"):
            counted = costs.check(options["captures"], advance) if with_costs else None
        checked = CheckReport(captures, tuple(switches), counted, options["device"], parts.failed, replayed)
        document = checked.document()
        page = html.page_of(checked, document, figures, battery, options, advance)
    write_json(options["json_path"], document)
    write_text(options["html_path"], page)
    for table in tables.check_tables(checked):
        console.print(table)
    for line in details(checked, console.width):
        say(line)
    for line in checked.summary():
        say(line)
    sys.exit(PASSED if checked.passes else DIFFERS if checked.differs else COULD_NOT_RUN)


def _played(
    battery: Battery,
    engine: Engine | None,
    options: Mapping[str, Any],
    only: Sequence[str],
    advance: Callable[[str], None],
) -> Report | EngineReport:
    """Play the battery and compare it with its captures, or play it on a compiled decoder."""
    if engine is not None:
        return check_engine(engine, battery.scenarios, options["captures"], only, advance)
    there = battery.on(options["device"])
    return check(there.scenarios, there.play, options["captures"], only, advance, there.device)


def _pairs(battery: Battery, chosen: Sequence[str], options: Mapping[str, Any]) -> list[Pair]:
    """List the comparisons of `--switches`.

    Raises:
        UsageError: an unknown decoder, or no comparison, as for `joined_stream` on executors without their own stream.
    """
    named = {"switches": options["switch"], "executors": options["executor"], "decoders": options["decoder"]}
    with usage_errors():
        for name in options["decoder"]:
            registry.check_name(name)
    where = {"device": on_engine.device(options["executor"], options["device"]), "engine": options["engine"]}
    found = pairs(select(battery.scenarios, chosen), **named, dtype=options["dtype"], **where)
    if not found:
        raise click.UsageError(
            f"{', '.join(named['switches'])} does not act on {', '.join(named['executors'])}: give another --executor"
        )
    return found
