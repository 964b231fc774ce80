"""Each dangerous decoder turns a small wrong ring red and leaves the right one green."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import identical
from harness.parity.danger import Deferred, PinnedRows, Poisoned, SharedOutput
from harness.parity.proofs import generic

TICKS = [methodcaller("tick")] * 4


def decoder(x: Tensor, t: float = 0.5) -> Tensor:
    return x * t + 1.0


def nan(tensor: Tensor) -> bool:
    return bool(torch.isnan(tensor).all())


class Ring:
    """A right ring: it waits, copies what it keeps, and reads nothing else."""

    def __init__(self, decode: Callable[..., Any], rows: int = 3) -> None:
        self.decode, self.x, self.last = decode, torch.arange(4.0 * rows).view(rows, 4), torch.zeros(rows, 4)

    def wait(self) -> None:
        getattr(self.decode, "wait", lambda: None)()

    def tick(self) -> Tensor:
        velocity = self.decode(self.x)
        self.wait()
        self.x, self.last = self.x + velocity - 0.5 * self.last, self.keep(velocity)
        return self.x

    def keep(self, velocity: Tensor) -> Tensor:
        return velocity.clone()


class Keeps(Ring):
    """Keeps a result beyond the next call."""

    def keep(self, velocity: Tensor) -> Tensor:
        return velocity


class ReadsEarly(Ring):
    """Does not wait."""

    def wait(self) -> None:
        pass


class WritesEarly(Ring):
    """Writes to what the decoder reads before it waits."""

    def wait(self) -> None:
        self.x += 1.0
        super().wait()
        self.x -= 1.0


class Mixes(Ring):
    """Its decoder takes the mean over rows."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        def mixing(x: Tensor) -> Tensor:
            return decoder(x) - x.mean(0)

        super().__init__(partial(type(decode), rows=8)(mixing) if isinstance(decode, PinnedRows) else mixing)


WRAPPERS: dict[str, Callable[..., Any]] = {
    "shared": SharedOutput,
    "poisoned": Poisoned,
    "deferred": Deferred,
    "pinned": partial(PinnedRows, rows=8),
    "all": lambda call: Deferred(SharedOutput(Poisoned(PinnedRows(call, rows=8)))),
}
WRONG = [
    ("shared", Keeps), ("poisoned", Keeps), ("deferred", ReadsEarly), ("deferred", WritesEarly), ("pinned", Mixes),
    ("all", ReadsEarly),
]  # fmt: skip


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_right_ring_is_the_same_on_a_dangerous_decoder(name: str) -> None:
    assert generic.run(Ring(decoder), Ring(WRAPPERS[name](decoder)), TICKS).tensors == 4


@pytest.mark.parametrize(("name", "ring"), WRONG)
def test_a_wrong_ring_is_the_same_on_a_plain_decoder_and_another_on_a_dangerous_one(
    name: str, ring: Callable[..., Ring]
) -> None:
    assert generic.run(ring(decoder), ring(decoder), TICKS).tensors == 4
    with pytest.raises(generic.EnginesParted):
        generic.run(ring(decoder), ring(WRAPPERS[name](decoder)), TICKS)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_result_may_be_the_argument_of_the_next_call(name: str) -> None:
    dangerous, x, y = WRAPPERS[name](decoder), torch.ones(2, 3), torch.ones(2, 3)
    for _ in range(3):
        x, y = decoder(x), dangerous(y)
        getattr(dangerous, "wait", lambda: None)()
        assert identical(y, x)


# Shared buffers.


def test_results_of_every_shape_share_one_buffer_and_what_is_left_of_an_earlier_one_is_nan() -> None:
    shared = SharedOutput(decoder)
    large = shared(torch.ones(3, 2))
    small = shared(torch.zeros(2))
    assert small.untyped_storage().data_ptr() == large.untyped_storage().data_ptr()
    assert identical(large.view(-1)[:2], torch.ones(2)) and nan(large.view(-1)[2:])


def test_a_buffer_that_grows_leaves_nan_in_the_smaller_one() -> None:
    shared = SharedOutput(decoder)
    small = shared(torch.ones(2))
    assert identical(shared(torch.ones(4)), torch.full((4,), 1.5)) and nan(small)


def test_results_of_one_call_do_not_overlap() -> None:
    first, second = SharedOutput(lambda x: (x + 1.0, x + 2.0))(torch.zeros(2))
    assert (first.tolist(), second.tolist()) == ([1, 1], [2, 2])


# Deferred results.


def test_a_deferred_result_is_nan_until_the_wait_or_the_next_call() -> None:
    deferred, x = Deferred(decoder), torch.ones(2)
    first = deferred(x)
    assert nan(first)
    second = deferred(x + 1.0)
    assert identical(first, decoder(x)) and nan(second)
    deferred.wait()
    assert identical(second, decoder(x + 1.0))
    deferred.wait()


def test_a_deferred_result_stays_nan_where_an_argument_was_written_to() -> None:
    deferred, x = Deferred(decoder), {"x": torch.ones(2)}
    late = Deferred(lambda tree: tree["x"] * 2.0)(x)
    kept = deferred(x["x"])
    x["x"][1] = -0.0
    deferred.wait()
    assert nan(kept) and nan(late)


