"""A switch is read from the command line and checked by its record, and every field has one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from harness.engine import PLAIN_PATH, Integrator, Stats, Switches
from harness.engine.conditioning import CacheCounts
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


WITH = {
    "fused_cfg": [(Stats(decoder_runs=1), Stats(decoder_runs=2))],
    "cached_conditioning": [(Stats(conditioning=CacheCounts(hits=1)), Stats())],
    "integrator": [(Stats(euler_steps=1), Stats()), (Stats(euler_steps=1), Stats(euler_steps=1))],
    "host_gates": [(Stats(gates=1), Stats()), (Stats(gates=1), Stats(gates=1))],
    "joined_stream": [(Stats(joins=1), Stats()), (Stats(joins=1), Stats(joins=1))],
}
WITHOUT = {
    "fused_cfg": [(Stats(decoder_runs=2), Stats(decoder_runs=2)), (Stats(decoder_runs=2), Stats(decoder_runs=1))],
    "cached_conditioning": [
        (Stats(conditioning=CacheCounts(2, 1, 1)), Stats(conditioning=CacheCounts(2))),
        (Stats(conditioning=CacheCounts(0, 1, 1)), Stats()),
        (Stats(conditioning=CacheCounts(1, 2)), Stats(conditioning=CacheCounts(2, 1))),
    ],
    "integrator": [(Stats(), Stats(euler_steps=1))],
    "host_gates": [(Stats(), Stats(gates=1))],
    "joined_stream": [(Stats(), Stats(joins=1))],
}
EVERY_COUNT = Stats(*range(1, 14), CacheCounts(1, 2, 3))


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_acted_where_its_own_count_says_so_and_nowhere_else(name: str) -> None:
    acted = SWITCHES[name].acted
    assert [acted(*pair) for pair in WITH[name]] == [True] * len(WITH[name])
    assert [acted(*pair) for pair in WITHOUT[name]] == [False] * len(WITHOUT[name])
    assert not acted(Stats(), Stats())
    own = {"fused_cfg": "decoder_runs", "cached_conditioning": "conditioning", "integrator": "euler_steps"}
    own |= {"host_gates": "gates", "joined_stream": "joins"}
    nothing = {own[name]: getattr(Stats(), own[name])}
    assert not acted(replace(EVERY_COUNT, **nothing), replace(EVERY_COUNT, **nothing))
    assert not acted(replace(EVERY_COUNT, **nothing), Stats())


def test_every_switch_has_two_values_and_turning_one_leaves_the_others() -> None:
    for name, record in SWITCHES.items():
        assert record.plain != record.fast
        off, on = Switches().turned_off(name), PLAIN_PATH.turned_on(name)
        assert [other for other in SWITCHES if getattr(off, other) != getattr(Switches(), other)] == [name]
        assert [other for other in SWITCHES if getattr(on, other) != getattr(PLAIN_PATH, other)] == [name]
        assert type(getattr(on, name)) is type(record.plain)
