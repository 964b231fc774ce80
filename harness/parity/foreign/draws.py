"""Random scripts of a ring's features: a pure function of a seed, or a strategy of Hypothesis."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.engine.errors import InvalidInput
from harness.parity.foreign.records import Cancel, Depth, Drain, Features, Live, Operation, Script, Submit, Tick

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Choose: TypeAlias = Callable[[int], int]
"""Function that returns an integer from 0 to `n - 1`; 0 is the simplest choice."""

SIZE = 28
"""Number of operations of a script, where none is asked for."""
RECENT = 6
"""A script cancels one of so many requests that it submitted last."""
TICKS = 2
"""Largest number of ticks of one operation."""


def script(features: Features, seed: int, size: int = SIZE) -> Script:
    """Draw a script; equal arguments draw equal scripts, on every machine.

    Args:
        features: what the script may use.
        seed: the seed.
        size: number of operations, at least 1.

    Raises:
        InvalidInput: no positive size.
    """
    if size < 1:
        raise InvalidInput("size", size, "a number of operations, at least 1")
    generator = random.Random(seed)
    return Script(_operations(features, lambda made: made < size, lambda n: int(generator.random() * n)), seed)


def strategy(features: Features, size: int = SIZE) -> SearchStrategy[Script]:
    """Return a strategy of scripts of up to `size` operations, which shrinks a failing one; it needs Hypothesis."""
    from hypothesis import strategies  # noqa: PLC0415 - the package is optional

    @strategies.composite
    def scripts(draw: Any) -> Script:
        def choose(n: int) -> int:
            return int(draw(strategies.integers(0, n - 1)))

        return Script(_operations(features, lambda made: made < size and choose(size) > 0, choose))

    return scripts()


def _operations(features: Features, more: Callable[[int], bool], choose: Choose) -> tuple[Operation, ...]:
    kinds = [*[_tick] * 5, *[_submit] * 6, _drain]
    kinds += [_live] * 3 if features.live else []
    kinds += [_cancel] * 2 if features.cancel else []
    kinds += [_depth] * 2 if len(features.depths) > 1 else []
    made: list[Operation] = []
    while more(len(made)):
        made.append(kinds[choose(len(kinds))](features, choose, made))
    return tuple(made)


def _submit(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    """A new request; or an earlier one again, as it was or with one other value, which caches tend to confuse."""
    earlier = [each for each in made if isinstance(each, Submit)]
    how = choose(4) if earlier else 0
    if how < 2:
        return Submit(len(earlier), {name: values[choose(len(values))] for name, values in features.request.items()})
    again = dict(earlier[-1 - choose(min(len(earlier), RECENT))].values)
    if how == 2:
        name = list(features.request)[choose(len(features.request))]
        again[name] = features.request[name][choose(len(features.request[name]))]
    return Submit(len(earlier), again)


def _tick(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    del features, made
    return Tick(1 + choose(TICKS))


def _drain(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    del features, choose, made
    return Drain()


def _live(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    del made
    control = list(features.live)[choose(len(features.live))]
    return Live(control, features.live[control][choose(len(features.live[control]))])


def _cancel(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    submitted = sum(isinstance(each, Submit) for each in made)
    if not submitted:
        return _submit(features, choose, made)
    return Cancel(submitted - 1 - choose(min(submitted, RECENT)))


def _depth(features: Features, choose: Choose, made: list[Operation]) -> Operation:
    del made
    return Depth(features.depths[choose(len(features.depths))])
