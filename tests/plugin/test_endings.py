"""How a test ends that passed by itself: the hook is called as pytest calls it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.plugin import hooks
from harness.plugin.ledger import LEDGER, NOTES, Ledger, Notes


def ended(*, failed: bool = False, **notes: list[str]) -> pytest.fail.Exception:
    """How a test fails that passed by itself, with these notes."""
    stash = pytest.Stash()
    stash[LEDGER], stash[NOTES] = Ledger(), Notes(**notes)
    if failed:
        stash[LEDGER].failed.append("a")
    item: Any = SimpleNamespace(nodeid="a", stash=stash, config=SimpleNamespace(stash=stash))
    with pytest.raises(pytest.fail.Exception) as raised:
        call = hooks.pytest_runtest_call(item)
        next(call)
        call.send(None)
    return raised.value


def test_a_test_that_blessed_fails_in_one_line_that_names_each_thing_once() -> None:
    error = ended(blessed=["one", "two", "one"], not_gated=["no rail"])
    assert (error.msg, error.pytrace) == ("blessed: run again without --harness-bless (one, two)", False)


def test_a_second_try_of_a_test_that_failed_fails_in_one_line() -> None:
    error = ended(failed=True)
    words = "the test failed before in this run: a pass of a second try proves nothing"
    assert (error.msg, error.pytrace) == (words, False)
