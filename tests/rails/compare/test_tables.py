"""What a person reads of a comparison: all of it, of figures that were made up."""

from __future__ import annotations

from dataclasses import replace

from rich.table import Table

from harness.rails.compare.revisions import Asked, Comparison, Draw, Outputs, Process
from harness.rails.compare.statistics import Judged, Ratio, Side, TimeVerdict
from harness.rails.compare.tables import calibrated, compared
from harness.rails.compare.worktrees import Revision
from tests.commands.test_tables import cells

TICK = Ratio(1.125, 1.0625, 1.25, 0.015, 0.02)
CONTROL = Ratio(1.001, 0.999, 1.002, 0.0035, 0.01)
RATIO = ["B/A", "95% interval", "noise floor"]
SAYS = "slower: B takes 1.125 of A's time, 1.062 to 1.250; 'same' means within 2.5%"


def process(ms: float, control: float) -> Process:
    """One whose ticks took from 0 to 100 times `ms`."""
    return Process(Side((1.0,) * 4, (control,) * 4), tuple(ms * number for number in range(101)), "aa")


def made(verdict: TimeVerdict = TimeVerdict.SLOWER) -> Comparison:
    judged = Judged(verdict, "", TICK, CONTROL, 0.025, 7, 8)
    draw = Draw(((process(1.0, 0.5), process(2.0, 0.25)),) * 2, judged)
    return Comparison(Revision("one"), Revision("two"), Asked(), Outputs(("x",), (), (), 3), (draw,))


def read(parts: object) -> list[object]:
    return [cells(part) if isinstance(part, Table) else part for part in parts]  # type: ignore[attr-defined]


OUTPUTS = ["outputs MOVED: x", "outputs of 3 scenarios are byte for byte the same"]


def test_a_comparison_is_its_outputs_its_sides_their_times_the_ratios_and_the_verdict() -> None:
    assert read(compared(made())) == [
        *OUTPUTS,
        "A: one",
        "B: two",
        [
            ["ms per tick", "p25", "median", "p95", "p99", "control"],
            ["A", "25.000", "50.000", "95.000", "99.000", "0.500"],
            ["B", "50.000", "100.000", "190.000", "198.000", "0.250"],
        ],
        [
            ["", "rounds", "quads matched", *RATIO],
            ["tick", "2", "7 of 8", "1.125", "1.062 to 1.250", "1.5%"],
            ["control", "", "", "1.001", "0.999 to 1.002", "0.4%"],
        ],
        SAYS,
    ]


def test_a_calibration_is_its_outputs_a_row_for_each_slowdown_and_the_smallest_that_was_caught() -> None:
    twice = replace(made(), draws=made().draws * 2)
    shown = ["1.125", "1.062 to 1.250", "1.5%"]
    assert read(calibrated({0.02: made(TimeVerdict.SAME), 0.03: twice})) == [
        *OUTPUTS,
        [
            ["slowdown", *RATIO, "draws", "verdict"],
            ["2%", *shown, "1", "same"],
            ["3%", *shown, "2", "slower"],
        ],
        "smallest slowdown that was detected on this machine today: 3%",
    ]
    assert read(calibrated({0.12: made(TimeVerdict.SAME)}))[-1] == (
        "no slowdown up to 12% was detected on this machine today"
    )
