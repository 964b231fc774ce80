"""Guidance modes: where the negative velocity of a guided slot comes from, one record a mode."""

from __future__ import annotations

from enum import StrEnum


class NegativeSource(StrEnum):
    """Where a slot takes its negative velocity from at one step.

    `rows`: negative rows run in this tick. `kept`: the velocity of step 0, of which the slot has a copy.
    `initial_noise`: the slot's initial noise.
    """

    ROWS = "rows"
    KEPT = "kept"
    INITIAL_NOISE = "initial_noise"


class GuidanceMode(StrEnum):
    """A guidance mode, with its record: the source at step 0 and the source at every later step.

    `full`: a negative row at every step. `initialize`: a negative row at step 0, its velocity kept for the later
    steps. `self`: the slot's initial noise stands in and no negative row runs (residual classifier-free guidance of
    StreamDiffusion, Kodaira et al. 2023, arXiv:2312.12491).

    Attributes:
        first: source at step 0.
        later: source at every later step.
    """

    first: NegativeSource
    later: NegativeSource

    FULL = "full"
    INITIALIZE = "initialize", NegativeSource.ROWS, NegativeSource.KEPT
    SELF = "self", NegativeSource.INITIAL_NOISE, NegativeSource.INITIAL_NOISE

    def __new__(
        cls, name: str, first: NegativeSource = NegativeSource.ROWS, later: NegativeSource = NegativeSource.ROWS
    ) -> GuidanceMode:
        """A member whose value is its name; without sources it runs a negative row at every step."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.first, member.later = first, later
        return member

    def source_at(self, step: int) -> NegativeSource:
        """The source at `step`, from 0."""
        return self.first if step == 0 else self.later

    @property
    def needs_negatives(self) -> bool:
        """Negative rows run at some step, so a request has to bring negative conditions."""
        return NegativeSource.ROWS in (self.first, self.later)

    @property
    def keeps_first(self) -> bool:
        """A slot keeps a copy of the negative velocity of step 0."""
        return NegativeSource.KEPT in (self.first, self.later)

    @property
    def keeps_initial_noise(self) -> bool:
        """A slot keeps its initial noise."""
        return NegativeSource.INITIAL_NOISE in (self.first, self.later)
