"""Guidance modes: sources of the negative velocity of a guided slot, one record a mode."""

from __future__ import annotations

from enum import StrEnum


class NegativeSource(StrEnum):
    """Source of a slot's negative velocity at one step.

    `rows`: negative rows that run in the tick. `kept`: the slot's copy of the negative velocity of step 0.
    `initial_noise`: the slot's initial noise.
    """

    ROWS = "rows"
    KEPT = "kept"
    INITIAL_NOISE = "initial_noise"


class GuidanceMode(StrEnum):
    """A guidance mode, with its record: the source at step 0 and the source at every later step.

    `full`: negative rows run at every step. `initialize`: negative rows run at step 0, and their velocity is kept for
    the later steps. `self`: the slot's initial noise is the negative velocity, and no negative row runs. The last two
    are the residual classifier-free guidance of StreamDiffusion (Kodaira et al. 2023, arXiv:2312.12491).

    Attributes:
        first: source of the negative velocity at step 0.
        later: source of the negative velocity at every later step.
    """

    first: NegativeSource
    later: NegativeSource

    FULL = "full"
    INITIALIZE = "initialize", NegativeSource.ROWS, NegativeSource.KEPT
    SELF = "self", NegativeSource.INITIAL_NOISE, NegativeSource.INITIAL_NOISE

    def __new__(
        cls, name: str, first: NegativeSource = NegativeSource.ROWS, later: NegativeSource = NegativeSource.ROWS
    ) -> GuidanceMode:
        """Make a member whose value is its name; the default sources run negative rows at every step."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.first, member.later = first, later
        return member

    def source_at(self, step: int) -> NegativeSource:
        """Return the source of the negative velocity at `step`, from 0."""
        return self.first if step == 0 else self.later

    @property
    def needs_negatives(self) -> bool:
        """Say whether negative rows run at some step, so that a request needs negative conditions."""
        return NegativeSource.ROWS in (self.first, self.later)

    @property
    def keeps_first(self) -> bool:
        """Say whether a slot keeps a copy of the negative velocity of step 0."""
        return NegativeSource.KEPT in (self.first, self.later)

    @property
    def keeps_initial_noise(self) -> bool:
        """Say whether a slot keeps its initial noise."""
        return NegativeSource.INITIAL_NOISE in (self.first, self.later)
