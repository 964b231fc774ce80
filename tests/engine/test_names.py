"""Which names are automatic ones, and where the next one begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.errors import InvalidInput
from harness.engine.names import DIGITS, automatic, beyond


@given(number=st.integers(0, 10**DIGITS - 1))
def test_the_next_number_is_one_beyond_a_name_of_the_automatic_form(number: int) -> None:
    assert automatic(number) == f"request-{number}"
    assert beyond(automatic(number)) == number + 1


@given(name=st.text())
def test_any_other_text_holds_no_number(name: str) -> None:
    ascii_digits = name.isascii() and name.isdigit() and str(int(name or "0")) == name
    if not ascii_digits:
        assert beyond(f"request-{name}") == 0
    assert beyond(name) == beyond(f" request-{name}") == beyond(f"Request-{name}") == 0


@pytest.mark.parametrize("text", ["\u0663", "1\u0663", "\uff11", "1\n", "01", "+1", "-1", "1_0", "1.0", "\u00b2"])
def test_a_number_in_any_other_form_is_a_caller_s_own(text: str) -> None:
    assert beyond(f"request-{text}") == 0


@pytest.mark.parametrize("name", [0, 1, 7, 2**70])
def test_a_number_is_no_automatic_name(name: int) -> None:
    assert beyond(name) == 0


def test_a_name_of_too_many_digits_is_refused_by_its_field() -> None:
    assert beyond("request-" + "9" * DIGITS) == 10**DIGITS
    with pytest.raises(InvalidInput, match="id: got .*, expected a number of at most 18 digits after `request-`"):
        beyond("request-" + "9" * (DIGITS + 1))
