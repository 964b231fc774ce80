"""Options of the commands that run a compiled decoder: `--executor onnx|tensorrt --engine PATH`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from harness import registry
from harness.commands.common import usage_errors
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
    help="Exported file (onnx) or plan (tensorrt) to run; onnx exports the decoder if no file is named.",
)


class CannotRun(click.ClickException):
    """A command cannot run here, such as a plan without TensorRT or a GPU; exit code 125."""

    exit_code = COULD_NOT_RUN


def engine_to_check(options: Mapping[str, Any], *, alone: bool) -> Engine | None:
    """Return the compiled decoder on which `check` plays the battery; None where the options ask for another check.

    Args:
        options: options of the command.
        alone: neither switches nor costs were asked for.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: a plan was asked for, and there is no TensorRT or no GPU.
    """
    kinds, file, decoders = options["executor"], options["engine"], options["decoder"]
    _check(kinds, file, options["device"])
    _check_decoders(decoders, file, 0)
    if not (alone and any(ExecutorKind(kind).ahead_of_time for kind in kinds)):
        return None
    if len(kinds) > 1 or len(decoders) > 1 or options["switch"]:
        raise click.UsageError("without --switches, give one --executor, at most one --decoder and no --switch")
    decoder = next(iter(decoders), None)
    if decoder is not None:
        _check_name(decoder)
    return Engine(ExecutorKind(kinds[0]), file, decoder, options["dtype"], device(kinds, options["device"]))


def probed(options: Mapping[str, Any]) -> tuple[Path | None, str]:
    """Return the file and the device of `probe`.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: a plan was asked for, and there is no TensorRT or no GPU.
    """
    _check(options["executor"], options["engine"], options["device"])
    _check_decoders(options["decoders"], options["engine"], 1)
    return options["engine"], device(options["executor"], options["device"])


def benched(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the load of `bench`, with the path of the file as text.

    Raises:
        UsageError: options that contradict each other.
        CannotRun: a file that cannot be read, or a plan was asked for, and there is no TensorRT or no GPU.
    """
    kinds, file = [options["executor"]], options["engine"]
    _check(kinds, file, options["device"])
    where = {"device": device(kinds, options["device"])}
    if file is None:
        return {**options, **where}
    return {**options, **where, "engine": str(file), "dtype": _dtype(ExecutorKind(kinds[0]), file)}


def _dtype(kind: ExecutorKind, file: Path) -> str:
    """Dtype of the velocity of a compiled decoder, by name; `bench` makes the live decoder in the same dtype."""
    try:
        if kind is ExecutorKind.TENSORRT:
            return str(sidecar.read(file).dtypes[VELOCITY])
        return str(onnx_file.read(file).dtypes[VELOCITY]).removeprefix("torch.")
    except (EngineError, InvalidInput) as error:
        raise CannotRun(f"cannot bench: {error}") from error


def device(kinds: Sequence[str], named: str) -> str:
    """Device of the decoder: the named one, but `cuda` for a plan if no device was named."""
    return "cuda" if (list(kinds), named) == ([ExecutorKind.TENSORRT], "cpu") else named


def _check(kinds: Sequence[str], file: Path | None, named: str) -> None:
    """Check that the kinds of executor, the file and the device fit each other and can run here.

    Raises:
        UsageError: a file without a kind that runs it, a plan's kind without a file, or a device of another type.
        CannotRun: a plan was asked for, and there is no TensorRT or no GPU.
    """
    ahead = [kind for kind in kinds if ExecutorKind(kind).ahead_of_time]
    if file is not None and (len(kinds), len(ahead)) != (1, 1):
        raise click.UsageError("--engine goes with one --executor, onnx or tensorrt: others run the decoder itself")
    if file is None and ExecutorKind.TENSORRT in ahead:
        raise click.UsageError("--executor tensorrt needs --engine PATH, the plan to run")
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
        raise CannotRun(
            "--executor tensorrt: torch sees no CUDA GPU here, and a plan runs only on one; "
            "run the exported file instead, with --executor onnx"
        )


def _check_decoders(decoders: Sequence[str], file: Path | None, least: int) -> None:
    """Check that a file comes with one decoder at most, and with at least `least` decoders.

    Raises:
        UsageError: another number of decoders.
    """
    if file is not None and not least <= len(decoders) <= 1:
        raise click.UsageError(f"--engine goes with one --decoder, from which the file was made, got {len(decoders)}")


def _check_name(decoder: str) -> None:
    with usage_errors():
        registry.check_name(decoder)
