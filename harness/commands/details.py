"""Details of a check's differences for a terminal: a few of them, unlike each other, in a limited number of lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from harness.commands.check_report import CheckReport
from harness.files.refused import shown
from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.lockstep import REPRO
from harness.parity.proofs.switches import EVERY
from harness.parity.spread import spread

SHOWN = 5
"""The most differences that are told in words; the table of verdicts counts all."""
LINES = 30
"""The most lines below their titles together; a longer text ends with `CUT`."""
CUT = " ..."
BISECT = "which commit moved a capture: git bisect run, see docs/captures.md"
_INDENT = "  "


@dataclass(frozen=True)
class _Failure:
    """A verdict that does not pass: title, words, a command or nothing, and what it is about, for `spread`."""

    title: str
    detail: str
    command: str
    about: tuple[str, ...]


def details(found: CheckReport, width: int) -> Iterator[str]:
    """Tell the first differences of different executors, switches and scenarios, then how the others are seen.

    Args:
        found: the report of the check; cost rails have a table of their own.
        width: columns of the terminal.

    Returns:
        Lines for a terminal; none where every verdict passes. At most `SHOWN` titles, and `LINES` lines below them;
        then `BISECT` where a capture moved.
    """
    failures = [failure for failure in _failures(found) if failure.detail]
    chosen = [failures[index] for index in spread([each.about for each in failures], SHOWN)]
    cut = False
    if chosen:
        yield ""
    for failure in chosen:
        command = [shown(failure.command)] if failure.command else []  # whole in one line, to be pasted
        lines = _wrapped(failure.detail, width - len(_INDENT), LINES // len(chosen) - len(command))
        cut = cut or lines[-1].endswith(CUT)
        yield shown(failure.title)
        yield from (_INDENT + line for line in [*lines, *command])
    more = len(failures) - len(chosen)
    if more:
        yield f"and {more} more: --json FILE has all, --html FILE a table; or name a scenario"
    elif cut:
        yield f"what ends with{CUT} is whole in --json FILE"
    if found.captures is not None and any(each.verdict.moved for each in found.captures.results):
        yield BISECT


def _failures(found: CheckReport) -> Iterator[_Failure]:
    for result in () if found.captures is None else found.captures.results:
        if not result.verdict.passes and result.verdict is not Verdict.OUTSIDE_PROFILE:
            about = ("captures", "captures", result.name, "")
            yield _Failure(f"{result.name}, captures: {result.verdict}", result.detail, "", about)
    for each in found.switches:
        if not each.verdict.passes and each.verdict is not Verdict.OUTSIDE_PROFILE:
            scenario = "every scenario" if each.scenario == EVERY else each.scenario
            title = f"{scenario}, {each.switch} on {each.executor}, {each.decoder}: {each.verdict}"
            detail, _, command = each.detail.partition(REPRO)
            yield _Failure(title, detail, command, (each.executor, each.switch, each.scenario, each.decoder))


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """A text in lines of a width, words of a longer one broken; where it takes more than `most`, its beginning."""
    lines = [
        part
        for line in shown(text).splitlines()
        for part in textwrap.wrap(line, width, break_on_hyphens=False, drop_whitespace=True) or [""]
    ]
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], lines[most - 1][: width - len(CUT)].rstrip() + CUT]
