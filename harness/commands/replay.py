"""`replay`: play a trace again, and compare every digest."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness import registry
from harness.commands.common import (
    CAPTURES_OPTION,
    DEVICE_OPTION,
    DTYPES,
    FILE,
    check_device,
    check_writable,
    could_not_run,
    json_option,
    progress,
    say,
    usage_errors,
    write_json,
)
from harness.commands.exits import DIFFERS, PASSED
from harness.engine.errors import EngineError, InvalidInput
from harness.files import FileRefused
from harness.parity.baselines.store import CaptureCorrupt, CaptureMissing, CaptureUnknown, NoCaptures
from harness.parity.compare import NothingCompared
from harness.parity.traces.engine_replay import replayed_pipeline
from harness.parity.traces.hints import UnknownHint, settings
from harness.parity.traces.kept import kept
from harness.parity.traces.reading import PIPELINE, Header, opened
from harness.parity.traces.replay import OtherPlatform, Replayed, TraceParted, replayed
from harness.registry import ExecutorKind

_KNOWN = (NoCaptures, FileRefused, EngineError, InvalidInput, OtherPlatform, NothingCompared)


@click.command("replay", short_help="Play a trace of production again, and compare every digest.")
@click.argument("trace", type=FILE, required=False)
@click.option("--blessed", is_flag=True, help="Instead of TRACE: every trace that was blessed on this platform.")
@CAPTURES_OPTION
@click.option("--decoder", help="Decoder of the pipeline; if none is named, the preset that the trace names.")
@click.option("--executor", type=click.Choice([*map(str, ExecutorKind)]), help="Its kind; eager if nothing names one.")
@click.option("--engine", type=FILE, metavar="PATH", help="File of an onnx or tensorrt executor.")
@click.option("--pin-rows", type=click.IntRange(min=1), help="Rows that every run is padded to.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Dtype of the decoder; float32 if nothing names one.")
@DEVICE_OPTION
@click.option("--ring", metavar="MODULE:FUNCTION", help="For a ring of your own: the function that makes a new one.")
@click.option("--until", type=click.IntRange(min=1), metavar="TICK", help="End behind this number of ticks.")
@click.option("--all", "everything", is_flag=True, help="Compare also on another platform than the recorded one.")
@json_option("Write the result to this file too.")
def replay_command(
    trace: Path | None,
    blessed: bool,
    captures: Path,
    everything: bool,
    until: int | None,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Play the events of TRACE on a new ring, and compare the digests of everything that they make.

    A trace holds the configuration of a pipeline and the tensors of its requests, and no weights: --decoder and
    --executor name what it ran with. What is not named is taken from the words that the trace was recorded with.

    The exit code is 0 if all values are the same, 1 if one differs: the first event, tick and request are named. It is
    2 on a wrong command line, and 125 if nothing could be compared: a trace of another platform (--all compares it all
    the same), a file that is refused, or a ring that cannot be made.
    """
    if (trace is None) is not blessed:
        raise click.UsageError("give one trace, or --blessed")
    check_writable(json_path)
    check_device("replay", options["device"])
    results: list[dict[str, Any]] = []
    with could_not_run("replay", *_KNOWN):
        try:
            listed = kept(captures, options["device"]) if trace is None else [(str(trace), trace)]
            with progress(Console(), None, "playing a trace") as advance:
                for name, path in listed:
                    advance(Path(name).name)
                    found = _played(path, options, until, everything, name if blessed else "")
                    results.append({"trace": name, **found})
        except (CaptureMissing, CaptureCorrupt, CaptureUnknown) as error:
            say(error)
            results.append({"trace": None, "same": False, "detail": str(error)})
    write_json(json_path, results[0] if trace is not None else {"traces": results})
    sys.exit(PASSED if all(result["same"] for result in results) else DIFFERS)


def player(path: Path, options: dict[str, Any]) -> Callable[..., Replayed]:
    """Make the function that plays a trace; `options` are those of the command.

    Raises:
        UsageError: options that do not fit the trace, or too few of them.
        FileRefused: the file is no trace.
    """
    with opened(path) as found:
        header = found.header
    return _of_pipeline(header, options) if header.subject == PIPELINE else _of_ring(header, options)


def _played(path: Path, options: dict[str, Any], until: int | None, everything: bool, name: str) -> dict[str, Any]:
    """Play a trace and print what is found; return it as plain JSON values."""
    before = f"{name}: " if name else ""
    try:
        result = player(path, options)(path, until=until, any_platform=everything)
    except TraceParted as parted:
        say(f"{before}{parted}")
        with opened(path) as found:
            say(_versions(found.header), err=True)
        names = {"event": parted.event, "call": parted.call, "tick": parted.tick, "what": parted.what}
        return {"same": False, "difference": {**names, "detail": str(parted)}}
    say(f"{before}{result}")
    return {"same": True, **_counts(result)}


def _of_pipeline(header: Header, options: dict[str, Any]) -> Callable[..., Replayed]:
    """Make the function that plays a trace of a pipeline.

    Raises:
        UsageError: options that the pipeline cannot have.
    """
    if options["ring"]:
        raise click.UsageError("--ring goes with a trace of a ring of your own: this is one of a pipeline")
    device = options["device"]
    try:
        made = settings(header.hints, options)
    except UnknownHint as error:
        raise click.UsageError(str(error)) from error
    with usage_errors():
        registry.check_name(made.decoder)
        decoder = made.made(device)

    def make(rows: int) -> Any:
        with usage_errors():
            return registry.executor(made.kind, decoder, rows, made.pin_rows, device, options["engine"])

    return lambda trace, **rest: replayed_pipeline(trace, make, device=device, **rest)


def _of_ring(header: Header, options: dict[str, Any]) -> Callable[..., Replayed]:
    """Make the function that plays a trace of a ring of any make.

    Raises:
        UsageError: no function that makes the ring, or one that cannot be imported.
    """
    given = [name for name in ("decoder", "executor", "engine", "pin_rows", "dtype") if options[name] is not None]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} goes with a trace of a pipeline: this is one of a ring")
    # What the trace names is shown and not imported: no file decides which code runs.
    if not options["ring"]:
        hint = f", such as {header.hints['factory']}" if "factory" in header.hints else ""
        raise click.UsageError(f"the trace is one of a ring of your own: give --ring MODULE:FUNCTION{hint}")
    module, _, name = options["ring"].partition(":")
    sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise click.UsageError(f"--ring {options['ring']}: {error}") from error
    finally:
        sys.path.remove("")
    return lambda trace, **rest: replayed(trace, factory, **rest)


def _counts(result: Replayed) -> dict[str, Any]:
    return {
        "events": result.events,
        "ticks": result.ticks,
        "values": result.values,
        "not_played": result.raised,
        "cut": result.cut,
        "differing": list(result.differing),
    }


def _versions(header: Header) -> str:
    return f"recorded on {header.platform} with torch {header.torch} and stream-harness {header.harness}"
