"""Which operators read whoever calls them, what the functions that no mode sees are called, and what is no read."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.engine.curve import Curve, curve
from harness.rails.costs.counters import HostReads, Operators
from harness.rails.costs.workload import curves_touched

ATEN = torch.ops.aten
VALUES, SCALAR, INDEX = torch.ones(3), torch.tensor(2.0), torch.tensor(1)
MASK = VALUES > 0
SQUARE = torch.ones(3, 3)

OPERATORS: dict[str, list[Callable[[], Any]]] = {
    "_local_scalar_dense": [lambda: ATEN._local_scalar_dense(SCALAR), lambda: ATEN.item(SCALAR)],
    "equal": [lambda: ATEN.equal(VALUES, VALUES)],
    "nonzero": [lambda: ATEN.nonzero(VALUES), lambda: torch.where(MASK)],
    "masked_select": [lambda: ATEN.masked_select(VALUES, MASK)],
    "_unique2": [lambda: ATEN._unique2(VALUES)],
    "unique_dim": [lambda: ATEN.unique_dim(SQUARE, 0)],
    "unique_consecutive": [lambda: ATEN.unique_consecutive(VALUES)],
    "bincount": [lambda: ATEN.bincount(INDEX[None])],
    "index": [
        lambda: ATEN.index(VALUES, [MASK]),
        lambda: ATEN.index(SQUARE, [None, MASK]),
        lambda: SQUARE[:, MASK],
        lambda: SQUARE[INDEX[None], MASK],
    ],
    "index_put": [
        lambda: ATEN.index_put(VALUES, [MASK], VALUES),
        lambda: ATEN.index_put(VALUES, [MASK], SCALAR, True),
        lambda: ATEN.index_put(SQUARE, [MASK, INDEX[None]], SCALAR),
    ],
    "index_put_": [
        lambda: ATEN.index_put_(torch.zeros(3), [MASK], VALUES),
        lambda: ATEN.index_put_(torch.zeros(3), [MASK], SCALAR, accumulate=True),
    ],
    "_index_put_impl_": [
        lambda: ATEN._index_put_impl_(torch.zeros(3), [MASK], VALUES),
        lambda: ATEN._index_put_impl_(torch.zeros(3), [MASK], SCALAR, True),
    ],
}


@pytest.mark.parametrize(("name", "acts"), OPERATORS.items(), ids=OPERATORS)
def test_an_operator_that_reads_is_one_read_of_its_name_whoever_calls_it(
    name: str, acts: list[Callable[[], Any]]
) -> None:
    for act in acts:
        with HostReads() as reads:
            act()
        assert reads.seen == dict(reads.operators) == {f"aten::{name}": 1}
        assert not reads.functions


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
def test_a_mask_of_bytes_is_a_mask_like_one_of_bools() -> None:
    with HostReads() as reads:
        VALUES[MASK.to(torch.uint8)]
    assert reads.seen == {"aten::index": 1}


ONE = torch.ones(1, 1)
CALLS: dict[str, tuple[str, Callable[[], Any]]] = {
    "a mask assigned a tensor": ("torch.Tensor.__setitem__", lambda: torch.zeros(3).__setitem__(MASK, SCALAR)),
    "masks in a tuple": ("torch.Tensor.__setitem__", lambda: torch.zeros(3).__setitem__((MASK,), SCALAR)),
    "a mask beside a slice": (
        "torch.Tensor.__setitem__",
        lambda: torch.zeros(3, 3).__setitem__((slice(None), MASK), SCALAR),
    ),
    "index_put": ("torch.Tensor.index_put", lambda: VALUES.index_put((MASK,), SCALAR)),
    "index_put_": ("torch.Tensor.index_put_", lambda: torch.zeros(3).index_put_((MASK,), SCALAR)),
    "torch.index_put": ("torch.index_put", lambda: torch.index_put(VALUES, (MASK,), SCALAR)),
    "torch.index_put_": ("torch.index_put_", lambda: torch.index_put_(torch.zeros(3), (MASK,), SCALAR)),
    "indices in a list": ("torch.Tensor.index_put_", lambda: torch.zeros(3).index_put_([MASK], SCALAR)),
    "new of a tensor": ("torch.Tensor.new", lambda: VALUES.new([[SCALAR]])),
    "to a place's name in a keyword": ("torch.Tensor.to", lambda: VALUES.to(device="cpu")),
    "to a place and a dtype": ("torch.Tensor.to", lambda: VALUES.to(torch.device("cpu"), torch.float64)),
    "save": ("torch.save", lambda: torch.save([VALUES, SCALAR], io.BytesIO())),
    "save in the older format": (
        "torch.save",
        lambda: torch.save([VALUES, SCALAR], io.BytesIO(), _use_new_zipfile_serialization=False),
    ),
    "pickle": ("torch.save", lambda: pickle.dumps(VALUES)),
    "to_dlpack": ("torch.to_dlpack", lambda: torch.utils.dlpack.to_dlpack(VALUES)),
    "torch.to_dlpack": ("torch.to_dlpack", lambda: torch.to_dlpack(VALUES)),
}


@pytest.mark.parametrize(("name", "act"), CALLS.values(), ids=CALLS)
def test_a_call_that_reads_is_one_read_of_the_name_of_the_call(name: str, act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
    assert reads.seen == dict(reads.functions) == {name: 1}


def test_pickling_is_one_read_for_each_tensor_s_storage() -> None:
    with HostReads() as reads:
        pickle.dumps([VALUES, SCALAR])
        pickle.dumps(INDEX)
    assert reads.seen == {"torch.save": 3}


def test_a_replaced_function_still_makes_what_it_makes_and_keeps_its_name() -> None:
    before = [torch.to_dlpack.__name__, torch.serialization._save.__name__]
    with HostReads():
        there = torch.from_dlpack(torch.to_dlpack(VALUES))
        within = [torch.to_dlpack.__name__, torch.serialization._save.__name__]
    assert there.data_ptr() == VALUES.data_ptr()
    assert within == before


NO_READS: dict[str, Callable[[], Any]] = {
    "made on the CPU": lambda: (torch.zeros(3, device="cpu"), torch.empty(2, device=torch.device("cpu"))),
    "a tensor of a number on the CPU": lambda: torch.tensor(1.0, device="cpu"),
    "a tensor of nothing": lambda: torch.tensor([]),
    "to another device than the CPU": lambda: (VALUES.to("meta"), VALUES.to(device=torch.device("meta"))),
    "to the place of another tensor": lambda: VALUES.to(SCALAR),
    "copied on the CPU": lambda: torch.zeros(3).copy_(VALUES),
    "a mask and a slice filled with a number": lambda: torch.zeros(3, 3).__setitem__((slice(None), MASK), 2.0),
    "a mask filled by the operator": lambda: ATEN.index_put_(torch.zeros(3), [MASK], ONE),
    "a mask filled by the operator, not added": lambda: ATEN.index_put_(torch.zeros(3), [MASK], SCALAR, False),
    "an index put": lambda: torch.index_put(VALUES, (INDEX[None],), SCALAR),
    "an index put by the operator": lambda: ATEN._index_put_impl_(torch.zeros(3), [INDEX[None]], VALUES[:1], True),
    "a masked fill": lambda: VALUES.masked_fill(MASK, 2.0),
    "a name that says cpu": lambda: torch.einsum("c,u->cu", VALUES, VALUES),
}


@pytest.mark.parametrize("act", NO_READS.values(), ids=NO_READS)
def test_what_looks_like_a_read_and_is_none_is_not_counted(act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
    assert (reads.seen, reads.functions, reads.operators) == ({}, {}, {})


# Copies between devices, without a GPU.

FROM_THERE: dict[str, Callable[[torch.Tensor], Any]] = {
    "copy_": lambda there: torch.empty(3).copy_(there),
    "copy": lambda there: ATEN.copy(torch.empty(3), there),
    "_to_copy": lambda there: ATEN._to_copy(there, device="cpu"),
    "index_put_": lambda there: ATEN.index_put_(there, [there > 0], there.new_empty(())),
}
STAYS_THERE: dict[str, Callable[[torch.Tensor], Any]] = {
    "copied to a device": lambda there: (there.copy_(VALUES), ATEN.copy(there, VALUES)),
    "moved to a device": lambda there: (VALUES.to(there.device), ATEN._to_copy(VALUES, device=there.device)),
    "copied on a device": lambda there: (there.clone(), torch.empty_like(there).copy_(there), there.double()),
    "a number filled in on a device": lambda there: ATEN.index_put_(there, [there > 0], torch.tensor(2.0)),
}


@pytest.mark.parametrize(("name", "act"), FROM_THERE.items(), ids=FROM_THERE)
def test_what_comes_from_a_device_to_the_host_is_one_read_of_the_operator(
    name: str, act: Callable[[torch.Tensor], Any]
) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.empty(3, device="cuda")
        with HostReads() as reads:
            act(there)
    assert reads.seen == dict(reads.operators) == {f"aten::{name}": 1}


@pytest.mark.parametrize("act", STAYS_THERE.values(), ids=STAYS_THERE)
def test_what_goes_to_a_device_or_stays_there_is_no_read(act: Callable[[torch.Tensor], Any]) -> None:
    there = torch.empty(3, device="meta")
    with HostReads() as reads:
        act(there)
    assert (reads.seen, reads.operators) == ({}, {})


# Operators, allocations and copies.


def test_operators_are_counted_by_name_and_new_memory_and_copies_in_total() -> None:
    given, table = torch.zeros(3), {"a": torch.zeros(3)}
    with Operators() as operators:
        given.add_(1.0)
        given + 1
        given + given
        given.max(dim=0)
        given.chunk(3)
        given.view(3, 1)
        given.clone()
        given.copy_(VALUES)
        given.double()
        torch.mul(given, 2.0, out=table["a"])
        torch._foreach_add_([given, table["a"]], 1.0)
        torch._foreach_add([given, table["a"]], 1.0)
        torch.empty(2)
        given.detach()
        given.expand(2, 3)
        given.t()
        given.contiguous()
        torch.tensor([1.0])
    assert operators.names == {
        "aten::add_": 1, "aten::add": 2, "aten::max": 1, "aten::split": 1, "aten::view": 1, "aten::clone": 1,
        "aten::copy_": 1, "aten::_to_copy": 1, "aten::mul": 1, "aten::_foreach_add_": 1, "aten::_foreach_add": 1,
        "aten::empty": 1, "aten::detach": 1, "aten::expand": 1, "aten::t": 1, "aten::lift_fresh": 1,
    }  # fmt: skip
    # Two of add, two of max, one each of clone and double, two of the list, one of empty.
    assert (operators.allocations, operators.copies) == (9, 3)


def test_what_is_counted_goes_on_in_a_second_block() -> None:
    operators, reads = Operators(), HostReads()
    for _ in range(2):
        with reads, operators:
            VALUES.clone()
            SCALAR.item()
        VALUES.clone()
        SCALAR.item()
    assert operators.names == {"aten::clone": 2, "aten::_local_scalar_dense": 2}
    assert (operators.allocations, operators.copies) == (2, 2)
    assert reads.seen == {"torch.Tensor.item": 2}


def test_a_pause_ends_where_it_fails() -> None:
    with Operators() as operators:
        with pytest.raises(ZeroDivisionError), operators.paused():
            VALUES + 1.0
            raise ZeroDivisionError
        VALUES * 2.0
    assert operators.names == {"aten::mul": 1}


# Curves.


def test_each_access_to_a_curve_s_values_is_counted_and_no_other_access_nor_one_outside() -> None:
    counts, held, plain = Counter[str](), curve("scale", VALUES), Curve.__getattribute__
    assert held.values is not None
    with curves_touched(counts):
        assert held.values is held.values
        _ = (held.uniform, held.smallest, held.largest, held.is_everywhere(1.0))
    assert held.values is not None
    assert counts == {"curves": 2}
    with pytest.raises(ZeroDivisionError), curves_touched(counts):
        _ = held.values
        raise ZeroDivisionError
    assert held.values is not None
    assert counts == {"curves": 3}
    assert Curve.__getattribute__ is plain
