from __future__ import annotations

import math
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from harness.engine import InvalidInput, checks
from harness.engine.guidance_modes import GuidanceMode


@pytest.mark.parametrize(("length", "described"), [(119, "x" * 119), (120, "x" * 120), (121, "x" * 117 + "...")])
def test_a_long_value_is_cut_to_120_characters(length: int, described: str) -> None:
    class Given:
        def __repr__(self) -> str:
            return "x" * length

    assert checks.describe(Given()) == described


def test_a_tensor_is_described_without_its_values() -> None:
    described = checks.describe(torch.zeros(2, 3, dtype=torch.float16))
    assert described == "torch.float16 tensor of shape [2, 3] on cpu"


def with_bad(*places: tuple[int, ...], value: float = math.nan) -> torch.Tensor:
    made = torch.ones(2, 3, 2, dtype=torch.float64)
    for place in places:
        made[place] = value
    return made


SHAPED = "a finite floating point tensor of shape [2, T, 2]"
ONES = "torch.float32 tensor of shape"
WORDS: list[tuple[Callable[[], Any], str]] = [
    (lambda: checks.integer("f", 1, 2), "f: got 1, expected an integer >= 2"),
    (lambda: checks.integer("f", 4, 2, 3), "f: got 4, expected an integer from 2 to 3"),
    (lambda: checks.integer("f", 1, 2, 3), "f: got 1, expected an integer from 2 to 3"),
    (lambda: checks.integer("f", 2.0, 2), "f: got 2.0, expected an integer >= 2"),
    (lambda: checks.integer("f", True, 0), "f: got True, expected an integer >= 0"),
    (lambda: checks.integer("f", "2", -2), "f: got '2', expected an integer >= -2"),
    (lambda: checks.number("f", math.nan), "f: got nan, expected a finite number"),
    (lambda: checks.number("f", -math.inf, low=-1.0), "f: got -inf, expected a finite number >= -1.0"),
    (lambda: checks.number("f", 2, high=1.5), "f: got 2, expected a finite number <= 1.5"),
    (lambda: checks.number("f", -0.5, 0.0, 1.0), "f: got -0.5, expected a finite number >= 0.0 and <= 1.0"),
    (lambda: checks.number("f", False, 0, 1), "f: got False, expected a finite number >= 0 and <= 1"),
    (lambda: checks.number("f", None), "f: got None, expected a finite number"),
    (lambda: checks.number("f", 2**1024), f"f: got {str(2**1024)[:117]}..., expected a finite number"),
    (
        lambda: checks.member("f", "half", GuidanceMode),
        "f: got 'half', expected one of 'full', 'initialize', 'self'",
    ),
    (lambda: checks.member("f", None, GuidanceMode), "f: got None, expected one of 'full', 'initialize', 'self'"),
    (lambda: checks.flag("f", 1), "f: got 1, expected True or False"),
    (lambda: checks.flag("f", None), "f: got None, expected True or False"),
    (lambda: checks.instance("f", 1, str, "a word"), "f: got 1, expected a word"),
    (lambda: checks.instance("f", torch.ones(2), str, "a word"), f"f: got {ONES} [2] on cpu, expected a word"),
    (lambda: checks.tensor("f", 1.0, (2, "T", 2)), f"f: got 1.0, expected {SHAPED}"),
    (lambda: checks.tensor("f", torch.ones(2, 3), (2, "T", 2)), f"f: got {ONES} [2, 3] on cpu, expected {SHAPED}"),
    (
        lambda: checks.tensor("f", torch.ones(2, 0, 2), (2, "T", 2)),
        f"f: got {ONES} [2, 0, 2] on cpu, expected {SHAPED}",
    ),
    (
        lambda: checks.tensor("f", torch.ones(2, 5, 3), (2, "T", 2)),
        f"f: got {ONES} [2, 5, 3] on cpu, expected {SHAPED}",
    ),
    (
        lambda: checks.tensor("f", torch.ones(2, 1, 2, dtype=torch.complex64), (2, "T", 2)),
        f"f: got torch.complex64 tensor of shape [2, 1, 2] on cpu, expected {SHAPED}",
    ),
    (
        lambda: checks.tensor("f", torch.ones(2, 1, 2).bool(), (2, "T", 2)),
        f"f: got torch.bool tensor of shape [2, 1, 2] on cpu, expected {SHAPED}",
    ),
    (
        lambda: checks.tensor("f", with_bad((1, 2, 0)), (2, "T", 2)),
        "f: got nan at (1, 2, 0), 1 such values, expected values that are finite in float32",
    ),
    (
        lambda: checks.finite("f", with_bad((0, 2, 1), (1, 0, 0), (0, 2, 0), value=-1e39)),
        "f: got -1e+39 at (0, 2, 0), 3 such values, expected values that are finite in float32",
    ),
    (
        lambda: checks.finite("f", torch.tensor(math.inf)),
        "f: got inf at (), 1 such values, expected values that are finite in float32",
    ),
    (
        lambda: checks.finite("f", torch.ones(1, device="meta")),
        "f: got torch.float32 tensor of shape [1] on meta, expected a tensor with values, not one on the meta device",
    ),
    (
        lambda: checks.same_device("f", torch.ones(1), torch.device("meta")),
        "f: got a tensor on cpu, expected a tensor on meta, like the others",
    ),
]


