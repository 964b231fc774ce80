"""Switches: the optimizations of a tick, each with a plain path beside it.

A switch is one field of `Switches`. The record of a switch holds the plain and the fast value, a function that tells
from `Stats` whether the switch acted, and the kind of executor that the switch needs. Checks, `PLAIN_PATH`, lockstep,
`check --switches`, the cost rails, `bench` and the property tests read the records: nothing else lists the switches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.engine import checks

if TYPE_CHECKING:
    from harness.engine.results import Stats

_RECORD = "switch"


class Integrator(StrEnum):
    """Integration of plain Euler slots: one by one, or all in two multi-tensor launches."""

    PER_SLOT = "per_slot"
    FOREACH = "foreach"


@dataclass(frozen=True)
class Switch:
    """The record of one switch.

    Attributes:
        name: the field of `Switches`.
        plain: the value of the plain path, False or a member of an enum.
        fast: the value that is on by default, of the same type as `plain`.
        acted: function that says whether the switch changed the work of one of two pipelines, of the `Stats` with the
            switch on and the `Stats` with the switch off. Without a change, equal results prove nothing.
        needs_own_stream: the switch acts only on an executor with a stream of its own.
    """

    name: str
    plain: bool | StrEnum
    fast: bool | StrEnum
    acted: Callable[[Stats, Stats], bool]
    needs_own_stream: bool = False

    def checked(self, value: object) -> bool | StrEnum:
        """Return `value` in the type of the record.

        Raises:
            InvalidInput: `value` is neither a flag nor, where the record has an enum, a member of it.
        """
        field_name = f"switches.{self.name}"
        if isinstance(self.plain, StrEnum):
            return checks.member(field_name, value, type(self.plain))
        return checks.flag(field_name, value)

    def parsed(self, word: str) -> bool | StrEnum:
        """Parse a value of the command line: `on`, `off` or, where the record has an enum, the name of a member.

        Raises:
            InvalidInput: another word.
        """
        named: dict[str, bool | StrEnum] = {"on": self.fast, "off": self.plain}
        return named[word] if word in named else self.checked(word)


def switch(*, plain: Any, fast: Any, acted: Callable[[Stats, Stats], bool], needs_own_stream: bool = False) -> Any:
    """Make a field of `Switches` with its record; see `Switch`."""
    record = {"plain": plain, "fast": fast, "acted": acted, "needs_own_stream": needs_own_stream}
    return field(default=fast, metadata={_RECORD: record})


@dataclass(frozen=True)
class Switches:
    """The optimizations of a tick. Each is on by default, off is the plain path, and both give the same bits.

    For `fused_cfg` the bits are the same only on an executor whose rows do not depend on the number of rows in a run.
    Pinned rows make every executor such a one.

    Attributes:
        fused_cfg: positive and negative rows run in one decoder run where they fit `max_rows`; off: in two passes.
        cached_conditioning: padded and stacked conditions are kept between ticks; off: rebuilt every tick.
        integrator: `"foreach"` integrates all plain Euler slots in two launches, and on a GPU guides all slots in one
            launch and corrects all in one; off, `"per_slot"`: one by one.
        host_gates: a neutrality check of a curve reads a fact that was recorded when the curve was made; off: the check
            reads the tensor.
        joined_stream: the current stream waits for an executor's own stream by an event; off: the host waits. Acts only
            on executors with a stream of their own.
    """

    fused_cfg: bool = switch(plain=False, fast=True, acted=lambda on, off: on.decoder_runs < off.decoder_runs)
    cached_conditioning: bool = switch(
        plain=False, fast=True, acted=lambda on, off: on.conditioning.hits > off.conditioning.hits
    )
    integrator: Integrator | str = switch(
        plain=Integrator.PER_SLOT, fast=Integrator.FOREACH, acted=lambda on, _off: on.euler_steps > 0
    )
    host_gates: bool = switch(plain=False, fast=True, acted=lambda on, _off: on.gates > 0)
    joined_stream: bool = switch(plain=False, fast=True, acted=lambda on, _off: on.joins > 0, needs_own_stream=True)

    def __post_init__(self) -> None:
        """Check every field."""
        for record in SWITCHES.values():
            object.__setattr__(self, record.name, record.checked(getattr(self, record.name)))

    def turned_on(self, name: str) -> Switches:
        """Return a copy with the switch `name` on."""
        changed: dict[str, Any] = {name: SWITCHES[name].fast}
        return replace(self, **changed)

    def turned_off(self, name: str) -> Switches:
        """Return a copy with the switch `name` off."""
        changed: dict[str, Any] = {name: SWITCHES[name].plain}
        return replace(self, **changed)


SWITCHES: Mapping[str, Switch] = {each.name: Switch(each.name, **each.metadata[_RECORD]) for each in fields(Switches)}
"""Every switch by name, in the order of the fields."""

_PLAIN: dict[str, Any] = {name: record.plain for name, record in SWITCHES.items()}
PLAIN_PATH = Switches(**_PLAIN)
"""Every switch off: the plain path."""
