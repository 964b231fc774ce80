"""A deterministic shrinker of scripts: operations are dropped, then values made simple, in a bounded number of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.parity.foreign.records import Cancel, Features, Live, Operation, Script, Submit, Tick

Fails = Callable[[Script], bool]
"""Function that plays a script and says whether it fails in the same way."""


def shrink(script: Script, features: Features, fails: Fails, runs: int) -> tuple[Script, int]:
    """Return a small script that fails as the given one does, and the number of scripts that were played.

    Args:
        script: a script that fails.
        features: the features of the ring; the first value of each is the simplest.
        fails: plays a script.
        runs: largest number of scripts to play; 0 leaves the script as it is.
    """
    played = 0
    best = script
    again = True
    while again:
        again = False
        for smaller in _smaller(best, features):
            if repr(smaller) == repr(best):
                continue
            if played >= runs:
                return best, played
            played += 1
            if fails(smaller):
                best, again = smaller, True
                break
    return best, played


def _smaller(script: Script, features: Features) -> Iterator[Script]:
    """Scripts that are simpler by one change, the largest changes first."""
    made = script.operations
    size = len(made) // 2
    while size:
        for start in range(0, len(made), size):
            yield _joined(script, [*made[:start], *made[start + size :]])
        size //= 2
    for name, values in features.request.items():
        yield replace(script, operations=tuple(_with(operation, name, values[0]) for operation in made))
    for at, operation in enumerate(made):
        for simple in _simpler(operation, features):
            yield replace(script, operations=(*made[:at], simple, *made[at + 1 :]))


def _joined(script: Script, operations: list[Operation]) -> Script:
    """The script with these operations, without those of requests that it does not submit."""
    submitted = {each.number for each in operations if isinstance(each, Submit)}
    kept = [each for each in operations if not isinstance(each, Cancel) or each.number in submitted]
    return replace(script, operations=tuple(kept))


def _with(operation: Operation, name: str, value: object) -> Operation:
    """The operation, with this value of a feature if it is a submission."""
    if not isinstance(operation, Submit):
        return operation
    return replace(operation, values={**operation.values, name: value})


def _simpler(operation: Operation, features: Features) -> Iterator[Operation]:
    if isinstance(operation, Tick) and operation.count > 1:
        yield Tick(operation.count - 1)
    if isinstance(operation, Submit):
        simplest = {name: features.request[name][0] for name in operation.values}
        if repr(simplest) != repr(dict(operation.values)):
            yield replace(operation, values=simplest)
        for name, value in operation.values.items():
            earlier = features.request[name]
            for simple in earlier[: _position(earlier, value)]:
                yield replace(operation, values={**operation.values, name: simple})
    if isinstance(operation, Live):
        values = features.live[operation.control]
        yield from (replace(operation, value=simple) for simple in values[: _position(values, operation.value)])


def _position(values: Iterable[object], value: object) -> int:
    return [repr(each) for each in values].index(repr(value))
