"""The protocol of a streaming engine of any make, so that proofs cover its state, stages and random numbers.

An adapter of a few lines gives an engine this protocol; it needs no import of this package. `step` and `state` are
required, the rest is optional and each part adds to what a proof can say:

    class Adapter:
        def step(self, event): ...        # feed one event; return a tree of what it made
        def state(self): ...              # return a tree of all state that a later event reads
        def observe(self, callback): ...  # optional: report tensors by stage and slot
        def generators(self): ...         # optional: return generators that are not global
        ticks = 0                         # optional: number of ticks that the engine has completed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from harness.engine.errors import InvalidInput

Callback: TypeAlias = Callable[[str, "int | None", str, Tensor], Tensor]
"""Called with stage, slot, name and tensor; returns the tensor that the engine must go on with."""


@runtime_checkable
class Ring(Protocol):
    """A streaming engine, as the proofs drive it.

    A tree consists of mappings, sequences, dataclasses and None around tensors; see `harness.parity.trees`.
    """

    def step(self, event: Any, /) -> object:
        """Feed one event; return a tree of what the event made, or None.

        An event that can be called, such as `operator.methodcaller("tick")`, is called with the ring instead.
        """
        ...

    def state(self) -> object:
        """Return a tree of all state that a later event reads: latents, step numbers (as tensors), caches.

        The tree is copied after every event. It may share memory with the ring.
        """
        ...


@runtime_checkable
class Observable(Protocol):
    """A ring that reports what it computes on the way."""

    def observe(self, callback: Callback | None, /) -> None:
        """Call `callback(stage, slot, name, tensor)` for every tensor worth naming from now on; None stops that.

        Report stages in the order of computation, and of each the tensor that the ring goes on with. `slot` is a place
        of the ring, or None for what belongs to no slot.
        The callback returns the tensor to go on with. It is the reported tensor itself, unless the stage has a bound;
        see `harness.parity.proofs.bounds`. A ring whose stages have no bound may ignore it.
        """
        ...


@runtime_checkable
class Drawing(Protocol):
    """A ring that draws from generators other than the global ones of torch, NumPy and `random`."""

    def generators(self) -> Iterable[object]:
        """Return those generators: `torch.Generator`, `numpy.random.Generator`, `RandomState`, `random.Random`.

        The method is called once, before the first event.
        """
        ...


@dataclass(frozen=True)
class Side:
    """One of the engines that a proof compares.

    Attributes:
        number: 0 for the plain engine, 1 for the fast one.
        name: name of the side in messages.
        engine: the engine.
        ring: the engine if it has the protocol, else None: its state is then not compared.
    """

    number: int
    name: str
    engine: Any
    ring: Ring | None

    def call(self, event: object) -> object:
        """Feed one event; return what the engine returns."""
        if callable(event):
            return event(self.engine)
        return self.engine(event) if self.ring is None else self.ring.step(event)

    def ticks(self) -> int | None:
        """Number of ticks that the ring has completed; None where the engine does not count them.

        Raises:
            InvalidInput: the ring's `ticks` is no integer.
        """
        ticks = None if self.ring is None else getattr(self.ring, "ticks", None)
        if ticks is not None and (isinstance(ticks, bool) or not isinstance(ticks, int)):
            raise InvalidInput(f"ticks of {self.name}", repr(ticks), "the number of completed ticks, an int")
        return ticks

    def generators(self) -> list[object]:
        """Return the generators that the ring names."""
        return list(self.ring.generators()) if self.ring is not None and isinstance(self.ring, Drawing) else []

    def observable(self) -> bool:
        """Say whether the engine reports stages."""
        return self.ring is not None and isinstance(self.ring, Observable)

    def observe(self, callback: Callback | None) -> None:
        """Ask the ring to report stages, if it can."""
        if self.ring is not None and isinstance(self.ring, Observable):
            self.ring.observe(callback)


def is_ring(engine: object) -> bool:
    """Say whether an engine has `step` and `state`, both methods."""
    return not isinstance(engine, type) and all(callable(getattr(engine, name, None)) for name in ("step", "state"))


def sides(plain: object, fast: object) -> tuple[Side, Side]:
    """Return both engines as sides.

    Raises:
        InvalidInput: the engines are one object, or only one of them has the protocol, reports stages or counts ticks.
    """
    if plain is fast:
        raise InvalidInput("fast", "the same object as plain", "another object: nothing differs from itself")
    pair = (_side(0, "plain", plain), _side(1, "fast", fast))
    for asked, has in (
        ("the methods step and state", [side.ring is not None for side in pair]),
        ("the method observe", [side.observable() for side in pair]),
        ("the number ticks", [side.ticks() is not None for side in pair]),
    ):
        if has[0] != has[1]:
            with_it, without = ("plain", "fast") if has[0] else ("fast", "plain")
            raise InvalidInput(without, f"an engine without {asked}", f"an engine that has it, as {with_it} does")
    return pair


def alone(engine: object) -> Side:
    """Return one engine as a side."""
    return _side(0, "ring", engine)


def _side(number: int, name: str, engine: object) -> Side:
    return Side(number, name, engine, engine if isinstance(engine, Ring) and is_ring(engine) else None)