@pytest.mark.parametrize(("call", "words"), WORDS, ids=range(len(WORDS)))
def test_a_refusal_says_the_field_what_it_got_and_what_was_expected(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        call()
    assert (str(refused.value), refused.value.field) == (words, "f")


def test_what_is_let_pass_is_handed_back() -> None:
    made = torch.full((2, 3, 2), torch.finfo(torch.float16).max, dtype=torch.float16)
    assert checks.tensor("f", made, (2, "T", 2)) is made
    assert checks.shaped("f", with_bad((0, 0, 0)), ("a", "b", "c")).shape == (2, 3, 2)
    edges: list[tuple[Any, Any]] = [
        (checks.integer("f", 2, 2, 2), 2),
        (checks.integer("f", 2**70, 0), 2**70),
        (checks.number("f", 1, 1, 1), 1.0),
        (checks.number("f", -1e308), -1e308),
        (checks.member("f", "self", GuidanceMode), GuidanceMode.SELF),
        (checks.flag("f", False), False),
    ]
    assert [(type(got), got) for got, _ in edges] == [(type(wanted), wanted) for _, wanted in edges]


NUMBERLIKE: list[Any] = [
    np.float32(1),
    np.int64(1),
    Fraction(1),
    Decimal(1),
    np.bool_(True),
    torch.tensor(1),
    "1",
    b"1",
]


@pytest.mark.parametrize("value", NUMBERLIKE, ids=lambda value: type(value).__name__)
def test_what_only_looks_like_a_number_is_none(value: Any) -> None:
    for check in (checks.number, lambda field, value: checks.integer(field, value, 0), checks.flag):
        with pytest.raises(InvalidInput, match="^f: got "):
            check("f", value)


@pytest.mark.parametrize("name", ["FULL", "Full", " full", "full ", "", "ful", "GuidanceMode.FULL", 0, [], {}, b"full"])
def test_a_choice_is_named_by_its_very_value(name: Any) -> None:
    with pytest.raises(InvalidInput, match=r"expected one of 'full', 'initialize', 'self'$"):
        checks.member("f", name, GuidanceMode)


def test_numbers_end_where_floats_end() -> None:
    most = int(sys.float_info.max)
    assert (checks.number("f", most), checks.number("f", -most)) == (sys.float_info.max, -sys.float_info.max)
    for value in (most + 1, -most - 1, 10**400, -(10**400)):
        with pytest.raises(InvalidInput, match="expected a finite number$"):
            checks.number("f", value)
    assert math.copysign(1.0, checks.number("f", -0.0, 0.0)) == -1.0
    assert type(checks.number("f", np.float64(0.5))) is float


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_found_at_every_place_in_every_layout(dtype: torch.dtype, value: float) -> None:
    for place in range(6):
        made = torch.zeros(1, 3, 2, dtype=dtype)
        made.view(-1)[place] = value
        at = (0, place // 2, place % 2)
        for given in (made, made.transpose(1, 2).contiguous().transpose(1, 2), made.clone().requires_grad_()):
            with pytest.raises(InvalidInput) as refused:
                checks.tensor("f", given, (1, "T", 2))
            assert (
                str(refused.value)
                == f"f: got {value} at {at}, 1 such values, expected values that are finite in float32"
            )


def test_a_whole_number_is_held_to_its_bounds_exactly() -> None:
    """As a float it would be the bound itself."""
    bound = 2.0**53
    assert checks.number("f", 2**53, -bound, bound) == bound
    for value in (2**53 + 1, -(2**53) - 1):
        assert float(value) in (bound, -bound)
        with pytest.raises(InvalidInput) as refused:
            checks.number("f", value, -bound, bound)
        assert str(refused.value) == (
            f"f: got {value}, expected a finite number >= -9007199254740992.0 and <= 9007199254740992.0"
        )
