"""Calls of a named target are counted whoever makes them, and the target is as before at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.rails.costs.block import Block
from harness.rails.costs.calls import Calls


class Context:
    """A stand-in for TensorRT's execution context."""

    def execute(self, stream: int, *, flag: bool = True) -> tuple[str, int, bool]:
        return ("executed", stream, flag)

    @staticmethod
    def version(number: int) -> int:
        return number

    @classmethod
    def made(cls) -> str:
        return cls.__name__

    def __call__(self, x: int) -> int:
        return x + 1


class Closed:
    """An object without a dictionary, as those of extensions are."""

    __slots__ = ("hook",)

    def __init__(self) -> None:
        self.hook: Callable[[], str] = lambda: "hooked"

    def execute(self) -> str:
        return "executed"


@dataclass(frozen=True)
class Frozen:
    gain: int = 2

    def execute(self) -> int:
        return self.gain


class Derived(Context):
    pass


def numbers(target: object, act: Callable[[], Any]) -> int:
    """How often a target was called by `act`."""
    calls = Calls()
    with calls.of("it", target, nullcontext):
        act()
    return calls.numbers["it"]


MADE, OTHER, MODULE = Context(), Context(), ModuleType("made_up")
MODULE.decode = lambda x: x  # type: ignore[attr-defined]
CLOSED, FROZEN, LAYER = Closed(), Frozen(), torch.nn.Linear(2, 2)
RING = SimpleNamespace(decoder=MADE, sum=sum)

MET: dict[str, tuple[object, Callable[[], Any], Any]] = {
    "method of an object": ((MADE, "execute"), lambda: MADE.execute(3, flag=False), ("executed", 3, False)),
    "bound method": (MADE.execute, lambda: MADE.execute(3), ("executed", 3, True)),
    "method of a class": ((Context, "execute"), lambda: OTHER.execute(3), ("executed", 3, True)),
    "method that a class inherits": ((Derived, "execute"), lambda: Derived().execute(3), ("executed", 3, True)),
    "static method of a class": ((Context, "version"), lambda: Context.version(7), 7),
    "static method of an object": ((MADE, "version"), lambda: MADE.version(7), 7),
    "class method of a class": ((Context, "made"), lambda: Context.made(), "Context"),
    "object": (MADE, lambda: MADE(1), 2),
    "object by its owner": ((RING, "decoder"), lambda: RING.decoder(1), 2),
    "call of an object": ((MADE, "__call__"), lambda: MADE(1), 2),
    "builtin by its owner": ((RING, "sum"), lambda: RING.sum([1, 2]), 3),
    "function of a module": ((MODULE, "decode"), lambda: MODULE.decode(4), 4),
    "method of an object without a dictionary": ((CLOSED, "execute"), lambda: CLOSED.execute(), "executed"),
    "slot of an object": ((CLOSED, "hook"), lambda: CLOSED.hook(), "hooked"),
    "method of a frozen object": ((FROZEN, "execute"), lambda: FROZEN.execute(), 2),
    "layer": (LAYER, lambda: tuple(LAYER(torch.ones(1, 2)).shape), (1, 2)),
    "method of a layer": ((LAYER, "forward"), lambda: tuple(LAYER(torch.ones(1, 2)).shape), (1, 2)),
}


def attributes(name: str) -> list[dict[str, Any]]:
    """The attributes that the owner of a target and the owner's class hold themselves."""
    target, _, _ = MET[name]
    owner: Any = target[0] if isinstance(target, tuple) else getattr(target, "__self__", target)
    return [dict(vars(each)) for each in (owner, type(owner)) if hasattr(each, "__dict__")]


BEFORE = {name: attributes(name) for name in MET}
"""Taken before any target was met, because tests share the targets."""


@pytest.mark.parametrize("name", MET)
def test_a_call_is_counted_and_makes_what_it_makes_and_none_is_counted_afterwards(name: str) -> None:
    target, call, wanted = MET[name]
    calls, found = Calls(), []
    with calls.of("it", target, nullcontext):
        found = [call(), call()]
    assert (found, calls.numbers["it"]) == ([wanted, wanted], 2)
    assert (call(), calls.numbers["it"]) == (wanted, 2)


@pytest.mark.parametrize("name", MET)
def test_a_target_has_the_attributes_afterwards_that_it_had_before(name: str) -> None:
    with pytest.raises(ZeroDivisionError), Calls().of("it", MET[name][0], nullcontext):
        raise ZeroDivisionError
    assert attributes(name) == BEFORE[name]


