"""Blessing that breaks off at any call of the operating system leaves captures that a check does not mistake."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.files import FileRefused
from harness.parity.baselines import store
from tests.parity.baselines.test_blessing import Checkout

CALLS = ("open", "fdopen", "fsync", "chmod", "replace", "unlink")
"""What writing a file asks of the operating system."""


class Breaks:
    """Raises at the call of a number, counted over all of `CALLS` about files of captures."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
        self.at, self.seen, self.error = 0, 0, error
        for name in CALLS:
            patch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.at:
                self.seen += 1
                if self.seen == self.at:
                    raise self.error()
            return call(*args, **kwargs)

        return counted


@pytest.fixture(name="made")
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "full": lambda: OSError(errno.ENOSPC, "full"),
    "interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_blessing_that_breaks_off_anywhere_is_seen_and_can_be_done_again(
    name: str, made: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, number, ended = Breaks(monkeypatch, ERRORS[name]), 0, False
    before = (made.folder / store.MANIFEST).read_bytes()
    while not ended:
        number += 1
        for each in ("alpha", "beta"):
            made.engine.latents[each] = made.engine.latents[each] + 1
        breaks.at, breaks.seen = number, 0
        # A file that cannot be opened for reading is refused by name.
        with suppress(type(ERRORS[name]()), FileRefused):
            made.bless()
            ended = breaks.seen < number
        breaks.at = 0
        after = (made.folder / store.MANIFEST).read_bytes()
        verdicts = dict(zip(("alpha", "beta"), made.verdicts(), strict=False))
        passing = [each for each, verdict in verdicts.items() if verdict == "exact"]
        # The old manifest knows none of the new bits, and the new one comes last: both or none.
        assert len(passing) == (0 if after == before else 2), (number, verdicts)
        for stray in made.folder.glob(".writing-*"):  # where it could not be removed either, check names it
            assert made.verdicts()[-1] == "orphan"
            stray.unlink()
        made.bless("again")
        assert made.verdicts() == ["exact", "exact"]
        before = (made.folder / store.MANIFEST).read_bytes()
    assert number > 15, "every file that is written asks six times"