# Pinned rows.


def seen(rows: int, axis: int, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
    """What the callable gets, and what the caller gets."""
    got: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        got.extend([*args, *kwargs.values()])
        return args[0]

    return got, PinnedRows(call, rows, axis)(*args, **kwargs)


def test_padding_is_nan_and_of_whole_numbers_the_first_row() -> None:
    x, index = torch.ones(2, 3), torch.tensor([4, 5])
    got, made = seen(4, 0, x, index=index, mask=torch.tensor([True, False]))
    assert identical(got[0][:2], x) and nan(got[0][2:])
    assert (got[1].tolist(), got[2].tolist()) == ([4, 5, 4, 4], [True, False, True, True])
    assert identical(made, x)


def test_rows_lie_along_the_axis_that_is_named_and_what_has_other_sizes_is_left_as_it_is() -> None:
    x, shared, scalar = torch.ones(3, 2), torch.ones(3, 1), torch.tensor(2.0)
    got, made = seen(5, 1, x, shared, scalar, 0.5)
    assert [tuple(each.shape) for each in got[:3]] == [(3, 5), (3, 1), ()]
    assert (got[1] is shared, got[2] is scalar, got[3]) == (True, True, 0.5)
    assert identical(made, x)


def test_a_full_call_is_passed_on_and_one_with_too_many_rows_refused() -> None:
    x = torch.ones(4, 2)
    assert seen(4, 0, x)[0][0] is x
    with pytest.raises(InvalidInput, match="got 4 rows, expected at most 3 rows along axis 0"):
        seen(3, 0, x)
    with pytest.raises(InvalidInput, match="got no tensor with that axis"):
        seen(3, 2, x)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"rows": True}, {"rows": 2.0}, {"rows": 2, "axis": -1}])
def test_rows_and_axis_are_whole_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{list(wrong)[-1]}: got"):
        PinnedRows(decoder, **wrong)


# Any callable.


class Pair(NamedTuple):
    mean: Tensor
    scale: Tensor | None


@dataclass
class Both:
    pair: Pair
    rest: list[Tensor]
    note: str = "kept"


@pytest.mark.parametrize("name", WRAPPERS)
def test_trees_of_any_kind_go_in_and_come_out(name: str) -> None:
    def call(given: Both) -> dict[str, Any]:
        return {"both": Both(Pair(given.pair.mean + 1.0, None), [each.neg() for each in given.rest]), "n": 3}

    given = Both(Pair(torch.ones(2, 2), None), [torch.zeros(2, 1), torch.tensor([1, 2])])
    dangerous = WRAPPERS[name](call)
    made, wanted = dangerous(given), call(given)
    getattr(dangerous, "wait", lambda: None)()
    assert (type(made["both"].pair), made["both"].note, made["n"]) == (Pair, "kept", 3)
    assert made["both"].pair.scale is None
    pairs = zip(
        [made["both"].pair.mean, *made["both"].rest], [wanted["both"].pair.mean, *wanted["both"].rest], strict=True
    )
    assert all(identical(got, expected) for got, expected in pairs)


@pytest.mark.parametrize("name", ["shared", "poisoned", "deferred"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.bfloat16])
def test_every_dtype_has_a_poison(name: str, dtype: torch.dtype) -> None:
    dangerous = WRAPPERS[name](lambda x: x.clone())
    kept = dangerous(torch.zeros(2, dtype=dtype))
    if name != "deferred":
        dangerous(torch.zeros(1 if name == "shared" else 2, dtype=dtype))
    poison = {torch.int64: 2**63 - 1, torch.bool: True}.get(dtype)
    assert nan(kept[1:]) if poison is None else kept[1:].tolist() == [poison]


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_layer_keeps_its_attributes_and_takes_inference_tensors(name: str) -> None:
    layer = torch.nn.Linear(2, 2)
    dangerous = WRAPPERS[name](layer)
    assert (dangerous.in_features, dangerous.weight is layer.weight) == (2, True)
    with torch.inference_mode():
        kept = [dangerous(torch.ones(3, 2)), dangerous(torch.ones(3, 2))]
        getattr(dangerous, "wait", lambda: None)()
        assert identical(kept[1], layer(torch.ones(3, 2)))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        dangerous.nothing_like_it  # noqa: B018
    assert copy.deepcopy(dangerous).out_features == 2


@pytest.mark.parametrize("name", WRAPPERS)
def test_an_error_of_the_callable_is_the_caller_s_and_what_is_no_callable_is_refused(name: str) -> None:
    with pytest.raises(ZeroDivisionError):
        WRAPPERS[name](lambda x: 1 / 0)(torch.ones(1))
    with pytest.raises(InvalidInput, match="something that can be called"):
        WRAPPERS[name](3)


@pytest.mark.parametrize("kind", [SharedOutput, Poisoned])
def test_a_callable_that_returns_its_argument_leaves_the_callers_tensor_as_it_is(kind: Any) -> None:
    given, wrapped = torch.ones(2), kind(lambda x: x)
    wrapped(given)
    wrapped(torch.zeros(2))
    assert given.tolist() == [1.0, 1.0]