def test_another_object_of_the_class_is_not_counted() -> None:
    assert numbers(MADE, lambda: (OTHER(1), Derived()(1))) == 0
    assert numbers((CLOSED, "execute"), lambda: Closed().execute()) == 0
    assert numbers((MADE, "execute"), lambda: OTHER.execute(1)) == 0
    assert numbers((FROZEN, "execute"), lambda: Frozen(3).execute()) == 0


def test_a_call_that_raises_is_counted_and_its_error_is_the_same() -> None:
    calls = Calls()
    with calls.of("it", (MADE, "execute"), nullcontext), pytest.raises(TypeError, match="missing 1 required"):
        MADE.execute()  # type: ignore[call-arg]
    assert calls.numbers["it"] == 1


@pytest.mark.parametrize(
    "target",
    [3, "decode", lambda x: x, sum, Context, (MADE, "nothing"), (MADE,), (MADE, 3), (1, "__add__"), (int, "bit_count"),
     ({}, "get"), None],
)  # fmt: skip
def test_what_cannot_be_met_is_refused(target: object) -> None:
    with (
        pytest.raises(InvalidInput, match="a pair of an owner and the name of its function"),
        Block(count={"it": target}),
    ):
        pass


@pytest.mark.parametrize(("without", "count"), [({"": MADE}, {}), ({}, {"a\n": MADE}), ({"a": MADE}, {"a": OTHER})])
def test_names_of_targets_are_printable_and_no_two_the_same(without: dict[str, Any], count: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="only once"):
        Block(without, count)


# In a block.


class Decoder:
    def __init__(self) -> None:
        self.context = Context()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.context.execute(3)
        return (x * 2.0).clone() + x.sum().item()


class Ring:
    def __init__(self) -> None:
        self.decoder, self.x = Decoder(), torch.ones(3)

    def tick(self) -> None:
        self.x = self.decoder(self.x) + 1.0


def test_what_runs_inside_a_target_is_left_out_and_its_calls_are_one_count() -> None:
    ring = Ring()
    with Block(without={"decoder": ring.decoder}) as block:
        ring.tick()
        ring.tick()
    assert block.counts == {
        "host_reads": 0, "allocations": 2, "copies": 0, "operators": 2, "operator aten::add": 2, "calls decoder": 2,
    }  # fmt: skip
    assert block.lines == {}


def test_what_is_counted_inside_a_target_that_is_left_out_is_counted() -> None:
    ring = Ring()
    with Block(without={"decoder": ring.decoder}, count={"execute": ring.decoder.context.execute}) as block:
        ring.tick()
    assert [block.counts[name] for name in ("calls decoder", "calls execute", "operators")] == [1, 1, 1]


def test_after_a_target_that_raises_counting_goes_on() -> None:
    ring = Ring()
    with Block(without={"decoder": ring.decoder}) as block:
        with pytest.raises(TypeError):
            ring.decoder(None)  # type: ignore[arg-type]
        ring.x + 1.0
        ring.x.tolist()
    assert [block.counts[name] for name in ("calls decoder", "operators", "host_reads")] == [1, 1, 1]


def test_a_target_that_another_thread_calls_is_counted_and_leaves_nothing_of_this_thread_out() -> None:
    entered, leave = threading.Event(), threading.Event()
    ring = SimpleNamespace(wait=lambda: (entered.set(), leave.wait(10)))
    with Block(without={"wait": (ring, "wait")}) as block:
        other = threading.Thread(target=ring.wait)
        other.start()
        assert entered.wait(10)
        torch.ones(2).neg()
        leave.set()
        other.join(10)
    assert (block.counts["operator aten::neg"], block.counts["calls wait"]) == (1, 1)


def test_a_block_inside_a_block_can_be_left_out_by_hand() -> None:
    x = torch.ones(2)
    with Block() as block:
        with block.outside():
            x.neg().tolist()
            with block.outside():
                x.neg()
            x.neg()
        x.abs()
    assert (block.counts["operators"], block.counts["operator aten::abs"], block.counts["host_reads"]) == (1, 1, 0)


def test_a_target_that_cannot_be_met_leaves_the_others_as_they_were() -> None:
    before = dict(vars(MADE))
    with pytest.raises(InvalidInput), Block(without={"a": (MADE, "execute")}, count={"b": 3}):
        pass
    assert vars(MADE) == before
