"""The command line: `python -m harness COMMAND`. Each command is a module of `harness.commands`."""

from __future__ import annotations

import click

from harness import __version__
from harness.commands.bench import bench_command
from harness.commands.bless import bless_command
from harness.commands.build import build_command
from harness.commands.check import check_command
from harness.commands.compare import compare_command
from harness.commands.completed import completion_command
from harness.commands.endings import Commands
from harness.commands.examples import epilog
from harness.commands.export import export_command
from harness.commands.fresh import costs_command, digests_command, tensors_command
from harness.commands.probe import probe_command
from harness.commands.profile import profile_command
from harness.commands.replay import replay_command
from harness.parity.baselines.bless import BATTERY

COMMANDS = (
    check_command,
    bless_command,
    probe_command,
    bench_command,
    compare_command,
    export_command,
    build_command,
    profile_command,
    replay_command,
    costs_command,
    digests_command,
    tensors_command,
    completion_command,
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
@click.pass_context
def main(context: click.Context) -> None:
    """Check that the streaming engine still makes the bits it was blessed with."""
    context.obj = context.obj or BATTERY


for command in COMMANDS:
    command.epilog = epilog(str(command.name))
    main.add_command(command)
