"""`python -m harness profile`: what the layers of a decoder take, and how much of it can be attributed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from harness import registry
from harness.commands import decoder_switch
from harness.commands.common import FILE, check_writable, json_option, progress, say, write_json
from harness.commands.exits import COULD_NOT_RUN
from harness.engine.aot.export import DTYPES
from harness.engine.aot.runtime import check_dtype
from harness.engine.errors import BatchTooLarge, EngineError, ExecutorError, InvalidInput, OutsideProfile
from harness.parity.baselines import platform
from harness.rails.profile import files, onnx, sources, tables
from harness.rails.profile.report import Breakdown, Profile
from harness.rails.profile.sources import EngineSubject, Subject, TorchSubject
from harness.registry import ExecutorKind

_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
_COUNT = click.IntRange(min=1)
_OFFLINE = ("from_json", "layers_of")


@click.command("profile", short_help="Measure which layers a decoder run takes its time in.")
@click.option(
    "--executor", type=click.Choice([*map(str, ExecutorKind)]), default="eager", show_default=True, help="What runs."
)
@click.option("--engine", type=FILE, help="A plan for tensorrt, or an ONNX file for onnx instead of --decoder.")
@click.option("--decoder", default="tiny", show_default=True, help="affine, tiny, mid, 2b or a checkpoint's folder.")
@click.option("--dtype", type=click.Choice(_NAMES), default="float32", show_default=True, help="Of the decoder.")
@decoder_switch.OPTION
@click.option("--device", help="Where it runs: cuda for tensorrt, else cpu unless this says otherwise.")
@click.option("--batch", default=4, type=_COUNT, show_default=True, help="Rows of a run.")
@click.option("--seq-len", default=750, type=_COUNT, show_default=True, help="Latent frames T; 25 are a second.")
@click.option("--enc-len", default=200, type=_COUNT, show_default=True, help="Tokens L of the condition.")
@click.option("--iters", default=20, type=_COUNT, show_default=True, help="Runs for the wall time, and profiled runs.")
@click.option("--warmup", default=3, type=_COUNT, show_default=True, help="Runs before either.")
@click.option("--threads", default=1, type=_COUNT, show_default=True, help="Of a CPU's operators.")
@click.option("--top", default=15, type=_COUNT, show_default=True, help="Layers that are listed.")
@click.option("--from-json", type=FILE, help="Instead of a run: what trtexec --exportProfile wrote.")
@click.option("--layers", type=FILE, help="With --from-json: what trtexec --exportLayerInfo wrote.")
@click.option("--layers-of", type=FILE, help="Instead of a run: the layers of a built plan, by number, without times.")
@json_option("Write everything here too.")
@click.pass_context
def profile_command(context: click.Context, /, **options: Any) -> None:
    """Say which layers a run of the decoder takes its time in: per layer, by category, and what is left over.

    The wall time of runs without a profiler comes first, then the layers' averages over profiled ones. The residual is
    the wall time less the layers; it is negative where layers overlap, or where the profiler slows them. What is opaque
    and what no rule knows is printed as unattributed. On a GPU the gaps between kernels have a line of their own, and
    the layers of an executor of recorded runs are its kernels.

    Exits with 2 on a wrong command line, and with 125 where there is nothing to profile: a package or a plan's metadata
    is missing, a plan is of another GPU or version, or a file is no profile.
    """
    _check(context, options)
    check_writable(options["json_path"])
    try:
        with progress(Console(), None, "profiling"):
            report = Breakdown(_profile(options))
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    except (EngineError, ExecutorError, BatchTooLarge, OutsideProfile) as error:
        say(f"cannot profile: {type(error).__name__}: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    write_json(options["json_path"], report.document())
    console = Console()
    for part in tables.tables(report, options["top"]):
        # Rich would break a line where a log has no width.
        (say if isinstance(part, str) else console.print)(part)


def _check(context: click.Context, options: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: two sources, or an option of another one.
    """
    offline = [name for name in _OFFLINE if options[name] is not None]
    if offline:
        kept = {*_OFFLINE, "layers", "top", "json_path"}
        given = [name for name in options if context.get_parameter_source(name) is not _DEFAULT and name not in kept]
        if len(offline) > 1 or given:
            typed = {each.name: each.opts[0] for each in context.command.params}
            words = ", ".join(typed[name] for name in [*offline, *given])
            raise click.UsageError(f"{words}: a profile is of a file or of a run, not of both: leave out either")
    if options["layers"] is not None and options["from_json"] is None:
        raise click.UsageError("--layers goes with --from-json, whose layers they are: give both")
    kind = ExecutorKind(options["executor"])
    if kind.ahead_of_time and not kind.record.exports and options["engine"] is None and not offline:
        raise click.UsageError(f"--executor {kind} needs --engine, {kind.record.file}")
    if kind.ahead_of_time and options["decoder_switches"].on:
        raise click.UsageError(f"--decoder-switch: --executor {kind} runs a file that has its own decoder")
    if not kind.ahead_of_time and options["engine"] is not None:
        raise click.UsageError("--engine goes with --executor tensorrt or onnx")


