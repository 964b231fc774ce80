"""Named counts: made of counters, read by version of torch, and compared with the blessed ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.files.schema import Natural
from harness.parity.baselines import store
from harness.rails.costs.counters import HostReads, Operators

OPERATOR = "operator "
"""Prefix of an operator's name, in the name of its count."""

HOST_READS = "host_reads"
"""Name of the count of host reads."""

Counts = dict[str, int]


@dataclass(frozen=True)
class _CostsOfBlock:
    """A file of the blessed costs of one block of code: counts by version of torch and name."""

    torch: dict[str, dict[str, Natural]]
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One count of one rail: the blessed value and the present one; None where a side does not have the count."""

    rail: str
    name: str
    blessed: int | None
    now: int | None

    @property
    def same(self) -> bool:
        """Say whether the count equals the blessed count."""
        return self.blessed == self.now


def measured(operators: Operators, reads: HostReads) -> Counts:
    """Turn two counters into named counts: the sums, and one count for each operator."""
    return {
        HOST_READS: sum(reads.seen.values()),
        "allocations": operators.allocations,
        "copies": operators.copies,
        "operators": sum(operators.names.values()),
        **{f"{OPERATOR}{name}": number for name, number in sorted(operators.names.items())},
    }


def table(rail: str, blessed: Counts, now: Counts) -> list[Row]:
    """Make the rows of one rail: every count that either side has."""
    return [Row(rail, name, blessed.get(name), now.get(name)) for name in in_order(now, blessed)]


def by_version(file: Path) -> dict[str, Counts]:
    """Read a file of the blessed counts of one block of code, by version of torch.

    Raises:
        ManifestMissing: there is no such file.
        CapturesError: the file cannot be used.
    """
    return store.fitted(_CostsOfBlock, store.read_document(file), file).torch


def version() -> str:
    """Version of torch without its build, such as `2.13.0`."""
    return str(torch.__version__).split("+")[0]


def replacement(row: Row) -> str:
    """Text that would replace the blessed count in the file, for a change by hand instead of by `bless --costs`."""
    return "none, the count is gone" if row.now is None else f"{json.dumps(row.name)}: {row.now}"


def in_order(*names: Iterable[str]) -> Sequence[str]:
    """List every name once, in the order of the first occurrences."""
    return list(dict.fromkeys(name for each in names for name in each))
