from __future__ import annotations

from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from harness.engine.errors import InvalidInput
from harness.parity.foreign.draws import script, strategy
from harness.parity.foreign.records import Cancel, Depth, Drain, Features, Live, Script, Submit, Tick

FULL = Features({"seed": (1, 2), "scale": (None, 2.5)}, {"gain": (1.0, 0.5)}, (2, 1), cancel=True)


def of(kind: type, drawn: Script) -> list[Any]:
    return [each for each in drawn.operations if isinstance(each, kind)]


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_a_script_depends_on_its_arguments_alone_and_has_the_size(seed: int, size: int) -> None:
    drawn = script(FULL, seed, size)
    assert repr(drawn) == repr(script(FULL, seed, size))
    assert len(drawn.operations) == size and drawn.seed == seed


def test_the_script_of_a_seed_stays_the_same_in_every_version() -> None:
    assert [type(each).__name__ for each in script(FULL, 1, 6).operations] == SEED_1


SEED_1 = ["Tick", "Live", "Submit", "Tick", "Cancel", "Live"]


@given(st.integers(0, 10_000))
def test_requests_are_numbered_and_only_known_ones_are_cancelled(seed: int) -> None:
    known = 0
    for each in script(FULL, seed).operations:
        if isinstance(each, Submit):
            assert each.number == known and each.values.keys() == FULL.request.keys()
            known += 1
        elif isinstance(each, Cancel):
            assert 0 <= each.number < known


@pytest.mark.parametrize("kind", [Submit, Tick, Drain, Live, Cancel, Depth])
def test_every_kind_of_operation_is_drawn(kind: type) -> None:
    assert sum(len(of(kind, script(FULL, seed))) for seed in range(10)) >= 10


@pytest.mark.parametrize("kind", [Live, Cancel, Depth])
def test_what_a_ring_cannot_do_is_never_drawn(kind: type) -> None:
    assert [of(kind, script(Features({"seed": (1, 2)}, depths=(2,)), seed)) for seed in range(20)] == [[]] * 20


def test_requests_with_equal_values_and_with_one_other_value_are_drawn() -> None:
    many = Features({str(name): tuple(range(50)) for name in range(4)})
    requests = [list(each.values.values()) for each in script(many, 3, 80).submits()]
    equal = [sum(a == b for a, b in zip(one, other, strict=True)) for one in requests for other in requests]
    assert equal.count(4) > len(requests) and equal.count(3) > 0


def test_hypothesis_draws_and_shrinks_scripts() -> None:
    asked = settings(max_examples=500, derandomize=True, database=None, deadline=None)
    small = find(strategy(FULL), lambda drawn: any(each.value == 0.5 for each in of(Live, drawn)), settings=asked)
    assert small.operations == (Live("gain", 0.5),)


def test_a_script_without_operations_is_refused() -> None:
    with pytest.raises(InvalidInput, match="size"):
        script(FULL, 0, 0)
