"""The command line: `python -m harness COMMAND`. Tables and progress for a person, `--json` for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from harness import __version__
from harness.checked import Checked
from harness.commands import engines, on_engine, profile, tables
from harness.engine.config import Integrator, Switches
from harness.engine.errors import EngineError, InvalidInput, OutsideProfile
from harness.engine.request import GuidanceMode
from harness.parity import catalog, contract, platform, store
from harness.parity.bless import BATTERY, Battery, BlessRefused, ReplayFailed, bless, digests
from harness.parity.captures import CAPTURES, Report, check, select
from harness.parity.catalog import Kind
from harness.parity.engines import Engine, EngineReport
from harness.parity.engines import check as check_engine
from harness.parity.lockstep import SWITCHES
from harness.parity.switches import Pair, check_switches, pairs
from harness.rails import costs, revisions, tick
from harness.rails import tables as rail_tables
from harness.rails.ratios import Verdict as OfTimes
from harness.rails.trees import CannotCompare

DIFFERS = 1
INCONCLUSIVE = 2
USAGE = 2
COULD_NOT_RUN = 125
"""`git bisect run` takes 1 for bad and skips a revision at 125."""

_CAPTURES = click.option(
    "--captures", type=click.Path(path_type=Path, file_okay=False), default=CAPTURES, help="Folder of captures."
)
_DTYPES = ["float32", "bfloat16", "float16"]
_TWO = click.IntRange(min=2)
_ONLY = click.option("--only", multiple=True, metavar="NAME", help="Only this scenario; may be given several times.")


def _choice(name: str, values: Sequence[str], words: str) -> Callable[[Any], Any]:
    return click.option(name, multiple=True, type=click.Choice([str(value) for value in values]), help=words)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
@click.pass_context
def main(context: click.Context) -> None:
    """Check that the streaming engine still makes the bits it was blessed with."""
    context.obj = context.obj or BATTERY


@main.command("check")
@click.option("--switches", is_flag=True, help="Compare every switch on and off in lockstep, instead of the captures.")
@click.option("--costs", is_flag=True, help="Count what steady rings cost, instead of the captures.")
@click.option("--all", "everything", is_flag=True, help="Captures, switches and costs.")
@_choice("--switch", SWITCHES, "Of --switches, only this one; may be given several times.")
@_choice("--executor", list(Kind), "Of --switches, only on this kind; without it onnx or tensorrt, see above.")
@on_engine.OPTION
@click.option("--decoder", multiple=True, help="Of --switches or an engine, this one instead of affine and tiny.")
@click.option("--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True, help="Of its decoder.")
@click.option("--device", default="cpu", show_default=True, help="Where these are compared, such as cuda.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here too.")
@_CAPTURES
@_ONLY
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
    chosen = _chosen(battery, options["only"] + options["names"])
    with_switches = options["switches"] or options["everything"]
    with_costs = options["costs"] or options["everything"]
    alone = not with_switches and not with_costs
    engine = on_engine.checked(options, alone=alone)
    elsewhere = options["dtype"] != "float32" or options["device"] != "cpu"
    asked = options["switch"] or options["executor"] or options["decoder"] or elsewhere
    if not with_switches and engine is None and asked:
        raise click.UsageError(
            "--switch, --executor, --decoder, --dtype and --device go with --switches or --all, "
            "and all but --switch with --executor onnx or tensorrt alone"
        )
    _check_writable(options["json_path"])
    compared = _pairs(battery, chosen, options) if with_switches else []
    scenarios = len(chosen or battery.scenarios) if options["everything"] or alone else 0
    console = Console()
    try:
        with _progress(console, scenarios + len(compared) + len(costs.rails()) * with_costs) as advance:
            captures = _played(battery, engine, options["captures"], chosen, advance) if scenarios else None
            switches = check_switches(compared, battery.scenarios, advance, whole=not chosen)
            counted = costs.check(options["captures"], advance) if with_costs else None
            checked = Checked(captures, tuple(switches), counted)
    except (store.NoCaptures, platform.NoReferencePlatform, EngineError) as error:
        click.echo(f"cannot check: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    except Exception:  # noqa: BLE001 - a crash is no verdict, and Python's own exit code 1 would read as a difference
        Console(stderr=True).print_exception()
        sys.exit(COULD_NOT_RUN)
    if options["json_path"] is not None:
        _write_json(options["json_path"], checked.document())
    for table in tables.checked(checked):
        console.print(table)
    for line in checked.summary():
        click.echo(line)
    sys.exit(0 if checked.passes else DIFFERS if checked.compared else COULD_NOT_RUN)


@main.command("bless")
@click.option("--reason", default="", help="Why the captures may change; kept with them.")
@click.option("--costs", "with_costs", is_flag=True, help="Bless the costs of steady rings, instead of the captures.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what changed here too."
)
@_CAPTURES
@_ONLY
@click.pass_obj
def bless_command(
    battery: Battery, reason: str, with_costs: bool, json_path: Path | None, captures: Path, only: tuple[str, ...]
) -> None:
    """Make the engine's present results this platform's captures, and say what moved.

    Refuses with exit code 2 under CI, without a reason, with uncommitted captures, and where a scenario does not
    reproduce in three replays.
    """
    if with_costs and only:
        raise click.UsageError("--costs blesses every rail: --only is of the captures")
    _check_writable(json_path)
    try:
        if with_costs:
            _bless_costs(reason, captures, json_path)
            return
        blessed = bless(reason, battery, captures, _chosen(battery, only))
    except (BlessRefused, ReplayFailed) as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(USAGE)
    if json_path is not None:
        _write_json(json_path, blessed.document())
    click.echo(blessed.summary())


def _bless_costs(reason: str, captures: Path, json_path: Path | None) -> None:
    """Bless the costs, and print what changed."""
    found = costs.bless(reason, captures)
    if json_path is not None:
        _write_json(json_path, {"costs": found.document()})
    changed = [row for row in found.rows if not row.same]
    for row in changed:
        click.echo(f"{row.rail}: {row.name} {row.blessed} -> {row.now}")
    click.echo(f"{len(changed)} of {len(found.rows)} counts written" if changed else "all as blessed, nothing written")


@main.command("_costs", hidden=True)
def costs_command() -> None:
    """Print the costs of every rail as JSON, for a count in a fresh process."""
    click.echo(json.dumps(costs.counted()))


@main.command("probe")
@click.option("--decoder", "decoders", multiple=True, help="affine, tiny, mid, 2b or a checkpoint's folder.")
@_choice("--executor", list(Kind), "Only this kind; may be given several times.")
@on_engine.OPTION
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(_DTYPES), help="Of it.")
@click.option("--frames", multiple=True, type=click.IntRange(min=1), help="Latent frames T; 25 are a second.")
@click.option("--max-rows", default=8, type=click.IntRange(min=1), show_default=True, help="Of the executor.")
@click.option("--device", default="cpu", show_default=True, help="Where the decoder is, such as cuda.")
@click.option("--reason", default="", help="Record what is measured as this platform's contract, and why.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings here too."
)
@_CAPTURES
def probe_command(**options: Any) -> None:
    """Measure what executors guarantee about a row's bits, and compare it with this platform's contract.

    Without options: the affine and the tiny decoder, eager and static, float32, 16 and 75 frames; with free rows and
    with rows pinned to --max-rows. Nothing is written without --reason.

    Exits with 0 where every recorded property holds, with 1 where one is lost, and with 125 where there is no contract
    of this very machine to compare with.
    """
    engine, device = on_engine.probed(options)
    _check_writable(options["json_path"])
    chosen = {"decoders": options["decoders"], "executors": options["executor"], "dtypes": options["dtypes"]}
    chosen = {name: values for name, values in {**chosen, "frames": options["frames"]}.items() if values}
    subjects = contract.declared(**chosen, max_rows=options["max_rows"], device=device, engine=engine)
    console = Console()
    try:
        with _progress(console, len(subjects) * (2 if options["reason"] else 1)) as advance:
            if options["reason"]:
                found = contract.record(options["reason"], subjects, options["captures"], advance)
            else:
                found = contract.probe(subjects, options["captures"], advance)
    except BlessRefused as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(USAGE)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    except (store.CapturesError, EngineError, OutsideProfile) as error:
        click.echo(f"cannot probe: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    if options["json_path"] is not None:
        _write_json(options["json_path"], found.document())
    console.print(tables.probed(found))
    click.echo(found.summary() + ("; recorded" if options["reason"] else ""))
    sys.exit(
        DIFFERS if found.lost and not options["reason"] else 0 if found.gated or options["reason"] else COULD_NOT_RUN
    )


def _played(
    battery: Battery, engine: Engine | None, captures: Path, only: Sequence[str], advance: Callable[[str], None]
) -> Report | EngineReport:
    """The battery against its captures, or on an engine."""
    if engine is not None:
        return check_engine(engine, battery.scenarios, captures, only, advance)
    return check(battery.scenarios, battery.play, captures, only, advance)


def _switched(_context: click.Context, _option: click.Parameter, assignments: Sequence[str]) -> Switches:
    """`name=value` for each: on or off, or the integrator's name."""
    switches = Switches()
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in SWITCHES or not value:
            raise click.BadParameter(f"{assignment!r}: expected NAME=VALUE with a name of {', '.join(SWITCHES)}")
        if value in ("on", "off"):
            switches = switches.turned_on(name) if value == "on" else switches.turned_off(name)
        elif name == "integrator" and value in list(Integrator):
            switches = replace(switches, integrator=value)
        else:
            raise click.BadParameter(f"{assignment!r}: expected {name}=on or {name}=off")
    return switches