_DEFAULT = click.core.ParameterSource.DEFAULT


def _profile(options: Mapping[str, Any]) -> Profile:
    if options["from_json"] is not None:
        return files.trtexec(options["from_json"], options["layers"])
    if options["layers_of"] is not None:
        return files.plan(options["layers_of"])
    with platform.threads(options["threads"]), _subject(options) as subject:
        provenance = {**_provenance(options), **subject.provenance}
        return sources.profiled(subject, options["iters"], options["warmup"], provenance)


@contextmanager
def _torch(options: Mapping[str, Any]) -> Iterator[Subject]:
    device = options["device"] or "cpu"
    dtype, switches = getattr(torch, options["dtype"]), options["decoder_switches"]
    decoder = registry.decoder(options["decoder"], dtype=dtype, device=device, switches=switches)
    batch = sources.batch(_shape(options), *registry.widths(decoder), device)
    executor = registry.executor(options["executor"], decoder, options["batch"], device=device)
    try:
        # An accelerated decoder refuses modules with hooks, which the marks are.
        yield TorchSubject(executor, None if switches.on else decoder, batch)
    finally:
        executor.close()


@contextmanager
def _onnx(options: Mapping[str, Any]) -> Iterator[Subject]:
    if options["device"] not in (None, "cpu"):
        raise InvalidInput("device", options["device"], "cpu, which is where ONNX Runtime runs here")
    check_dtype(options["dtype"])
    # The affine decoder's file has a static encoder length; the others' files are shared whatever the length is.
    tokens = {"tokens": options["enc_len"]} if options["decoder"] == registry.AFFINE else {}
    file = options["engine"] or registry.onnx_file(options["decoder"], dtype=options["dtype"], **tokens)
    yield onnx.OnnxSubject(file, _shape(options), options["threads"])


@contextmanager
def _tensorrt(options: Mapping[str, Any]) -> Iterator[Subject]:
    device = options["device"] or "cuda"
    executor = tensorrt_executor(options["engine"], device)
    try:
        profile = executor.sidecar.profile
        widths = (profile["hidden_states"][0][2], profile["encoder_hidden_states"][0][2])
        yield EngineSubject(executor, sources.batch(_shape(options), *widths, device))
    finally:
        executor.close()


SUBJECTS: Mapping[str, Callable[[Mapping[str, Any]], AbstractContextManager[Subject]]] = {
    ExecutorKind.ONNX: _onnx,
    ExecutorKind.TENSORRT: _tensorrt,
}
"""The kinds that have a profiler of their own; torch's profiler serves the others."""


def _subject(options: Mapping[str, Any]) -> AbstractContextManager[Subject]:
    return SUBJECTS.get(options["executor"], _torch)(options)


def tensorrt_executor(plan: Path, device: str) -> Any:
    """A plan's executor. Its module is imported only here, as nothing else needs what it needs."""
    return import_module("harness.engine.executors.tensorrt.executor").TensorRTExecutor(plan, device=device)


def _shape(options: Mapping[str, Any]) -> tuple[int, int, int]:
    return options["batch"], options["seq_len"], options["enc_len"]


def _provenance(options: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the profiled run: executor, decoder, device, sizes."""
    engine = options["engine"]
    device = options["device"] or ("cuda" if options["executor"] == ExecutorKind.TENSORRT else "cpu")
    return {
        "executor": options["executor"],
        "engine": None if engine is None else engine.name,
        "decoder": options["decoder"] if engine is None else None,
        "dtype": options["dtype"] if engine is None else None,
        "decoder_switches": decoder_switch.described(options["decoder_switches"]),
        "device": device,
        "platform": platform.name(device),
        "batch": options["batch"],
        "seq_len": options["seq_len"],
        "enc_len": options["enc_len"],
        "iters": options["iters"],
        "warmup": options["warmup"],
        "threads": options["threads"],
        "torch": torch.__version__,
    }
