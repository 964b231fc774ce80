"""Neither ticks nor closed streams leave anything behind: live objects are counted, not bytes or seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.long_run import Part, is_flat, is_steady, streams, ticks


@pytest.mark.parametrize(("run", "count"), [(ticks, 2000), (streams, 100)], ids=["ticks", "streams"])
def test_a_long_run_leaves_no_object_behind(run: Callable[[int], Iterator[Part]], count: int) -> None:
    parts = list(run(count))
    assert is_flat(parts), [(part.objects, part.tensors) for part in parts]


def test_one_object_for_each_stream_would_be_seen() -> None:
    one = Part(1000, 10, 1.0, 1.0)
    assert is_flat([one] * 10)
    assert not is_flat([*[one] * 9, Part(1000 + 80, 10, 1.0, 1.0)])
    assert not is_flat([*[one] * 9, Part(1000, 11, 1.0, 1.0)])


@pytest.mark.parametrize(("growth", "steady"), [(0.0, True), (0.04, True), (0.12, False), (1.0, False)])
def test_a_time_that_grows_from_part_to_part_would_be_seen(growth: float, steady: bool) -> None:
    """With 0.12 the last part takes twice as long as the first."""
    assert is_steady([Part(1000, 10, 1.0, 1.0 + growth * number) for number in range(10)]) is steady