@main.command("bench")
@click.option("--duration", default=30.0, show_default=True, help="Of a latent, in seconds of 25 frames.")
@click.option("--depth", default=4, show_default=True, help="Requests in flight.")
@click.option("--steps", default=8, show_default=True, help="Denoising steps of a request.")
@click.option("--denoise", default=1.0, show_default=True, help="Of a request; below 1 it starts from a source.")
@click.option("--ticks", default=200, show_default=True, help="In the window that is measured.")
@click.option("--warmup", default=30, show_default=True, help="Ticks before it, at least --steps.")
@click.option(
    "--cfg",
    is_flag=False,
    flag_value="full",
    type=click.Choice([*map(str, GuidanceMode)]),
    help="Guidance mode; full if none is named.",
)
@click.option("--guidance-scale", default=2.5, show_default=True, help="With --cfg.")
@click.option("--dcw/--no-dcw", default=True, show_default=True, help="Wavelet correction after every step.")
@click.option("--decoder", default="tiny", show_default=True, help="affine, tiny, mid, 2b or a checkpoint's folder.")
@click.option("--executor", type=click.Choice([*map(str, Kind)]), default="eager", show_default=True, help="Its kind.")
@on_engine.OPTION
@click.option("--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True, help="Of the decoder.")
@click.option("--device", default="cpu", show_default=True, help="Where the decoder is, such as cuda.")
@click.option("--threads", default=1, type=click.IntRange(min=1), show_default=True, help="Of torch's CPU operators.")
@click.option("--switch", "switches", multiple=True, metavar="NAME=VALUE", callback=_switched, help="on or off.")
@click.option("--ablate", "ablated", is_flag=True, help="Also measure what each switch saves.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too."
)
def bench_command(threads: int, ablated: bool, json_path: Path | None, **load: Any) -> None:
    """Drive a session at a fixed depth and measure what a tick takes, and what the bare decoder takes of it.

    Latents alone are made. Every tick of the window counts, those in which requests enter and finish as well. With an
    onnx or tensorrt executor the engine's own runs, back to back, are one of the bare decoder's forms.
    """
    load = on_engine.benched(load)
    _check_writable(json_path)
    console = Console()
    with platform.threads(threads):
        try:
            asked = tick.Load(**load)
            total = asked.warmup + asked.ticks + (tick.ablated_ticks(asked) if ablated else 0)
            with _progress(console, total) as advance:
                measured = tick.bench(asked, advance)
                savings = tick.ablate(asked, advance) if ablated else []
        except InvalidInput as error:
            raise click.UsageError(str(error)) from error
        except (EngineError, OutsideProfile) as error:
            click.echo(f"cannot bench: {error}", err=True)
            sys.exit(COULD_NOT_RUN)
        where = {"name": platform.name(asked.device), "fingerprint": contract.fingerprint(asked.device)}
    if json_path is not None:
        document = {**measured.document(), "ablation": [asdict(saving) for saving in savings], "platform": where}
        _write_json(json_path, document)
    for table in tables.benched(measured, savings):
        console.print(table)


@main.command("compare", context_settings={"ignore_unknown_options": True})
@click.option("--rounds", default=revisions.ROUNDS, type=_TWO, show_default=True, help="Before the first verdict.")
@click.option("--most", default=revisions.MOST_ROUNDS, type=_TWO, show_default=True, help="Rounds until it gives up.")
@click.option("--calibrate", is_flag=True, help="Find the smallest slowdown of BASE that is caught today.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write everything here too.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="BASE [HEAD] [BENCH OPTIONS]")
def compare_command(rounds: int, most: int, calibrate: bool, json_path: Path | None, words: tuple[str, ...]) -> None:
    """Compare what two revisions make, and then what their ticks take.

    BASE and HEAD are revisions that git knows in the working folder, or folders that hold the package. Without HEAD it
    is the working tree as it is now. Any option of `bench` may follow them and goes to the bench of both. With
    --calibrate BASE, else the working tree, is compared with itself, its ticks made slower by more or by less.

    Exits with 0 where HEAD is faster or the same, with 1 where it is slower in two draws, with 2 where that cannot be
    said, and with 125 where a revision cannot be had or does not run. Where outputs moved, or HEAD lacks a scenario,
    the exit code is 1 whatever the times are. --calibrate exits with 0 where it found a slowdown that is caught, else
    with 2.
    """
    named, options = _revisions_and_options(words)
    if len(named) > (1 if calibrate else 2) or not (named or calibrate):
        raise click.UsageError(f"expected BASE{'' if calibrate else ' [HEAD]'} before any option of bench, got {named}")
    _check_writable(json_path)
    base, head = (*named, None, None)[:2]
    console = Console()
    try:
        asked = revisions.Asked(options, rounds, max(rounds, most))
        with _progress(console, None) as advance:
            if calibrate:
                tried = revisions.calibrate(base, asked, Path.cwd(), advance)
            else:
                tried = {0.0: revisions.compare(str(base), head, asked, Path.cwd(), advance)}
    except CannotCompare as error:
        click.echo(f"cannot compare: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    except Exception:  # noqa: BLE001 - Python's own exit code 1 would read as slower
        Console(stderr=True).print_exception()
        sys.exit(COULD_NOT_RUN)
    documents = [one.document() for one in tried.values()]
    if json_path is not None:
        smallest = revisions.smallest_caught(tried)
        _write_json(json_path, {"smallest_caught": smallest, "tried": documents} if calibrate else documents[0])
    for part in rail_tables.calibrated(tried) if calibrate else rail_tables.compared(tried[0.0]):
        # Rich would break a line where a log has no width.
        (click.echo if isinstance(part, str) else console.print)(part)
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
    return {OfTimes.SLOWER: DIFFERS, OfTimes.INCONCLUSIVE: INCONCLUSIVE}.get(tried[0.0].verdict, 0)


main.add_command(engines.export_command)
main.add_command(engines.build_command)
main.add_command(profile.profile_command)


@main.command("_digests", hidden=True)
@click.argument("names", nargs=-1)
@click.pass_obj
def digests_command(battery: Battery, names: tuple[str, ...]) -> None:
    """Print the digests of NAMES as JSON, for a replay in a fresh process."""
    found = {}
    with platform.one_thread():
        for name, scenario in select(battery.scenarios, names).items():
            each = digests(battery.play(scenario))
            found[name] = {"content": each.content, "ticks": each.ticks}
    click.echo(json.dumps(found))


@main.command("_tensors", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1)
@click.pass_obj
def tensors_command(battery: Battery, folder: Path, names: tuple[str, ...]) -> None:
    """Write the finished tensors of NAMES to FOLDER, for a replay with other kernels."""
    with platform.one_thread():
        for name, scenario in select(battery.scenarios, names).items():
            store.replace(folder / store.file_name(name), store.serialize(battery.play(scenario).finished))


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    with _writing(path):
        store.replace(path, data)


def _check_writable(path: Path | None) -> None:
    """End the command before its work, where its report could not be written."""
    if path is not None:
        with _writing(path):
            store.check_writable(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        click.echo(f"cannot write {path}: {error}", err=True)
        sys.exit(COULD_NOT_RUN)


def _chosen(battery: Battery, only: Sequence[str]) -> Sequence[str]:
    try:
        select(battery.scenarios, only)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    return only


@contextmanager
def _progress(console: Console, total: int | None) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, and nothing at all in a log."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("check", total=total)
        yield lambda name: progress.update(task, advance=1, description=name)


def _pairs(battery: Battery, chosen: Sequence[str], options: Mapping[str, Any]) -> list[Pair]:
    """What `--switches` compares.

    Raises:
        UsageError: nothing at all, such as `joined_stream` on an executor without a stream of its own.
    """
    named = {"switches": options["switch"], "executors": options["executor"], "decoders": options["decoder"]}
    try:
        for name in options["decoder"]:
            catalog.check_name(name)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    where = {"device": on_engine.device(options["executor"], options["device"]), "engine": options["engine"]}
    found = pairs(select(battery.scenarios, chosen), **named, dtype=options["dtype"], **where)
    if not found:
        raise click.UsageError(f"{', '.join(named['switches'])} does not act on {', '.join(named['executors'])}")
    return found
