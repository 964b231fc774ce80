"""Options `--html` and `--figures` of `check`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from harness.commands.check_report import CheckReport
from harness.commands.common import FILE, could_not_run
from harness.files import FileRefused
from harness.parity.baselines.bless import Battery
from harness.report import needs

if TYPE_CHECKING:
    from harness.report.figures import Figures

OPTION = click.option(
    "--html", "html_path", type=FILE, help="Write a report for a browser to this file too; needs the extra report."
)
FIGURES = click.option(
    "--figures",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="With --html: show a report of bench --json or compare --json too; may be given several times.",
)


def figures_of(options: Mapping[str, Any]) -> Sequence[Figures]:
    """Read the files of `--figures`, before the work of the check.

    Exit with 125 if a file is refused or a package that a report needs is missing.

    Raises:
        UsageError: `--figures` without `--html`.
    """
    if options["html_path"] is None:
        if options["figures"]:
            raise click.UsageError("--figures goes with --html, the report that shows them")
        return ()
    with could_not_run("check", needs.NotInstalled, FileRefused):
        needs.check()
        from harness.report import figures  # noqa: PLC0415 - an extra, which a check without a report does not need

        return [figures.read(path) for path in options["figures"]]


def page_of(
    checked: CheckReport,
    document: Mapping[str, Any],
    figures: Sequence[Figures],
    battery: Battery,
    options: Mapping[str, Any],
    advance: Callable[[str], None],
) -> str:
    """Make the page of a check; empty without `--html`. Differences are played again for their evidence."""
    if options["html_path"] is None:
        return ""
    from harness.report import page  # noqa: PLC0415 - an extra, as above
    from harness.report.differences import differences, of_traces  # noqa: PLC0415 - imported with it

    there = battery.on(checked.device)
    found = differences(checked.captures, checked.switches, there, options["captures"], options["engine"], advance)
    found += of_traces(checked.traces)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page.page(document, found, figures, f"{now}: harness {shlex.join(sys.argv[1:])}")
