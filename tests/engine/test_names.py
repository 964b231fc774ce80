"""Names of results: which names of a caller have the form of an automatic one, and which number comes after them."""

from __future__ import annotations

import pytest

from harness.engine import InvalidInput, names

AFTER = {
    "request-0": 1,
    "request-1": 2,
    "request-9": 10,
    "request-10": 11,
    "request-" + 18 * "9": 10**18,
    "request-1" + 17 * "0": 10**17 + 1,
}
OTHERS: list[str | int] = [
    *("", "request", "request-", "request--1", "request-+1", "request- 1", "request-1 ", " request-1", "request_1"),
    *(
        "request-00",
        "request-01",
        "request-1x",
        "request-1.0",
        "request-1_0",
        "request-1\n",
        "\nrequest-1",
        "Request-1",
    ),
    *("request-\u0661", "request-1\u0661", "request-\u00b2", "a request-1", "request-1request-2", "request1", "1"),
    *(0, 1, -1, 5, 2**70),
]


@pytest.mark.parametrize("name", AFTER)
def test_after_a_name_of_the_automatic_form_comes_the_next_number(name: str) -> None:
    assert names.beyond(name) == AFTER[name]


@pytest.mark.parametrize("name", OTHERS, ids=ascii)
def test_no_number_comes_after_a_name_of_another_form(name: str | int) -> None:
    assert names.beyond(name) == 0


@pytest.mark.parametrize("number", [0, 1, 9, 10, 99, 100, 123456789, 10**17 - 1, 10**18 - 1])
def test_after_an_automatic_name_comes_the_one_of_the_next_number(number: int) -> None:
    assert names.automatic(number) == f"request-{number}"
    assert names.beyond(names.automatic(number)) == number + 1


@pytest.mark.parametrize("digits", [19, 20, 111, 112, 5000])
def test_a_number_of_more_digits_than_18_is_refused_in_these_words(digits: int) -> None:
    name = "request-" + digits * "1"
    shown = f"'{name}'" if len(name) <= 118 else f"'{name}"[:117] + "..."
    with pytest.raises(InvalidInput) as refused:
        names.beyond(name)
    assert str(refused.value) == f"id: got {shown}, expected a number of at most 18 digits after `request-`"
    assert refused.value.field == "id"
