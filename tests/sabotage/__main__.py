"""`python -m tests.sabotage`: every defect, planted in a copy of the project, and what became of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from harness.engine import atomic
from harness.parity.baselines.platform import ROOT
from tests.sabotage.defects import DEFECTS
from tests.sabotage.gpu_defects import ON_GPU
from tests.sabotage.runner import DefectVerdict, Result, sabotage, write

COLORS = {DefectVerdict.CAUGHT: "green", DefectVerdict.SURVIVED: "red", DefectVerdict.ERROR: "red"}


@click.command()
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the verdicts here too."
)
@click.option("--only", default="", metavar="TEXT", help="Only defects whose name, file or switch holds this.")
@click.option("--gpu", is_flag=True, help="The defects that only a GPU shows, on a machine that has one.")
@click.option("--jobs", default=2, show_default=True, help="How many at once.")
def main(json_path: Path | None, only: str, gpu: bool, jobs: int) -> None:
    """Plant every defect in a copy of the project; exits with 0 where its test noticed each of them."""
    if json_path is not None:
        atomic.check_writable(json_path)
    if gpu and not torch.cuda.is_available():
        raise click.UsageError("--gpu: there is no CUDA device")
    chosen = [d for d in (ON_GPU if gpu else DEFECTS) if only in f"{d.name}\n{d.file}\n{d.switch or ''}"]
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("sabotage", total=len(chosen))
        results = sabotage(ROOT, chosen, jobs=jobs, advance=lambda _: progress.advance(task))
    if json_path is not None:
        write(json_path, results)
    console.print(table(results))
    caught = sum(result.verdict is DefectVerdict.CAUGHT for result in results)
    click.echo(f"{caught} of {len(results)} caught")
    sys.exit(0 if results and caught == len(results) else 1)


def table(results: list[Result]) -> Table:
    """A row a defect, and below each that was not caught what happened instead."""
    made = Table("defect", "switch", "verdict")
    for result in results:
        made.add_row(Text(result.name), result.switch or "", Text(result.verdict, style=COLORS[result.verdict]))
        if result.verdict is not DefectVerdict.CAUGHT:
            made.add_row(Text(result.detail, overflow="fold"), "", "")
    return made


if __name__ == "__main__":
    main()
