"""`bench`: times of a tick and of the bare decoder."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.commands import decoder_switch, on_engine, tables
from harness.commands.common import (
    DTYPES,
    FILE,
    check_writable,
    json_option,
    progress,
    say,
    write_json,
)
from harness.commands.exits import COULD_NOT_RUN
from harness.engine.errors import (
    CheckpointRefused,
    EngineError,
    ExecutorError,
    InvalidInput,
    OutsideProfile,
    RequestFailed,
)
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.switches import SWITCHES, Switches
from harness.parity.baselines import platform
from harness.parity.traces import RecordingStopped
from harness.rails.bench import ablation, recorded, steady, throughput
from harness.registry import ExecutorKind


def _switched(_context: click.Context, _option: click.Parameter, assignments: Sequence[str]) -> Switches:
    """Read `name=value` for each: on or off, or the name of an enum's member."""
    switches = Switches()
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in SWITCHES or not value:
            raise click.BadParameter(f"{assignment!r}: expected NAME=VALUE with a name of {', '.join(SWITCHES)}")
        try:
            changed: dict[str, Any] = {name: SWITCHES[name].parsed(value)}
        except InvalidInput as error:
            raise click.BadParameter(f"{assignment!r}: expected {name}=on or {name}=off") from error
        switches = replace(switches, **changed)
    return switches


@click.command("bench", short_help="Measure what a tick takes, and what the bare decoder takes of it.")
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
@click.option("--fresh/--shared", default=False, help="A prompt and a context for each request, or one for all.")
@click.option("--decoder", default="tiny", show_default=True, help="affine, tiny, mid, 2b or a checkpoint's folder.")
@click.option(
    "--executor",
    type=click.Choice([*map(str, ExecutorKind)]),
    default="eager",
    show_default=True,
    help="Kind of the executor.",
)
@on_engine.OPTION
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of the decoder.")
@click.option("--device", default="cpu", show_default=True, help="Where the decoder is, such as cuda.")
@click.option("--threads", default=1, type=click.IntRange(min=1), show_default=True, help="Of torch's CPU operators.")
@click.option(
    "--switch", "switches", multiple=True, metavar="NAME=VALUE", callback=_switched, help="An optimization: on or off."
)
@decoder_switch.OPTION
@click.option("--code", type=FILE, help="With compiled_graph: the file of build --backend inductor.")
@click.option("--steady", "steadied", is_flag=True, help="Also the ratio of a tick to the decoder's own replay.")
@click.option("--ablate", "ablated", is_flag=True, help="Also measure what each switch saves.")
@click.option("--record", "trace", type=FILE, help="Also what a recording costs; writes the trace, a new file, here.")
@json_option("Write the figures here too.")
def bench_command(
    threads: int, steadied: bool, ablated: bool, trace: Path | None, json_path: Path | None, **load: Any
) -> None:
    """Drive a session at a fixed depth and measure what a tick takes, and what the bare decoder takes of it.

    Latents alone are made. Every tick of the window counts, those in which requests enter and finish as well. With an
    onnx or tensorrt executor the engine's own runs, back to back, are one of the bare decoder's forms.

    --steady needs an executor of recorded runs. Windows of ticks and windows of replays alternate, and the ratio of
    their means has a 95 % interval; host time and launches a tick are measured apart.

    --decoder-switch all=on --decoder-switch kept_time=off turns on every acceleration but one. With --ablate, each that
    is on is measured off too.

    --record drives two streams in turn, of which one is recorded: the difference is what a recording costs a tick.
    """
    load = on_engine.benched(load)
    load["code"] = None if load["code"] is None else str(load["code"])
    check_writable(json_path)
    console = Console()
    # A full collection would look at every object that the imports made, in the middle of a tick.
    gc.collect()
    gc.freeze()
    with platform.threads(threads):
        try:
            asked = throughput.Load(**load)
            if steadied:
                steady.check(asked)
            total = asked.warmup + asked.ticks + (ablation.ablated_ticks(asked) if ablated else 0)
            total += 0 if trace is None else recorded.recorded_ticks(asked)
            with progress(console, total, "making the decoder") as advance:
                measured = throughput.bench(asked, advance)
                savings = ablation.ablate(asked, advance) if ablated else []
                ratio = steady.measured(asked) if steadied else None
                recording = None if trace is None else recorded.recorded(asked, trace, advance)
        except (
            CheckpointRefused,
            EngineError,
            ExecutorError,
            OutsideProfile,
            RequestFailed,
            RecordingStopped,
        ) as error:
            say(f"cannot bench: {error}", err=True)
            sys.exit(COULD_NOT_RUN)
        except InvalidInput as error:  # last, because a checkpoint that is refused is one too
            raise click.UsageError(str(error)) from error
        where = {"name": platform.name(asked.device), "fingerprint": platform.of_device(asked.device)}
    if json_path is not None:
        document = {
            **measured.document(),
            "ablation": [asdict(saving) for saving in savings],
            "steady": None if ratio is None else asdict(ratio),
            "recording": None if recording is None else asdict(recording),
            "platform": where,
        }
        write_json(json_path, document)
    for table in tables.benched(measured, savings, ratio, recording):
        console.print(table)
