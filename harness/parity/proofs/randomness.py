"""Random state of two engines that run in one process: each side draws the sequence that it would draw alone.

Two engines that both draw from one global generator take numbers from each other, so identical engines would differ.
`Isolation` therefore keeps the random state of each side apart, and the state of the code around both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.engine.errors import InvalidInput

GENERATORS = "torch.Generator, numpy.random.Generator, numpy.random.RandomState or random.Random"


@dataclass(frozen=True)
class Source:
    """One generator: functions that read and write its state, and the side that alone owns it.

    Attributes:
        read: returns a copy of the state; None where the generator does not exist yet.
        write: sets a state that `read` returned.
        owner: number of the only side that names this generator; None for a global or shared generator.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    owner: int | None = None


class Isolation:
    """Random state of several sides, kept apart.

    All sides start from the state of the generators when the object is made. Covered are the global generators of
    torch (CPU, and every CUDA device if CUDA is initialized), of NumPy (`numpy.random.seed`) and of `random`, and the
    generators that the sides name. A generator that one side alone names is that side's own: its state moves on with
    the side, and the other sides cannot change it.

    Args:
        named: the generators that each side names.
        on: False switches the isolation off; `turn` then does nothing.

    Raises:
        InvalidInput: a named object is no generator whose state can be read.
    """

    def __init__(self, named: Sequence[Sequence[object]], *, on: bool = True) -> None:
        owners: dict[int, tuple[object, set[int]]] = {}
        for side, generators in enumerate(named):
            for generator in generators:
                owners.setdefault(id(generator), (generator, set()))[1].add(side)
        of_sides = [_source(each, min(sides) if len(sides) == 1 else None) for each, sides in owners.values()]
        self._sources = [*_global_sources(), *of_sides] if on else []
        self._states = [[source.read() for source in self._sources] for _ in named]

    @contextmanager
    def turn(self, side: int) -> Iterator[None]:
        """Give the code inside a `with` block the random state of a side; afterwards restore the caller's state.

        Raises:
            InvalidInput: the block initialized CUDA, so the other side cannot start from the same state.
        """
        states = self._states[side]
        foreign = [(number, source) for number, source in enumerate(self._sources) if source.owner != side]
        before = [source.read() for _, source in foreign]
        for number, source in foreign:
            source.write(states[number])
        try:
            yield
        finally:
            for (number, source), callers in zip(foreign, before, strict=True):
                states[number] = source.read()
                source.write(callers)
        if any(states[number] is not None and old is None for (number, _), old in zip(foreign, before, strict=True)):
            raise InvalidInput("isolate", "an event that initialized CUDA", "torch.cuda.init() before the first event")


def sources(generators: Iterable[object]) -> list[Source]:
    """The global generators, as for `Isolation`, and then those that a ring names, in its order.

    Raises:
        InvalidInput: a named object is no generator whose state can be read.
    """
    return [*_global_sources(), *(_source(each, 0) for each in generators)]


def _global_sources() -> list[Source]:
    return [
        Source(torch.get_rng_state, torch.set_rng_state),
        Source(_cuda_states, _set_cuda_states),
        Source(lambda: np.random.get_state(legacy=False), np.random.set_state),
        Source(random.getstate, random.setstate),
    ]


def _cuda_states() -> list[torch.Tensor] | None:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def _set_cuda_states(states: list[torch.Tensor] | None) -> None:
    if states is not None:
        torch.cuda.set_rng_state_all(states)


def _source(generator: object, owner: int | None) -> Source:
    if isinstance(generator, torch.Generator):
        return Source(generator.get_state, generator.set_state, owner)
    if isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        return Source(lambda: bits.state, lambda state: setattr(bits, "state", state), owner)
    if isinstance(generator, np.random.RandomState):
        return Source(lambda: generator.get_state(legacy=False), generator.set_state, owner)
    if isinstance(generator, random.Random) and not isinstance(generator, random.SystemRandom):
        return Source(generator.getstate, generator.setstate, owner)
    raise InvalidInput("generators", type(generator).__name__, GENERATORS)
