"""The report of a check as a document."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.commands.check_report import CheckReport, summary_of
from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs.counts import Row
from harness.rails.costs.rails import CostReport
from harness.registry import ExecutorKind


def test_a_check_without_captures_tells_the_platform_with_the_one_thread_that_it_ran_with() -> None:
    torch.set_num_threads(2)
    document = CheckReport(None).document()
    assert document["platform"]["fingerprint"]["threads"] == "1"
    assert torch.get_num_threads() == 2


def switched(verdict: Verdict, *, acted: bool = True) -> SwitchResult:
    return SwitchResult("fused_cfg", "s", ExecutorKind.EAGER, "affine", "float32", "cpu", verdict, acted)


def test_verdicts_of_switches_are_counted_by_name_in_order_and_those_that_did_not_act_are_counted_too() -> None:
    results = [
        switched(Verdict.OUTSIDE_PROFILE, acted=False),
        switched(Verdict.MOVED),
        *[switched(Verdict.EXACT)] * 2,
        switched(Verdict.EXACT, acted=False),
        switched(Verdict.NOT_GATED, acted=False),
    ]
    counted = "3 exact, 1 moved, 1 not_gated, 1 outside_profile (in 3 the switch did not act)"
    assert summary_of(results) == f"6 comparisons of a switch on and off: {counted}"
    assert summary_of(results[1:2]) == "1 comparisons of a switch on and off: 1 moved (in 0 the switch did not act)"


OUTSIDE, IDLE = switched(Verdict.OUTSIDE_PROFILE, acted=False), switched(Verdict.EXACT, acted=False)


@pytest.mark.parametrize(("switches", "compared", "passes"), [
    ([], False, False),
    ([OUTSIDE], False, False),
    ([IDLE, OUTSIDE], False, False),
    ([IDLE, switched(Verdict.EXACT)], True, True),
    ([OUTSIDE, switched(Verdict.EXACT)], True, True),
    ([IDLE, switched(Verdict.NOT_GATED, acted=False)], True, False),
    ([switched(Verdict.EXACT), switched(Verdict.MOVED)], True, False),
    ([switched(Verdict.MOVED), switched(Verdict.EXACT)], True, False),
    ([switched(Verdict.EXACT), switched(Verdict.MOVED), switched(Verdict.EXACT)], True, False),
    ([switched(Verdict.MOVED, acted=False)], True, False),
])  # fmt: skip
def test_switches_pass_where_one_acted_and_none_differs(
    switches: list[SwitchResult], compared: bool, passes: bool
) -> None:
    found = CheckReport(None, tuple(switches))
    assert (found.compared, found.passes) == (compared, passes)


@pytest.mark.parametrize(("rows", "gated", "compared", "passes"), [
    ((), True, True, False),
    ((Row("a", "n", 1, 1),), True, True, True),
    ((Row("a", "n", 1, 1), Row("a", "m", 1, 2)), True, True, False),
    ((Row("a", "n", 1, 1),), False, False, False),
])  # fmt: skip
def test_costs_pass_where_they_are_gated_and_none_differs(
    rows: tuple[Row, ...], gated: bool, compared: bool, passes: bool
) -> None:
    costs = CostReport(rows, Path("costs.json"), "2.0.0", gated=gated)
    found = CheckReport(None, (), costs)
    assert (found.compared, found.passes) == (compared, passes)
    both = CheckReport(None, (switched(Verdict.EXACT),), costs)
    assert (both.compared, both.passes) == (True, passes or not gated)
    assert both.summary() == [costs.summary(), summary_of(both.switches)]
    document = both.document()
    assert document["costs"] == costs.document()
    assert document["summary"] == {
        "passes": both.passes,
        "verdicts": {"exact": 1},
        "text": f"{costs.summary()}; {summary_of(both.switches)}",
    }


def test_every_field_of_a_switch_s_result_is_in_the_document() -> None:
    result = SwitchResult("a", "b", ExecutorKind.STATIC, "c", "d", "e", Verdict.MOVED, True, "detail")
    assert CheckReport(None, (result,)).document()["switches"] == [
        {
            "switch": "a",
            "scenario": "b",
            "executor": "static",
            "decoder": "c",
            "dtype": "d",
            "device": "e",
            "verdict": "moved",
            "acted": True,
            "detail": "detail",
        }
    ]
