"""What the commands have in common that take an ahead-of-time engine: `--executor onnx|tensorrt --engine PATH`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from harness import registry
from harness.commands.exits import COULD_NOT_RUN
from harness.engine.aot import bindings, onnx_file, sidecar
from harness.engine.aot.signature import VELOCITY
from harness.engine.errors import EngineError, InvalidInput
from harness.parity.proofs.float64 import Engine
from harness.registry import ExecutorKind

OPTION = click.option(
    "--engine",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="PATH",
    help="ONNX file or plan of an onnx or tensorrt executor; for onnx the decoder is exported if none is named.",
)


class CannotRun(click.ClickException):
    """What runs a plan is not here; the exit code is that of a command that could not run."""

    exit_code = COULD_NOT_RUN


def engine_to_check(options: Mapping[str, Any], *, alone: bool) -> Engine | None:
    """The engine that `check` plays the battery on; None where it compares something else.

    Args:
        options: of the command.
        alone: whether neither switches nor costs were asked for.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: of a plan, without TensorRT or without a GPU.
    """
    kinds, file, decoders = options["executor"], options["engine"], options["decoder"]
    _check(kinds, file, options["device"])
    _check_decoders(decoders, file, 0)
    if not (alone and any(ExecutorKind(kind).ahead_of_time for kind in kinds)):
        return None
    if len(kinds) > 1 or len(decoders) > 1 or options["switch"]:
        raise click.UsageError("without --switches the battery is played on one --executor, with one --decoder at most")
    decoder = next(iter(decoders), None)
    if decoder is not None:
        _check_name(decoder)
    return Engine(ExecutorKind(kinds[0]), file, decoder, options["dtype"], device(kinds, options["device"]))


def probed(options: Mapping[str, Any]) -> tuple[Path | None, str]:
    """The file and the device of `probe`.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: of a plan, without TensorRT or without a GPU.
    """
    _check(options["executor"], options["engine"], options["device"])
    _check_decoders(options["decoders"], options["engine"], 1)
    return options["engine"], device(options["executor"], options["device"])


def benched(options: Mapping[str, Any]) -> dict[str, Any]:
    """The load of `bench`, its file as text.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: of a plan, without TensorRT or without a GPU.
    """
    kinds, file = [options["executor"]], options["engine"]
    _check(kinds, file, options["device"])
    where = {"device": device(kinds, options["device"])}
    if file is None:
        return {**options, **where}
    return {**options, **where, "engine": str(file), "dtype": _dtype(ExecutorKind(kinds[0]), file)}


def _dtype(kind: ExecutorKind, file: Path) -> str:
    """What the engine in a file gives its velocity in: the decoder beside it computes in that, too."""
    try:
        if kind is ExecutorKind.TENSORRT:
            return str(sidecar.read(file).dtypes[VELOCITY])
        return str(onnx_file.read(file).dtypes[VELOCITY]).removeprefix("torch.")
    except (EngineError, InvalidInput) as error:
        raise CannotRun(f"cannot bench: {error}") from error


def device(kinds: Sequence[str], named: str) -> str:
    """Where everything is: a plan runs on a GPU, also where no device is named."""
    return "cuda" if (list(kinds), named) == ([ExecutorKind.TENSORRT], "cpu") else named


def _check(kinds: Sequence[str], file: Path | None, named: str) -> None:
    """Refuse a file without a kind of executor that runs it, a kind that lacks its file, and one that is elsewhere."""
    ahead = [kind for kind in kinds if ExecutorKind(kind).ahead_of_time]
    if file is not None and (len(kinds), len(ahead)) != (1, 1):
        raise click.UsageError("--engine goes with one --executor, onnx or tensorrt: the others run the decoder itself")
    if file is None and ExecutorKind.TENSORRT in ahead:
        raise click.UsageError("--executor tensorrt needs --engine PATH, the plan that it runs")
    try:
        for kind in ahead:
            registry.check_device(kind, device(kinds, named))
        if ExecutorKind.TENSORRT in ahead:
            bindings.binding()
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    except EngineError as error:
        raise CannotRun(str(error)) from error
    if ExecutorKind.TENSORRT in ahead and not torch.cuda.is_available():
        raise CannotRun("--executor tensorrt: torch sees no CUDA GPU here, and a plan runs on nothing else")


def _check_decoders(decoders: Sequence[str], file: Path | None, least: int) -> None:
    """Refuse a file with other than one decoder: it was made of one. With `least` 0 each scenario has its own."""
    if file is not None and not least <= len(decoders) <= 1:
        raise click.UsageError(f"--engine goes with one --decoder, the one it was made of, got {len(decoders)}")


def _check_name(decoder: str) -> None:
    try:
        registry.check_name(decoder)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
