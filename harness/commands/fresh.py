"""Hidden commands, which other commands run in a fresh process."""

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
    """Count the costs of every rail and print them as JSON."""
    click.echo(json.dumps(costs.counted()))


@click.command("_digests", hidden=True)
@click.option("--device", default="cpu")
@click.argument("names", nargs=-1)
@click.pass_obj
def digests_command(battery: Battery, device: str, names: tuple[str, ...]) -> None:
    """Play the scenarios NAMES on a device and print the digests of the results as JSON."""
    found = {}
    with platform.one_thread():
        for name, scenario in select(battery.on(device).scenarios, names).items():
            each = digests(battery.play(scenario))
            found[name] = {"content": each.content, "ticks": each.ticks}
    click.echo(json.dumps(found))


@click.command("_tensors", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1)
@click.pass_obj
def tensors_command(battery: Battery, folder: Path, names: tuple[str, ...]) -> None:
    """Play the scenarios NAMES and write the finished latents to FOLDER."""
    with platform.one_thread():
        for name, scenario in select(battery.scenarios, names).items():
            atomic.write(folder / store.file_name(name), store.serialize(battery.play(scenario).finished))
