"""The line of `probe` that names the command which records a contract, where there was none to compare with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.parity.baselines import contract
from harness.parity.proofs.invariance import Subject

COMMAND = "python -m harness probe"

_NAME = re.compile(r"(?P<decoder>.+)/(?P<executor>\w+)/(?P<dtype>\w+)/T(?P<frames>\d+)/(?:max|pinned)\d+")
_AXES = ("decoder", "executor", "dtype", "frames")

Axes = dict[str, list[str]]
"""Values of each option that may be given several times."""


def advice(found: contract.Findings, subjects: Sequence[Subject], given: Mapping[str, Any]) -> str:
    """One line; empty where everything was compared with a contract of this machine.

    Args:
        found: what a probe found out.
        subjects: what it measured.
        given: options that the command line had, by name; those without a value count as not given.
    """
    if found.gated:
        return ""
    # A contract of another machine is replaced as a whole, so its subjects must be measured too.
    others = found.unmeasured if found.differs else ()
    axes = _axes(subjects, others)
    left = sorted(set(others) - {subject.name for subject in _measured(axes, subjects[0])}) if others else []
    return f"{_purpose(found, left)}: {_command(axes, _axes(subjects, ()), given)}"


def _purpose(found: contract.Findings, left: Sequence[str]) -> str:
    if found.differs:
        refused = f" (refused unless {', '.join(left)} {'is' if len(left) == 1 else 'are'} measured too)"
        return f"to record one of this machine in its place{refused if left else ''}"
    if not found.recorded:
        return "to record one"
    missing = sum(finding.standing is contract.Standing.MISSING for finding in found.findings)
    return f"{missing} of {len(found.findings)} subjects are not in it, to record them"


def _axes(subjects: Sequence[Subject], others: Sequence[str]) -> Axes:
    """Subjects to measure: the given ones, then those of `others` whose names tell the options.

    A file that was named is of one decoder and one kind, so nothing can be measured beside it.
    """
    alone = subjects[0].engine is not None
    told = [match.groupdict() for match in map(_NAME.fullmatch, others) if match and not alone]
    rows = [{axis: str(getattr(subject, axis)) for axis in _AXES} for subject in subjects]
    return {axis: list(dict.fromkeys(row[axis] for row in [*rows, *told])) for axis in _AXES}


def _measured(axes: Axes, like: Subject) -> list[Subject]:
    """Subjects that a probe with these options measures."""
    return contract.declared(
        axes["decoder"],
        axes["executor"],
        axes["dtype"],
        [int(each) for each in axes["frames"]],
        max_rows=like.max_rows,
        device=like.device,
        engine=like.engine,
    )


def _command(axes: Axes, asked: Axes, given: Mapping[str, Any]) -> str:
    """The command as it was given, with more values where more must be measured."""
    words = [COMMAND]
    for axis, values in axes.items():
        if axis in given or values != asked[axis]:
            words += [f"--{axis} {shlex.quote(value)}" for value in values]
    words += [f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in given.items() if name not in _AXES]
    return " ".join([*words, '--reason "..."'])
