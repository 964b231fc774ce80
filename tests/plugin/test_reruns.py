"""Tests that are tried again: the first try is what counts, and its words are printed."""

from __future__ import annotations

import pytest

from tests.plugin.test_plugin import AGAIN, BLESSED, RAIL, Outside, _imported, _outside, green, red

__all__ = ["_imported", "_outside"]
pytestmark = pytest.mark.no_cover

BEFORE = "the test failed before in this run: a pass of a second try proves nothing"


@pytest.fixture(name="again")
def _again(outside: Outside) -> Outside:
    """A project whose tests are tried twice, and of which the last try alone is reported."""
    outside.write("conftest.py", AGAIN)
    return outside


def test_the_difference_of_the_first_try_is_printed_where_the_second_one_would_pass(again: Outside) -> None:
    again.bless(BLESSED + RAIL)
    again.tests("tries = iter([1, 0])\ndef test_tree(blessed): blessed('tree', Ring(0.5 + next(tries)).tick)\n" + RAIL)
    printed = red(again.run(), BEFORE, "slots[0]/x: bytes differ in 4 of 4 elements", failed=1, passed=1)
    assert "The first try, in its call: " in printed and "if that is meant: pytest --harness-bless" in printed


def test_a_difference_of_two_engines_and_of_costs_is_printed_too(again: Outside) -> None:
    again.bless(RAIL)
    again.tests("""
        tries, more = iter([1, 0]), iter([1, 0])
        def test_lockstep(lockstep): lockstep(Ring(), Ring(0.5 + next(tries)), [1.0])
        def test_rail(cost_rail):
            ring = Ring()
            with cost_rail("tick"):
                ring.tick()
                for _ in range(next(more)): ring.x.clone()
    """)
    red(again.run(), "plain and fast differ at event 0, 1.0:", "aten::clone: blessed None, now 1", failed=2)


@pytest.mark.parametrize("fixtures", ["late, blessed", "blessed, late", "late, lockstep"])
def test_an_error_in_the_set_up_is_printed_and_not_forgotten(again: Outside, fixtures: str) -> None:
    again.tests(f"""
        import pytest
        tries = iter([1, 0])

        @pytest.fixture
        def late():
            if next(tries):
                raise KeyError("the checkpoint is not there yet")

        def test_tree({fixtures}): pass
    """)
    red(again.run(), BEFORE, "The first try, in its setup: ", "the checkpoint is not there yet")


def test_a_test_whose_set_up_is_skipped_has_not_failed(again: Outside) -> None:
    again.tests("""
        import pytest
        @pytest.fixture
        def late(): pytest.skip("no such device")
        def test_tree(late, blessed): pass
    """)
    green(again.run("-k", "tree"), skipped=1)


def test_the_words_are_those_of_the_first_of_three_tries(again: Outside) -> None:
    again.edit("conftest.py", "(False, True)", "(False, False, True)")
    again.tests("tries = iter([1, 2, 0])\ndef test_tree(blessed): assert next(tries) == 0, 'the first of all'")
    printed = red(again.run("-k", "tree"), "The first try, in its call: AssertionError: the first of all")
    assert printed.count("The first try") == 1


def test_a_test_without_the_fixtures_may_be_tried_again(again: Outside) -> None:
    again.tests("tries = iter([1, 0])\ndef test_tree(): assert next(tries) == 0")
    green(again.run("-k", "tree"))
