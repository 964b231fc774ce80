"""The record of a decoder's accelerations."""

from __future__ import annotations

import pytest

from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, PLAIN, BandForm, DecoderSwitches, FullForm
from harness.engine.errors import InvalidInput


def test_everything_is_off_unless_it_is_turned_on() -> None:
    assert DecoderSwitches() == PLAIN
    assert PLAIN.on == ()
    assert ALL.on == ACCELERATIONS
    assert len(ACCELERATIONS) == 6


@pytest.mark.parametrize("name", ACCELERATIONS)
def test_one_acceleration_is_turned_on_and_off_by_name(name: str) -> None:
    assert PLAIN.turned_on(name).on == (name,)
    assert set(ALL.turned_off(name).on) == set(ACCELERATIONS) - {name}
    assert PLAIN.turned_on(name).turned_off(name) == PLAIN


def test_a_form_is_named_by_its_word_and_no_acceleration() -> None:
    assert DecoderSwitches(band="flex", full="flash") == DecoderSwitches(band=BandForm.FLEX, full=FullForm.FLASH)
    assert DecoderSwitches(band="flex").on == ()


@pytest.mark.parametrize("wrong", [{"fused_norms": 1}, {"band": "dense"}, {"full": True}, {"norms": "plain"}])
def test_another_value_is_refused_by_the_name_of_its_field(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=f"switches.{next(iter(wrong))}"):
        DecoderSwitches(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["band", "nothing"])
def test_a_name_that_is_no_acceleration_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="switches"):
        PLAIN.turned_on(name)


@pytest.mark.parametrize("name", ACCELERATIONS)
def test_a_field_is_set_from_a_text(name: str) -> None:
    assert PLAIN.assigned(name, "on") == PLAIN.turned_on(name)
    assert ALL.assigned(name, "off") == ALL.turned_off(name)


def test_a_form_and_all_accelerations_are_set_from_a_text() -> None:
    assert PLAIN.assigned("band", "flex").band is BandForm.FLEX
    assert PLAIN.assigned("all", "on") == ALL
    assert PLAIN.assigned("full", "cudnn").assigned("all", "on").assigned("all", "off").full is FullForm.CUDNN


@pytest.mark.parametrize(("name", "value"), [("nothing", "on"), ("kept_time", "On"), ("all", ""), ("band", "on")])
def test_another_text_is_refused_and_the_message_says_what_is_expected(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="switches.*expected"):
        PLAIN.assigned(name, value)
