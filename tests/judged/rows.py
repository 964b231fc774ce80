"""Tables of verdicts: the case that must give a verdict, and beside it the nearest case that must not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from harness.commands import exits

CODES = frozenset({exits.PASSED, exits.DIFFERS, exits.USAGE, exits.COULD_NOT_RUN})
"""Every exit code that any command may have; an interrupt's is claimed in tests/commands/test_endings.py."""


def nothing(*_: Any) -> None:
    """Leave everything as it is."""


@dataclass(frozen=True)
class Gives:
    """What a command says: its verdict, None where there is no report, and its exit code."""

    verdict: Any
    code: int


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cause: what is done, in words.
        act: does it; gets whatever the module's cases are made of.
        gives: what must be said of it.
        neighbour: the nearest thing that is not the cause, in words.
        near: does that.
        instead: what must be said of that.
    """

    cause: str
    act: Callable[..., Any]
    gives: Gives
    neighbour: str
    near: Callable[..., Any]
    instead: Gives

    def __post_init__(self) -> None:
        """A neighbour that gives the same is none."""
        assert self.gives != self.instead, self.cause


def both(rows: Sequence[Row]) -> pytest.MarkDecorator:
    """Run a test with each cause and with each neighbour, as `act` and `gives`."""
    cases = [pytest.param(row.act, row.gives, id=row.cause) for row in rows]
    cases += [pytest.param(row.near, row.instead, id=f"{row.cause}, beside it: {row.neighbour}") for row in rows]
    return pytest.mark.parametrize(("act", "gives"), cases)


def without_row(rows: Sequence[Row], verdicts: Iterable[Any], codes: Iterable[int] = CODES) -> set[Any]:
    """The verdicts and exit codes that no cause of a table gives."""
    given = {row.gives.verdict for row in rows} | {row.instead.verdict for row in rows}
    ended = {row.gives.code for row in rows} | {row.instead.code for row in rows}
    return (set(verdicts) - given) | (set(codes) - ended)
