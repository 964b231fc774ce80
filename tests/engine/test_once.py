"""A tensor's values are read once, and again after every write that its version counter shows."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import InvalidInput, checks, once
from harness.rails.costs.counters import HostReads

NAN = float("nan")


def reads_of(given: Any, field: str = "f") -> int:
    """How many host reads one check makes."""
    with HostReads() as reads:
        assert once.tensor(field, given, (1, "T", 2)) is given
    return sum(reads.seen.values())


@pytest.mark.parametrize("make", [
    lambda: torch.ones(1, 3, 2),
    lambda: torch.ones(1, 3, 2, requires_grad=True),
    lambda: torch.nn.Parameter(torch.ones(1, 3, 2)),
    lambda: torch.ones(2, 3, 1, dtype=torch.bfloat16).transpose(0, 2),
    lambda: torch.ones(4, 3, 2)[1:2],
])  # fmt: skip
def test_a_tensor_is_read_once_whoever_asks(make: Callable[[], Tensor]) -> None:
    given = make()
    assert reads_of(given) == 1
    assert reads_of(given, "another field") == 0


def written(given: Tensor) -> None:
    given[0, 1, 1] = NAN


def written_through_a_view(given: Tensor) -> None:
    given.view(-1)[3:4].fill_(NAN)


def written_through_a_detached_one(given: Tensor) -> None:
    given.detach().fill_(NAN)


def written_in_inference_mode(given: Tensor) -> None:
    with torch.inference_mode():
        given.fill_(NAN)


def written_as_out(given: Tensor) -> None:
    torch.full((1, 3, 2), NAN, out=given)


@pytest.mark.parametrize("write", [
    written, written_through_a_view, written_through_a_detached_one, written_in_inference_mode, written_as_out,
])  # fmt: skip
def test_a_tensor_that_was_written_to_is_read_again(write: Callable[[Tensor], None]) -> None:
    given = torch.ones(1, 3, 2)
    once.tensor("f", given, (1, 3, 2))
    write(given)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="nan at"):
            once.tensor("f", given, (1, 3, 2))
    given.fill_(2.0)
    assert [reads_of(given), reads_of(given)] == [1, 0]


def test_a_write_to_the_base_is_a_write_to_its_view() -> None:
    base = torch.ones(2, 3, 2)
    given = base[:1]
    once.tensor("f", given, (1, 3, 2))
    base[0, 2, 0] = NAN
    with pytest.raises(InvalidInput, match=r"nan at \(0, 2, 0\)"):
        once.tensor("f", given, (1, 3, 2))


def test_another_view_of_what_was_read_is_another_tensor() -> None:
    base = torch.ones(2, 3, 2)
    assert [reads_of(base[:1]), reads_of(base[:1])] == [1, 1]


@pytest.mark.parametrize("within", [True, False])
def test_an_inference_tensor_has_no_counter_and_is_read_every_time(within: bool) -> None:
    with torch.inference_mode():
        given = torch.ones(1, 3, 2)
    with torch.inference_mode(within):
        assert [reads_of(given), reads_of(given)] == [1, 1]
    with torch.inference_mode():
        given.fill_(NAN)
    with pytest.raises(InvalidInput, match="nan at"):
        once.tensor("f", given, (1, 3, 2))


def test_a_tensor_that_is_no_inference_tensor_is_read_once_in_inference_mode_too() -> None:
    given = torch.ones(1, 3, 2)
    with torch.inference_mode():
        assert [reads_of(given), reads_of(given)] == [1, 0]


def test_a_tensor_is_not_held_and_another_one_in_its_place_is_read() -> None:
    ids, before = set(), remembered()
    for _ in range(50):
        given = torch.ones(1, 3, 2)
        once.tensor("f", given, (1, 3, 2))
        ids.add(id(given))
        gone = weakref.ref(given)
        del given
        assert gone() is None
        assert remembered() <= before
        bad = torch.full((1, 3, 2), NAN)
        with pytest.raises(InvalidInput):
            once.tensor("f", bad, (1, 3, 2))
        reused = id(bad) in ids
        del bad
        if reused:
            return
    pytest.fail("no tensor came to lie where one had been")


def remembered() -> int:
    return len(once._FINITE)


def test_a_tensor_in_a_cycle_is_let_go_with_it() -> None:
    gc.collect()
    before = remembered()
    given = torch.ones(1, 3, 2)
    given.itself = given  # type: ignore[attr-defined]
    once.tensor("f", given, (1, 3, 2))
    assert remembered() == before + 1
    del given
    gc.collect()
    assert remembered() == before


def test_a_tensor_whose_python_side_comes_back_is_itself() -> None:
    held = torch.ones(1, 3, 2, requires_grad=True)
    view = held[:, 1:]
    once.tensor("f", view._base, (1, 3, 2))
    gone = id(held)
    del held
    gc.collect()
    assert id(view._base) == gone
    assert reads_of(view._base) == 0


@pytest.mark.parametrize("given", [
    None, 1.0, [1.0], torch.ones(1, 3), torch.ones(1, 3, 3), torch.ones(2, 3, 2), torch.ones(1, 0, 2),
    torch.ones(1, 3, 2, dtype=torch.int64), torch.ones(1, 3, 2, dtype=torch.complex64),
    torch.full((1, 3, 2), NAN), torch.tensor([[[1.0, float("inf")]]]),
])  # fmt: skip
def test_it_refuses_what_its_plain_twin_refuses_with_the_same_words(given: Any) -> None:
    said = []
    for check in (checks.tensor, once.tensor, once.tensor):
        with pytest.raises(InvalidInput) as refused:
            check("f", given, (1, "T", 2))
        said.append(str(refused.value))
    assert said[0] == said[1] == said[2]


def test_the_shape_is_checked_of_what_is_not_read_again() -> None:
    given = torch.ones(1, 3, 2)
    once.tensor("f", given, (1, "T", 2))
    with pytest.raises(InvalidInput, match=r"of shape \[1, 4, 2\]"):
        once.tensor("f", given, (1, 4, 2))


def test_a_write_while_it_is_read_is_seen_at_the_next_check(monkeypatch: pytest.MonkeyPatch) -> None:
    given, plain = torch.ones(1, 3, 2), checks.finite

    def meanwhile(field: str, value: Tensor) -> None:
        plain(field, value)
        value.fill_(NAN)

    monkeypatch.setattr(checks, "finite", meanwhile)
    once.tensor("f", given, (1, 3, 2))
    monkeypatch.undo()
    with pytest.raises(InvalidInput, match="nan at"):
        once.tensor("f", given, (1, 3, 2))


def test_many_threads_may_check_and_let_go_at_once() -> None:
    shared, failures = [torch.ones(1, 3, 2) for _ in range(20)], []

    def check() -> None:
        for number in range(300):
            once.tensor("f", shared[number % len(shared)], (1, 3, 2))
            once.tensor("f", torch.ones(1, 3, 2), (1, 3, 2))
            try:
                once.tensor("f", torch.full((1, 3, 2), NAN), (1, 3, 2))
            except InvalidInput:
                continue
            failures.append(number)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [reads_of(given) for given in shared] == [0] * len(shared)
