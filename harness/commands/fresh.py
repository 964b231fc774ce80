"""Hidden commands that other commands run in a fresh process."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.engine import atomic
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery, digests
from harness.parity.baselines.captures import select
from harness.rails.costs import rails as costs


@click.command("_costs", hidden=True)
def costs_command() -> None:
    """Print the costs of every rail as JSON, for a count in a fresh process."""
    click.echo(json.dumps(costs.counted()))


@click.command("_digests", hidden=True)
@click.argument("names", nargs=-1)
@click.pass_obj
def digests_command(battery: Battery, names: tuple[str, ...]) -> None:
    """Print the digests of NAMES as JSON, for a replay in a fresh process."""
    found = {}
    with platform.one_thread():
        for name, scenario in select(battery.scenarios, names).items():
            each = digests(battery.play(scenario))
            found[name] = {"content": each.content, "ticks": each.ticks}
    click.echo(json.dumps(found))


@click.command("_tensors", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1)
@click.pass_obj
def tensors_command(battery: Battery, folder: Path, names: tuple[str, ...]) -> None:
    """Write the finished tensors of NAMES to FOLDER, for a replay with other kernels."""
    with platform.one_thread():
        for name, scenario in select(battery.scenarios, names).items():
            atomic.write(folder / store.file_name(name), store.serialize(battery.play(scenario).finished))
