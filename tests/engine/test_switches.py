"""A switch is read from the command line and checked by its record, and every field has one."""

from __future__ import annotations

from dataclasses import fields

import pytest

from harness.engine import PLAIN_PATH, Integrator, Switches
from harness.engine.errors import InvalidInput
from harness.engine.switches import SWITCHES, switch


@pytest.mark.parametrize("name", SWITCHES)
def test_on_is_the_fast_path_and_off_the_plain_one(name: str) -> None:
    record = SWITCHES[name]
    assert record.parsed("on") == record.fast == getattr(Switches(), name)
    assert record.parsed("off") == record.plain == getattr(PLAIN_PATH, name)
    assert Switches().turned_off(name).turned_on(name) == Switches()
    assert PLAIN_PATH.turned_on(name).turned_off(name) == PLAIN_PATH


def test_a_switch_with_an_enum_takes_its_members_too() -> None:
    assert SWITCHES["integrator"].parsed("per_slot") is Integrator.PER_SLOT
    with pytest.raises(InvalidInput, match="switches.integrator: got 'fast'"):
        SWITCHES["integrator"].parsed("fast")


@pytest.mark.parametrize("word", ["true", "per_slot", "", "ON"])
def test_another_word_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match=f"switches.fused_cfg: got '{word}'"):
        SWITCHES["fused_cfg"].parsed(word)


def test_every_field_has_its_record_and_acts_everywhere_unless_it_says_otherwise() -> None:
    assert list(SWITCHES) == [each.name for each in fields(Switches)]
    assert [name for name, record in SWITCHES.items() if record.needs_own_stream] == ["joined_stream"]
    made = switch(plain=False, fast=True, acted=lambda _on, _off: True)
    (record,) = made.metadata.values()
    assert record["needs_own_stream"] is False
