"""Rows of a tick, and the decoder runs that they are split into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.engine.request import Condition


@dataclass(frozen=True)
class Row:
    """One row of a decoder run.

    Attributes:
        index: the slot's place in the ring.
        number: the condition's number, from 0, among the slot's active conditions of the same sign.
        condition: the condition.
        negative: the condition is a negative one.
        t: time of the row.
    """

    index: int
    number: int
    condition: Condition
    negative: bool
    t: float

    @property
    def name(self) -> str:
        """Name of the row within its slot, such as `positive[0]`."""
        return f"{'negative' if self.negative else 'positive'}[{self.number}]"


def split_runs(
    positives: Sequence[Row], negatives: Sequence[Row], max_rows: int, *, fused: bool
) -> tuple[tuple[Row, ...], ...]:
    """Split the rows of a tick into decoder runs of at most `max_rows` rows.

    With `fused`, all rows are one run where they fit. Otherwise the positive rows run first and the negative rows
    after them, each group in as many runs as it needs.
    """
    if fused and len(positives) + len(negatives) <= max_rows:
        return (tuple([*positives, *negatives]),) if positives else ()
    return tuple(
        tuple(rows[start : start + max_rows])
        for rows in (positives, negatives)
        for start in range(0, len(rows), max_rows)
    )
