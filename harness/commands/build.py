"""`build`: from an ONNX file to a TensorRT plan, or from a decoder to a file of code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness.commands import build_code, decoder_switch
from harness.commands.common import DTYPES, FILE, check_writable, json_option, progress, reported, say, write_json
from harness.engine.aot.bindings import Flavour
from harness.engine.aot.build import SECONDS_30, SECONDS_60, Asked, Sizes, build


def _sizes(name: str, default: tuple[int, int, int], words: str) -> Callable[[Any], Any]:
    triple = (int, int, int)
    return click.option(
        name, nargs=3, type=triple, default=default, show_default=True, metavar="MIN OPT MAX", help=words
    )


TENSORRT, INDUCTOR = BACKENDS = ("tensorrt", "inductor")
_OF_TENSORRT = ("frames", "tokens", "flavour", "compute_capability", "plan")
_OF_INDUCTOR = ("shapes", "decoder", "dtype", "device", "threads", "decoder_switches")


@click.command("build", short_help="Build a TensorRT engine, or a file of compiled code.")
@click.option("--backend", type=click.Choice(BACKENDS), default=TENSORRT, show_default=True, help="What compiles.")
@click.option("--max-batch", default=8, show_default=True, help="Rows of one run; it also bounds a ring's depth.")
@_sizes("--frames", (2, SECONDS_30, SECONDS_60), "Latent frames T, 25 a second.")
@_sizes("--tokens", (1, 200, 512), "Encoder length L.")
@click.option("--flavour", type=click.Choice(list(map(str, Flavour))), help="Of TensorRT; else whichever is installed.")
@click.option("--compute-capability", help="To build for, such as 8.9, of TensorRT-RTX; else this machine's GPU.")
@click.option(
    "--shape",
    "shapes",
    nargs=2,
    type=click.IntRange(min=1),
    multiple=True,
    default=[(SECONDS_30, 200)],
    show_default=True,
    metavar="FRAMES TOKENS",
    help="Of inductor: T and L of runs; may be given several times.",
)
@click.option("--decoder", default="tiny", show_default=True, help="Of inductor: a name or a checkpoint's folder.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of inductor.")
@click.option("--device", default="cpu", show_default=True, help="Of inductor: where the decoder runs, such as cuda.")
@click.option("--threads", default=1, type=click.IntRange(min=1), show_default=True, help="Of inductor, on a CPU.")
@decoder_switch.OPTION
@json_option("Write the report here too.")
@click.argument("onnx", type=FILE)
@click.argument("plan", type=FILE, required=False)
@click.pass_context
def build_command(
    context: click.Context, /, onnx: Path, plan: Path | None, json_path: Path | None, backend: str, **options: Any
) -> None:
    """Build PLAN, a TensorRT engine, from ONNX, an exported file; by default beside it, with the suffix .plan.

    PLAN.json says what it was built from, for what and by what. A plan whose metadata matches in every field is used
    again; otherwise the fields that differ are named and it is built anew.

    With --backend inductor, the argument names the file to write: the code that torch's compiler makes for --decoder.
    It is used again, or built anew, in the same way. Rows are powers of two up to --max-batch.
    """
    strange = _OF_TENSORRT if backend == INDUCTOR else _OF_INDUCTOR
    default = click.core.ParameterSource.DEFAULT
    given = [name for name in strange if context.get_parameter_source(name) is not default]
    if given:
        typed = {each.name: each.opts[0] for each in context.command.params}
        raise click.UsageError(f"{', '.join(typed[name] for name in given)}: not of --backend {backend}")
    if backend == INDUCTOR:
        build_code.run(onnx, json_path, options["shapes"], options)
    else:
        _plan(onnx, plan, json_path, options)


def _plan(onnx: Path, plan: Path | None, json_path: Path | None, options: dict[str, Any]) -> None:
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
