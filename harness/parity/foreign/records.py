"""Records of scripts for a ring of any make: what the ring can do, the operations, and the adapter that maps them.

Operations are plain values, and the `repr` of a script is Python that makes the script again:

    from harness.parity.foreign.records import *
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from harness.engine.errors import InvalidInput

__all__ = ["Cancel", "Depth", "Drain", "Features", "Live", "Operation", "Script", "Scripted", "Submit", "Tick"]

Value: TypeAlias = Any
"""None, a bool, a number, a string, or a tuple of these: a value that its `repr` makes again."""


@dataclass(frozen=True)
class Features:
    """Features of a ring: what scripts may ask of it.

    Of each list of values the first is the simplest: a script that fails is shrunk toward it.

    Attributes:
        request: features of a request by name, such as `{"prompt": ("rain", "fog"), "guidance": (None, 2.5)}`. Every
            request of a script has one value of each. A seed and a length are features like others.
        live: live controls by name, each with the values that a script sets; the first is in force at the start.
        depths: depths that the ring takes while it runs, the first one at the start; empty where depth is fixed.
        cancel: the ring can drop a request that waits or is in flight.
        drops: the ring may drop requests by itself, such as those that wait when the depth changes.
        in_order: requests enter the ring in the order in which they were submitted.

    Raises:
        InvalidInput: a feature without values, equal values, a value that its `repr` does not make again, or a depth
            that is no positive integer.
    """

    request: Mapping[str, Sequence[Value]]
    live: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    depths: Sequence[int] = ()
    cancel: bool = False
    drops: bool = False
    in_order: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.request:
            raise InvalidInput("request", "no feature", "at least one, such as the prompts that a script submits")
        for name, values in {**self.request, **self.live}.items():
            _check_values(name, values)
        if any(isinstance(depth, bool) or not isinstance(depth, int) or depth < 1 for depth in self.depths):
            raise InvalidInput("depths", repr(self.depths), "positive integers")
        if len(set(self.depths)) != len(self.depths):
            raise InvalidInput("depths", repr(self.depths), "different depths")


@dataclass(frozen=True)
class Submit:
    """A submission.

    Attributes:
        number: number of the request in its script, from 0 in the order of submission.
        values: value of each feature of the request.
    """

    number: int
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Tick:
    """Ticks, `count` of them; an adapter gets one tick at a time."""

    count: int = 1


@dataclass(frozen=True)
class Drain:
    """Ticks until no request waits or is in flight; an adapter gets single ticks."""


@dataclass(frozen=True)
class Live:
    """A change of a live control, in force from the next tick on."""

    control: str
    value: Value


@dataclass(frozen=True)
class Cancel:
    """A drop of a request, which may wait, be in flight, or have ended; the last must change nothing."""

    number: int


@dataclass(frozen=True)
class Depth:
    """A change of the depth."""

    depth: int


Operation: TypeAlias = Submit | Tick | Drain | Live | Cancel | Depth
"""One operation of a script."""


@dataclass(frozen=True)
class Script:
    """Operations, in order.

    Attributes:
        operations: the operations. A script always ends as if a `Drain` followed.
        seed: the seed that drew the script; None for a script written by hand.
    """

    operations: tuple[Operation, ...] = ()
    seed: int | None = None

    def __str__(self) -> str:
        """The script as Python, one operation a line."""
        lines = "".join(f"    {operation!r},\n" for operation in self.operations)
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"Script((\n{lines}){seed})"

    def submits(self) -> Iterator[Submit]:
        """Yield the submissions."""
        return (operation for operation in self.operations if isinstance(operation, Submit))


@runtime_checkable
class Scripted(Protocol):
    """An adapter whose ring takes scripts. It has the methods of `harness.parity.proofs.ring.Ring` too.

    The optional method `reference(submit, controls)` returns the tree that a request must end with, however it is made,
    or None where nobody knows; `controls` has for each of the request's ticks the values of the live controls.
    """

    def features(self) -> Features:
        """Return the features of the ring; the same for every adapter of one ring."""
        ...

    def event(self, operation: Any, /) -> object:
        """Return the adapter's event for a `Submit`, a `Tick()`, a `Live`, a `Cancel` or a `Depth`.

        The event depends on the operation alone: it is given to other adapters of the ring too.
        """
        ...

    def flying(self) -> Mapping[int, int]:
        """Return the requests in the ring now: the number of each, by slot."""
        ...

    def waiting(self) -> Sequence[int]:
        """Return the numbers of the requests in the queue."""
        ...

    def finished(self, output: Any, /) -> Mapping[int, object]:
        """Return the requests that ended in the event that returned `output`: the tree of each, by number."""
        ...


METHODS = ("step", "state", "features", "event", "flying", "waiting", "finished")


def scripted(ring: object) -> Any:
    """Return the ring.

    Raises:
        InvalidInput: a method that scripts need is missing.
    """
    missing = [name for name in METHODS if not callable(getattr(ring, name, None))]
    if missing:
        known = "the methods of harness.parity.foreign.records.Scripted"
        raise InvalidInput("the adapter", f"{type(ring).__name__} without {', '.join(missing)}", known)
    return ring


def _check_values(name: str, values: Sequence[Value]) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InvalidInput(name, repr(values), "a tuple of values, the simplest first")
    if len({repr(value) for value in values}) != len(values):
        raise InvalidInput(name, repr(values), "different values")
    for value in values:
        try:
            again = ast.literal_eval(repr(value))
        except (ValueError, SyntaxError):
            again = ...
        if again != value or type(again) is not type(value):
            raise InvalidInput(name, repr(value), "None, a bool, a finite number, a string, or a tuple of these")
