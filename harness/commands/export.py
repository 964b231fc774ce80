"""`export`: from a decoder to an ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from harness import registry
from harness.commands.common import FILE, check_writable, json_option, progress, reported, say, write_json
from harness.engine import decoders
from harness.engine.aot import closeness
from harness.engine.aot.export import DTYPES, digest, export
from harness.engine.errors import InvalidInput

_NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]


@click.command("export", short_help="Export a decoder to an ONNX file and compare it with torch.")
@click.option("--decoder", default="tiny", show_default=True, help="tiny, mid, 2b or a checkpoint's folder.")
@click.option(
    "--dtype", type=click.Choice(_NAMES), default="float32", show_default=True, help="Of weights and tensors."
)
@click.option("--device", default="cpu", show_default=True, help="Where the decoder is traced and compared.")
@click.option("--mask/--no-mask", default=True, show_default=True, help="Whether the file takes the encoder mask.")
@json_option("Write the report here too.")
@click.argument("path", type=FILE)
def export_command(decoder: str, dtype: str, device: str, mask: bool, json_path: Path | None, path: Path) -> None:
    """Export a decoder to PATH, an ONNX file, and compare the file with torch before it is kept.

    Batch, frames T (even ones) and encoder length are dynamic. The file and torch run the same inputs, both are held
    against float64, and a file that is farther from it than twice torch's own distance is not kept: exit code 1.
    Weights of more than 2 GiB go to PATH.data. Without the mask padding is attended, and a pipeline refuses conditions
    of unequal lengths.
    """
    measured: list[closeness.Closeness] = []
    with reported("export"), progress(Console(), None, "exporting"):
        if decoder == registry.AFFINE:
            raise InvalidInput("decoder", decoder, "a real one: tiny, mid, 2b or a checkpoint's folder")
        check_writable(path, json_path)
        made = registry.decoder(decoder, dtype=getattr(torch, dtype), device=device)
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
    say(
        f"{path}: {exported.nodes} nodes, {exported.size} bytes, worst error {found.worst:.3g}, root mean square "
        f"{found.file:.3g} of at most {closeness.FACTOR:g} x {found.torch:.3g}"
    )
    report = {"path": str(path), "sha256": digest(path), "nodes": exported.nodes, "bytes": exported.size}
    distances = [asdict(d) for d in found.distances]
    gate = {"file": found.file, "torch": found.torch, "worst": found.worst, "factor": closeness.FACTOR}
    write_json(json_path, {**report, "decoder": decoder, "dtype": dtype, "mask": mask, **gate, "distances": distances})
