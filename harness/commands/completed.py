"""`_completion`: the file from which a shell completes, made from the commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import click

from harness import registry
from harness.completion import Command, Parameter
from harness.engine.decoders.decoder_switches import ACCELERATIONS, EVERY, FORMS, PLAIN
from harness.engine.switches import SWITCHES
from harness.parity.baselines.bless import Battery

_ON_OFF = ("on", "off")


@click.command("_completion", hidden=True)
@click.pass_context
def completion_command(context: click.Context) -> None:
    """Print what harness/completion.json must hold."""
    group = context.find_root().command
    assert isinstance(group, click.Group)  # noqa: S101 - this command is one of a group's
    click.echo(json.dumps(documented(group, context.obj), indent=1))


def documented(group: click.Group, battery: Battery) -> dict[str, object]:
    """Return the commands that are shown, with all values that can be offered, as a document."""
    shown = {name: command for name, command in group.commands.items() if not command.hidden}
    values = _values(battery)
    found = {name: [_parameter(each, values) for each in command.params] for name, command in shown.items()}
    # Options of a bench may follow the revisions of a comparison.
    there = {name for each in found["compare"] for name in each.names}
    found["compare"] += [
        each for each in found["bench"] if each.names[0].startswith("-") and each.names[0] not in there
    ]
    texts = {name: command.get_short_help_str(200) for name, command in shown.items()}
    return {name: asdict(Command(texts[name], tuple(found[name]))) for name in found}


def _values(battery: Battery) -> Mapping[str, Iterable[str]]:
    """Return the values that no choice of click names, by the parameter that takes them."""
    decoders = (registry.AFFINE, *registry.PRESETS)
    return {
        "only": battery.scenarios,
        "names": battery.scenarios,
        "decoder": decoders,
        "decoders": decoders,
        "device": ("cpu", "cuda"),
        "switches": [f"{name}={value}" for name in SWITCHES for value in _ON_OFF],
        "decoder_switches": [
            *(f"{name}={value}" for name in (EVERY, *ACCELERATIONS) for value in _ON_OFF),
            *(f"{name}={value}" for name in FORMS for value in type(getattr(PLAIN, name))),
        ],
    }


def _parameter(each: click.Parameter, values: Mapping[str, Iterable[str]]) -> Parameter:
    """Return what a shell needs to know of a parameter."""
    flag = isinstance(each, click.Option) and each.is_flag
    choices = each.type.choices if isinstance(each.type, click.Choice) else values.get(str(each.name), ())
    path = each.type if isinstance(each.type, click.Path) else None
    return Parameter(
        names=(*each.opts, *each.secondary_opts),
        number=0 if flag else each.nargs,
        values=() if flag else tuple(map(str, choices)),
        kind="plain" if path is None else "file" if path.file_okay else "dir",
        repeats=each.multiple,
        help=str(getattr(each, "help", None) or ""),
    )
