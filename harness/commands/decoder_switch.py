"""The option `--decoder-switch NAME=VALUE` of the commands that make a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import click

from harness.engine.decoders.decoder_switches import FORMS, PLAIN, DecoderSwitches
from harness.engine.errors import InvalidInput


def _accelerated(_context: click.Context, _option: click.Parameter, assignments: Sequence[str]) -> DecoderSwitches:
    """Read `name=value` for each, in order."""
    switches = PLAIN
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        try:
            switches = switches.assigned(name, value)
        except InvalidInput as error:
            raise click.BadParameter(f"{assignment!r}: {error}") from error
    return switches


OPTION = click.option(
    "--decoder-switch",
    "decoder_switches",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_accelerated,
    help="An acceleration of the decoder, or all: on or off; a form: its name.",
)


def described(switches: DecoderSwitches) -> str | None:
    """The accelerations that are on, then the forms, for a report; None where none is on."""
    forms = [f"{name}={getattr(switches, name)}" for name in FORMS]
    return ", ".join([*switches.on, *forms]) if switches.on else None
