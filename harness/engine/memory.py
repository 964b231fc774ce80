"""Records of what a ring is still to find out about its requests; see `harness.engine.verdicts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.engine.finite import Look

Key = tuple[int, int]
"""A slot for its whole life: its place and the tick that admitted it."""


@dataclass(frozen=True)
class Who:
    """A slot before a tick, without its tensors: the request's name, the number of its step, and its admission."""

    id: str | int
    step: int
    admitted_at: int


@dataclass(frozen=True, eq=False)
class Asked:
    """A look at a run whose numbers are on their way.

    Attributes:
        tick: number of the tick of the run.
        look: the look.
        slots: the slots of the run before that tick, by place.
    """

    tick: int
    look: Look
    slots: Mapping[int, Who]


@dataclass(frozen=True, eq=False)
class Memory:
    """What is to be found out after a tick.

    Attributes:
        asked: looks that are not due yet.
        finished: slots that have handed out a latent, with the tick of their last step.
    """

    asked: tuple[Asked, ...] = ()
    finished: Mapping[Key, int] = field(default_factory=dict)
