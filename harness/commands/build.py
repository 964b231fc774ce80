"""`build`: from an ONNX file to a TensorRT plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness.commands.common import FILE, check_writable, json_option, progress, reported, say, write_json
from harness.engine.aot.bindings import Flavour
from harness.engine.aot.build import SECONDS_30, SECONDS_60, Asked, Sizes, build


def _sizes(name: str, default: tuple[int, int, int], words: str) -> Callable[[Any], Any]:
    triple = (int, int, int)
    return click.option(
        name, nargs=3, type=triple, default=default, show_default=True, metavar="MIN OPT MAX", help=words
    )


@click.command("build", short_help="Build a TensorRT engine from an ONNX file.")
@click.option("--max-batch", default=8, show_default=True, help="Rows of one run; it also bounds a ring's depth.")
@_sizes("--frames", (2, SECONDS_30, SECONDS_60), "Latent frames T, 25 a second.")
@_sizes("--tokens", (1, 200, 512), "Encoder length L.")
@click.option("--flavour", type=click.Choice(list(map(str, Flavour))), help="Of TensorRT; else whichever is installed.")
@click.option("--compute-capability", help="To build for, such as 8.9, of TensorRT-RTX; else this machine's GPU.")
@json_option("Write the report here too.")
@click.argument("onnx", type=FILE)
@click.argument("plan", type=FILE, required=False)
def build_command(onnx: Path, plan: Path | None, json_path: Path | None, **options: Any) -> None:
    """Build PLAN, a TensorRT engine, from ONNX, an exported file; by default beside it, with the suffix .plan.

    PLAN.json says what it was built from, for what and by what. A plan whose metadata matches in every field is used
    again; otherwise the fields that differ are named and it is built anew.
    """
    target = plan or onnx.with_suffix(".plan")
    with reported("build"), progress(Console(), None, "building"):
        asked = Asked(
            max_rows=options["max_batch"],
            frames=Sizes(*options["frames"]),
            tokens=Sizes(*options["tokens"]),
            flavour=options["flavour"],
            compute_capability=options["compute_capability"],
        )
        check_writable(target, json_path)
        built = build(onnx, target, asked)
    made = built.sidecar
    table = Table("layers of kind", "number")
    for kind, number in Counter(layer.kind or "not said" for layer in made.layers).most_common():
        table.add_row(kind, str(number))
    Console().print(table)
    if built.differs:
        say(f"the plan that was there could not be used again: {', '.join(built.differs)}")
    state = "used again" if built.reused else "built"
    where = f"{made.flavour} {made.version} for compute capability {made.compute_capability}"
    say(f"{target}: {state}, {target.stat().st_size} bytes, {len(made.layers)} layers, {where}")
    write_json(json_path, {"plan": str(target), "reused": built.reused, "differs": built.differs, **asdict(made)})
