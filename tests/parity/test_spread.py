"""A few items that are unlike each other, chosen out of many."""

from __future__ import annotations

from itertools import product

import pytest

from harness.parity.spread import spread

CELLS = list(product(("eager", "static", "deferred"), ("fused", "cached"), ("one", "two", "three", "four")))


def test_the_first_ones_differ_in_every_part_as_far_as_there_are_other_values() -> None:
    chosen = [CELLS[place] for place in spread(CELLS, 3)]
    assert chosen == [("eager", "fused", "one"), ("static", "cached", "two"), ("deferred", "fused", "three")]


@pytest.mark.parametrize("most", range(25))
def test_no_value_of_the_first_part_is_chosen_twice_before_another_one_once(most: int) -> None:
    chosen = [CELLS[place][0] for place in spread(CELLS, most)]
    counts = [chosen.count(name) for name in ("eager", "static", "deferred")]
    assert sum(counts) == most and max(counts) - min(counts) <= 1


def test_one_that_is_alone_in_its_part_is_not_crowded_out_by_many_before_it() -> None:
    crowd = [("eager", "fused", str(number)) for number in range(50)]
    assert spread([*crowd, ("static", "fused", "0")], 2) == [0, 50]


def test_every_item_is_chosen_once_where_there_is_room_and_the_choice_is_the_same_each_time() -> None:
    assert sorted(spread(CELLS, 100)) == list(range(len(CELLS)))
    assert spread(CELLS, 20) == spread(CELLS, 20)
    assert spread([], 5) == spread(CELLS, 0) == []


def test_items_that_are_alike_are_taken_in_their_order() -> None:
    assert spread([("a",)] * 4, 3) == [0, 1, 2]
