"""What a check did not compare: nothing is left out, and nothing is counted as another thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.parity.proofs.switches import EVERY
from harness.registry import ExecutorKind
from harness.report.open import NAMED, not_compared
from tests.report.made import captured, difference, document, evidence, switched


def said(words: str, of: list[str]) -> list[str]:
    return [line for line in of if words in line]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_every_scenario_that_was_not_compared_is_named_or_counted(more: int) -> None:
    names = [f"s{number}" for number in range(NAMED + more)]
    (line,) = said("not gated", not_compared(document(scenarios=[captured(each, "not_gated") for each in names]), []))
    listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more else "")
    assert line == f"{len(names)} scenarios not gated, nothing was played: {listed}"


def test_a_comparison_is_counted_once_and_a_verdict_about_every_scenario_is_none() -> None:
    switches = [
        switched("one"),
        switched("two", acted=False),
        switched("three", verdict="outside_profile", acted=False),
        switched("four", verdict="moved", acted=False),
        switched(EVERY, verdict="not_gated", acted=False),
    ]
    found = not_compared(document(switches=switches), [])
    assert said("did not act", found) == [
        "1 of 4 comparisons of a switch: the switch did not act, so equal bits prove nothing"
    ]
    assert said("outside", found) == ["1 comparisons of a switch: outside the profile of the compiled decoder"]


def test_evidence_that_shows_no_difference_is_told_of_however_long_it_is() -> None:
    shown = evidence()
    silent = [difference(shown=replace(shown, first=None)), difference(shown=replace(shown, first=None, ticks=()))]
    found = not_compared(document(), [*silent, difference(shown=shown)])
    assert said("no difference showed", found) == [
        "evidence of 2 verdicts: played again, no difference showed; it depends on more than the script"
    ]


@pytest.mark.parametrize(("engine", "compared"), [
    ({"decoder": None, "device": "cpu"}, True),
    ({"decoder": "tiny", "device": "cpu"}, False),
    ({"decoder": None, "device": "cuda"}, False),
])  # fmt: skip
def test_captures_that_a_compiled_decoder_was_not_held_to_are_named(engine: Any, compared: bool) -> None:
    found = not_compared(document(scenarios=[captured("one")], engine=engine), [])
    assert bool(said("captures: ", found)) is not compared


def test_a_part_that_could_not_run_is_told_with_its_reason_and_not_as_one_that_nobody_asked_for() -> None:
    found = not_compared(document(failed={"costs": "EngineError: gone"}), [])
    assert said("costs: ", found) == ["costs: could not run: EngineError: gone"]


def test_one_count_that_is_not_gated_and_one_field_of_another_gpu_are_told() -> None:
    costs = [{"rail": "r", "name": "n", "blessed": None, "now": 1, "verdict": "not_gated"}]
    where = {"name": "here", "fingerprint": {}, "elsewhere": ["driver"]}
    found = not_compared(document(costs=costs, platform=where), [])
    assert said("costs: ", found) == [
        "costs: 1 counts are not gated, because none are blessed for this version of torch"
    ]
    assert said("captures: they", found) == ["captures: they are of another GPU, which differs in driver"]


def test_every_kind_of_executor_without_a_comparison_and_each_decoder_with_one_is_named() -> None:
    switches = [switched("one"), switched("one", executor="static", decoder="tiny", dtype="bfloat16", device="cuda")]
    found = not_compared(document(switches=switches), [])
    missing = ", ".join(kind for kind in ExecutorKind if kind not in ("eager", "static"))
    assert said("executors of", found) == [f"switches on executors of the kinds {missing}: no comparison in this check"]
    assert said("any decoder", found) == [
        "switches with any decoder but affine in float32 on cpu, tiny in bfloat16 on cuda: no comparison in this check"
    ]
