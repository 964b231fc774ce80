"""Two engines of any make, fed the same events."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import NotComparable, NothingCompared
from harness.parity.proofs.generic import Agreed, EnginesParted, run


class Sum:
    """Adds up events; a test spoils what it returns, or does something else instead, at one of them."""

    def __init__(self, at: int = -1, spoil: Callable[[Sum], Any] | None = None) -> None:
        self.x, self.count, self.at, self.spoil = torch.zeros(3), 0, at, spoil

    def __call__(self, event: Any) -> Any:
        self.x = self.x + event
        self.count += 1
        return self.spoil(self) if self.spoil and self.count - 1 == self.at else {"x": self.x}

    def tick(self) -> Any:
        return self(1.0)


def fail(_: Sum) -> None:
    raise KeyError("gone")


def parted(spoil: Callable[[Sum], Any], events: Any = (1.0, 2.0, 3.0), at: int = 1) -> EnginesParted:
    with pytest.raises(EnginesParted) as caught:
        run(Sum(), Sum(at, spoil), events)
    return caught.value


def test_equal_engines_agree_after_every_event() -> None:
    assert run(Sum(), Sum(), iter([1.0, torch.ones(3)])) == Agreed(events=2, tensors=2)
    assert run(Sum(), Sum(), [methodcaller("tick")] * 3) == Agreed(events=3, tensors=3)


@pytest.mark.parametrize(
    ("spoil", "path", "said"),
    [
        (lambda e: {"x": torch.nextafter(e.x, torch.tensor(9.0))}, "x", "max 1 ULP"),
        (lambda e: {"x": e.x.double()}, "x", "dtype differs"),
        (lambda e: {"x": e.x, "y": e.x}, "y", "unexpected"),
        (lambda e: [e.x], "x", "missing"),
        (lambda e: None, "x", "missing"),
        (fail, "", "plain returns, fast raises KeyError: 'gone'"),
    ],
)
def test_the_first_event_and_the_place_where_two_part_are_named(spoil: Any, path: str, said: str) -> None:
    error = parted(spoil)
    assert (error.event, error.path) == (1, path)
    assert "plain and fast differ at event 1, 2.0:" in str(error) and said in str(error)


def test_a_long_event_is_cut_short() -> None:
    error = parted(lambda e: {}, [torch.zeros(3), torch.zeros(3)])
    assert "event 1, tensor([0., 0., 0.]):" in str(error)
    assert len(str(parted(lambda e: {"x": e.x + 1}, [torch.zeros(100, 3)] * 2)).splitlines()[0]) < 300


def test_what_both_refuse_in_the_same_words_is_refused() -> None:
    with pytest.raises(KeyError, match="gone"):
        run(Sum(1, fail), Sum(1, fail), [1.0, 2.0])


class Empty(Exception):
    """An error that is false where it is asked for its truth."""

    def __len__(self) -> int:
        return 0


def refuse(_: Sum) -> None:
    raise Empty


def test_an_error_of_both_is_raised_also_where_it_is_empty() -> None:
    with pytest.raises(Empty):
        run(Sum(1, refuse), Sum(1, refuse), [1.0, 2.0])


def test_an_error_of_one_is_told_also_where_it_is_empty() -> None:
    assert "plain returns, fast raises Empty" in str(parted(refuse))


def test_a_nan_in_both_is_no_agreement() -> None:
    with pytest.raises(EnginesParted, match="x is NaN in both"):
        run(Sum(), Sum(), [1.0, float("nan")])
    assert run(Sum(), Sum(), [float("inf")]).events == 1


def test_an_engine_that_writes_to_an_event_is_named() -> None:
    def writes(event: Tensor) -> Any:
        event.add_(1)
        return {"x": event}

    with pytest.raises(EnginesParted, match="fast wrote to the event's own tensors") as caught:
        run(lambda event: {"x": event + 1}, writes, [torch.zeros(2)])
    assert caught.value.event == 0
    with pytest.raises(EnginesParted, match="plain wrote"):
        run(writes, lambda event: {"x": event}, [{"deep": [torch.zeros(2)]}["deep"][0]])


def test_two_views_of_one_buffer_are_not_compared_with_themselves() -> None:
    buffer = torch.zeros(2)
    with pytest.raises(EnginesParted, match="max |Δ| 1"):
        run(lambda event: buffer.fill_(event), lambda event: buffer.fill_(event + 1), [1.0])


@pytest.mark.parametrize("returned", [None, {}, [torch.empty(0)]])
def test_engines_that_return_no_element_compare_nothing(returned: Any) -> None:
    with pytest.raises(NothingCompared, match="none of 2 events"):
        run(lambda event: returned, lambda event: returned, [1, 2])
    with pytest.raises(NothingCompared, match="none of 0 events"):
        run(Sum(), Sum(), [])


def test_an_event_may_return_nothing_where_another_returns_something() -> None:
    assert run(lambda event: event, lambda event: event, [None, torch.ones(1)]) == Agreed(2, 1)


def test_what_is_no_tree_of_tensors_is_refused() -> None:
    with pytest.raises(NotComparable, match="x cannot be compared: expected a tensor, a NumPy array, .*, got set"):
        run(lambda event: {"x": {1}}, Sum(), [1.0])


def test_one_object_is_not_compared_with_itself() -> None:
    engine = Sum()
    with pytest.raises(InvalidInput) as caught:
        run(engine, engine, [1.0])
    wanted = InvalidInput("fast", "the same object as plain", "another object: nothing differs from itself")
    assert str(caught.value) == str(wanted)


def raising(error: BaseException) -> Callable[[Sum], None]:
    def spoil(_: Sum) -> None:
        raise error

    return spoil


@pytest.mark.parametrize(("plain", "fast"), [
    (KeyError("a"), KeyError("b")),
    (KeyError("a"), IndexError("a")),
    (ValueError(), ValueError("a")),
])  # fmt: skip
def test_errors_that_differ_in_type_or_words_part_them(plain: Exception, fast: Exception) -> None:
    with pytest.raises(EnginesParted) as caught:
        run(Sum(1, raising(plain)), Sum(1, raising(fast)), [1.0, 2.0, 3.0])
    words = [f"{type(error).__name__}: {error}" for error in (plain, fast)]
    assert (caught.value.event, caught.value.path, caught.value.differences) == (1, "", ())
    assert str(caught.value).endswith(f"plain raises {words[0]}, fast raises {words[1]}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_nan_in_any_tensor_of_any_dtype_is_no_agreement(place: int, dtype: torch.dtype) -> None:
    def engine(_event: object) -> Any:
        tensors = [torch.ones(3, dtype=dtype) for _ in range(3)]
        tensors[place][1] = float("nan")
        return {"count": torch.tensor(1), "x": tensors}

    with pytest.raises(EnginesParted, match=rf"x\[{place}\] is NaN in both"):
        run(engine, lambda event: engine(event), [None])


@pytest.mark.parametrize("name", ["plain", "fast"])
def test_an_engine_that_writes_to_an_event_and_then_raises_is_named(name: str) -> None:
    def writes(event: Any) -> Any:
        event["x"][0].add_(1)
        raise KeyError("gone")

    def reads(_event: Any) -> Any:
        raise KeyError("gone")

    engines = (writes, reads) if name == "plain" else (reads, writes)
    with pytest.raises(EnginesParted, match=f"{name} wrote to the event's own tensors"):
        run(*engines, [{"x": [torch.zeros(2)], "n": 3}])


@pytest.mark.parametrize(("length", "cut"), [(199, False), (200, False), (201, True)])
def test_an_event_of_the_largest_length_is_told_whole(length: int, cut: bool) -> None:
    event = "x" * (length - 2)
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: torch.ones(1), lambda _: torch.zeros(1), [event])
    told = str(caught.value).splitlines()[0].removeprefix("plain and fast differ at event 0, ").removesuffix(":")
    assert told == (f"{repr(event)[:197]}..." if cut else repr(event))


def test_every_tensor_with_an_element_is_counted_and_every_difference_is_kept() -> None:
    tree = {"a": torch.ones(2), "b": [torch.ones(1), torch.empty(0), None]}
    assert run(lambda _: tree, lambda _: tree, [1, 2]) == Agreed(events=2, tensors=4)
    other = {"a": torch.zeros(2), "b": [torch.zeros(1), torch.empty(0), None]}
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: tree, lambda _: other, [1, 2])
    assert (caught.value.path, [d.name for d in caught.value.differences]) == ("a", ["a", "b[0]"])


def test_plain_gets_every_event_before_fast() -> None:
    seen: list[tuple[str, object]] = []

    def engine(name: str) -> Callable[[object], Tensor]:
        return lambda event: (seen.append((name, event)), torch.ones(1))[1]

    run(engine("plain"), engine("fast"), [1, 2])
    assert seen == [("plain", 1), ("fast", 1), ("plain", 2), ("fast", 2)]


def test_all_differences_after_an_event_are_told_one_a_line() -> None:
    one = {"a": torch.ones(2), "b": [torch.ones(1)]}
    other = {"a": torch.tensor([1.0, 2.0]), "b": [torch.ones(1)], **dict.fromkeys(map(str, range(9)))}
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: one, lambda event: other if event == 2 else one, [1, 2])
    assert str(caught.value).splitlines() == [
        "plain and fast differ at event 1, 2:",
        "  a: bytes differ in 1 of 2 elements, first at index [1]: fast 2.0 (0x40000000), plain 1.0 (0x3f800000); "
        "max |Δ| 1; max 8388608 ULP",
        *(f"  ['{number}']: unexpected, fast None" for number in range(9)),
    ]
    assert type(caught.value.differences) is tuple
    assert str(parted(fail)) == "plain and fast differ at event 1, 2.0:\n  plain returns, fast raises KeyError: 'gone'"
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: torch.tensor(float("nan")), lambda _: torch.tensor(float("nan")), ["x"])
    assert (
        str(caught.value) == "plain and fast differ at event 0, 'x':\n  (root) is NaN in both: equal NaNs prove nothing"
    )


def test_differences_can_be_read_again_where_they_were_given_once() -> None:
    found = run_apart()
    error = EnginesParted(3, "x", "", iter(found))
    assert error.differences == found and error.path == found[0].name
    assert len(str(error).splitlines()) == 1 + len(found)


def run_apart() -> tuple[Any, ...]:
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: [torch.ones(1), torch.ones(1)], lambda _: [torch.zeros(1), torch.zeros(1)], [1])
    return caught.value.differences


def test_of_an_error_of_both_plain_s_own_is_raised() -> None:
    errors = [KeyError("gone"), KeyError("gone")]
    with pytest.raises(KeyError) as caught:
        run(Sum(0, raising(errors[0])), Sum(0, raising(errors[1])), [1.0])
    assert caught.value is errors[0]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_difference(interruption: type[BaseException]) -> None:
    for sides in ((Sum(0, raising(interruption())), Sum()), (Sum(), Sum(0, raising(interruption())))):
        with pytest.raises(interruption):
            run(*sides, [1.0])


@pytest.mark.parametrize("value", [complex(float("nan"), 0.0), complex(0.0, float("nan"))])
def test_a_nan_in_either_part_of_a_complex_number_is_no_agreement(value: complex) -> None:
    with pytest.raises(EnginesParted, match="is NaN in both"):
        run(lambda _: torch.tensor([1.0, value]), lambda _: torch.tensor([1.0, value]), [None])


@pytest.mark.parametrize("event", [1, torch.zeros(3), methodcaller("tick")])
def test_a_failure_is_shown_at_the_line_of_the_test(event: Any) -> None:
    writes = Sum(0, lambda engine: event.add_(1)) if isinstance(event, Tensor) else Sum(0, fail)
    with pytest.raises(EnginesParted) as caught:
        run(Sum(), writes, [event])
    assert str(caught.traceback.filter(caught)[-1].path) == __file__


def test_a_tree_that_fast_alone_cannot_return_is_refused_too() -> None:
    with pytest.raises(NotComparable, match="x cannot be compared: expected a tensor, .* got object"):
        run(Sum(), Sum(0, lambda _: {"x": object()}), [1.0])


def test_events_are_taken_one_by_one_and_none_after_the_one_at_which_they_part() -> None:
    taken: list[int] = []

    def events() -> Any:
        for number in range(5):
            taken.append(number)
            yield float(number)

    with pytest.raises(EnginesParted):
        run(Sum(), Sum(2, fail), events())
    assert taken == [0, 1, 2]
