"""The verdict matrix: the worst verdict over the decoders is the one that is shown."""

from __future__ import annotations

from typing import Any

import pytest

from harness.parity.baselines.verdicts import Verdict
from harness.report.matrix import GLYPHS, Cell, matrix
from tests.report.made import captured, document, switched


def cell(*results: Any) -> Cell | None:
    ((_, (found,)),) = matrix(document(switches=list(results)), {}).rows
    return found


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.EXACT])
@pytest.mark.parametrize("acted", [True, False])
def test_a_verdict_beside_an_exact_one_is_shown_whether_its_switch_acted_or_not(verdict: Verdict, acted: bool) -> None:
    other = switched("one", verdict=verdict, decoder="tiny", acted=acted)
    wanted = Cell(verdict, GLYPHS[verdict])
    assert cell(switched("one"), other) == cell(other, switched("one")) == wanted


def test_a_switch_acted_where_it_acted_with_one_decoder() -> None:
    idle = switched("one", decoder="tiny", acted=False)
    assert cell(idle) == Cell("idle", "·")
    assert cell(switched("one"), idle) == cell(idle, switched("one")) == Cell("exact", "✓")


def test_every_verdict_that_fails_has_the_same_mark_and_no_other_one_has_it() -> None:
    assert {each for each in Verdict if GLYPHS[each] == "✗"} == {
        Verdict.MOVED, Verdict.DIGEST_DIFFERS, Verdict.MISSING, Verdict.ORPHAN, Verdict.CORRUPT,
    }  # fmt: skip


def test_a_cell_stands_in_the_row_of_its_scenario_and_the_column_of_its_switch_and_executor() -> None:
    results = [switched("one", "a", "eager"), switched("two", "a", "static", "moved"), switched("one", "b", "eager")]
    made = matrix(document(scenarios=[captured("two", "corrupt")], switches=results), {("two", "a/static"): "d7"})
    assert made.groups == (("captures", 1), ("a", 2), ("b", 1))
    assert made.columns == ("", "eager", "static", "eager")
    exact, none = Cell("exact", "✓"), None
    assert dict(made.rows) == {
        "two": (Cell("corrupt", "✗"), none, Cell("moved", "✗", "d7"), none),
        "one": (none, exact, none, exact),
    }
