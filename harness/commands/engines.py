"""`export` and `build`: from a decoder to an ONNX file, from that to a TensorRT engine."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from harness.engine import decoders
from harness.engine.aot import closeness
from harness.engine.aot.bindings import Flavour
from harness.engine.aot.build import SECONDS_30, SECONDS_60, Asked, Sizes, build
from harness.engine.aot.export import DTYPES, digest, export
from harness.engine.errors import EngineError, ExportRefused, InvalidInput
from harness.parity import catalog, store

DIFFERS, COULD_NOT_RUN = 1, 125

_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
_JSON = click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here too."
)
_FILE = click.Path(path_type=Path, dir_okay=False)


def _sizes(name: str, default: tuple[int, int, int], words: str) -> Callable[[Any], Any]:
    triple = (int, int, int)
    return click.option(
        name, nargs=3, type=triple, default=default, show_default=True, metavar="MIN OPT MAX", help=words
    )


@click.command("export")
@click.option("--decoder", default="tiny", show_default=True, help="tiny, mid, 2b or a checkpoint's folder.")
@click.option(
    "--dtype", type=click.Choice(_NAMES), default="float32", show_default=True, help="Of weights and tensors."
)
@click.option("--device", default="cpu", show_default=True, help="Where the decoder is traced and compared.")
@click.option("--mask/--no-mask", default=True, show_default=True, help="Whether the file takes the encoder mask.")
@_JSON
@click.argument("path", type=_FILE)
def export_command(decoder: str, dtype: str, device: str, mask: bool, json_path: Path | None, path: Path) -> None:
    """Export a decoder to PATH, an ONNX file, and compare the file with torch before it is kept.

    Batch, frames T (even ones) and encoder length are dynamic. The file and torch run the same inputs, both are held
    against float64, and a file that is farther from it than twice torch's own distance is not kept: exit code 1.
    Weights of more than 2 GiB go to PATH.data. Without the mask padding is attended, and a pipeline refuses conditions
    of unequal lengths.
    """
    measured: list[closeness.Closeness] = []
    with _reported("export"):
        if decoder == catalog.AFFINE:
            raise InvalidInput("decoder", decoder, "a real one: tiny, mid, 2b or a checkpoint's folder")
        store.check_writable(path, *([] if json_path is None else [json_path]))
        made = catalog.decoder(decoder, dtype=getattr(torch, dtype), device=device)
        assert isinstance(made, decoders.AceStepDecoder)  # noqa: S101 - the only other kind that has a name

        def accept(file: Path) -> None:
            measured.append(closeness.measure(file, made, mask=mask))
            measured[0].check()

        exported = export(made, path, mask=mask, accept=accept)
    (found,) = measured
    table = Table("rows, frames, tokens", "velocity", "file", "torch", "worst", title="distance from float64")
    for d in found.distances:
        table.add_row(str(d.shape), *(f"{value:.3g}" for value in (d.scale, d.file, d.torch, d.worst)))
    Console().print(table)
    click.echo(
        f"{path}: {exported.nodes} nodes, {exported.size} bytes, worst error {found.worst:.3g}, root mean square "
        f"{found.file:.3g} of at most {closeness.FACTOR:g} x {found.torch:.3g}"
    )
    if json_path is not None:
        report = {"path": str(path), "sha256": digest(path), "nodes": exported.nodes, "bytes": exported.size}
        distances = [asdict(d) for d in found.distances]
        gate = {"file": found.file, "torch": found.torch, "worst": found.worst, "factor": closeness.FACTOR}
        with _reported("export"):
            _write(
                json_path, {**report, "decoder": decoder, "dtype": dtype, "mask": mask, **gate, "distances": distances}
            )


@click.command("build")
@click.option("--max-batch", default=8, show_default=True, help="Rows of one run; it also bounds a ring's depth.")
@_sizes("--frames", (2, SECONDS_30, SECONDS_60), "Latent frames T, 25 a second.")
@_sizes("--tokens", (1, 200, 512), "Encoder length L.")
@click.option("--flavour", type=click.Choice(list(map(str, Flavour))), help="Of TensorRT; else whichever is installed.")
@click.option("--compute-capability", help="To build for, such as 8.9, of TensorRT-RTX; else this machine's GPU.")
@_JSON
@click.argument("onnx", type=_FILE)
@click.argument("plan", type=_FILE, required=False)
def build_command(onnx: Path, plan: Path | None, json_path: Path | None, **options: Any) -> None:
    """Build PLAN, a TensorRT engine, from ONNX, an exported file; by default beside it, with the suffix .plan.

    PLAN.json says what it was built from, for what and by what. A plan whose metadata matches in every field is used
    again; otherwise the fields that differ are named and it is built anew.
    """
    target = plan or onnx.with_suffix(".plan")
    with _reported("build"):
        asked = Asked(
            max_rows=options["max_batch"],
            frames=Sizes(*options["frames"]),
            tokens=Sizes(*options["tokens"]),
            flavour=options["flavour"],
            compute_capability=options["compute_capability"],
        )
        store.check_writable(target, *([] if json_path is None else [json_path]))
        built = build(onnx, target, asked)
    made = built.sidecar
    table = Table("layers of kind", "number")
    for kind, number in Counter(layer.kind or "not said" for layer in made.layers).most_common():
        table.add_row(kind, str(number))
    Console().print(table)
    if built.differs:
        click.echo(f"the plan that was there could not be used again: {', '.join(built.differs)}")
    state = "used again" if built.reused else "built"
    where = f"{made.flavour} {made.version} for compute capability {made.compute_capability}"
    click.echo(f"{target}: {state}, {target.stat().st_size} bytes, {len(made.layers)} layers, {where}")
    if json_path is not None:
        with _reported("build"):
            _write(json_path, {"plan": str(target), "reused": built.reused, "differs": built.differs, **asdict(made)})


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Errors as a command line says them."""
    try:
        yield
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    except ExportRefused as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(DIFFERS)
    except (EngineError, OSError) as error:
        click.echo(f"cannot {what}: {error}", err=True)
        sys.exit(COULD_NOT_RUN)


def _write(path: Path, document: Mapping[str, object]) -> None:
    store.replace(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
