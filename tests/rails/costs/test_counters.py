from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.dlpack
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.rails.costs.counters import HostReads, Operators

VALUES, SCALAR, INDEX = torch.ones(3), torch.tensor(2.0), torch.tensor(1)

READS: dict[str, Callable[[], Any]] = {
    "item": lambda: SCALAR.item(),
    "tolist": lambda: VALUES.tolist(),
    "numpy": lambda: VALUES.numpy(),
    "from_dlpack": lambda: np.from_dlpack(VALUES),
    "cpu": lambda: VALUES.cpu(),
    "to a device's name": lambda: VALUES.to("cpu"),
    "to a device": lambda: VALUES.to(device=torch.device("cpu")),
    "bool": lambda: bool(SCALAR),
    "if": lambda: 1 if (VALUES > 0).any() else 0,
    "int": lambda: int(SCALAR),
    "float": lambda: float(SCALAR),
    "complex": lambda: complex(SCALAR),
    "math": lambda: math.sqrt(SCALAR),
    "an index into a list": lambda: [1, 2][INDEX],
    "a slice's end": lambda: VALUES[:INDEX],
    "in": lambda: 1.0 in VALUES,
    "repr": lambda: repr(VALUES),
    "format": lambda: f"{SCALAR}",
    "torch.equal": lambda: torch.equal(VALUES, VALUES),
    "equal": lambda: VALUES.equal(VALUES),
    "allclose": lambda: torch.allclose(VALUES, VALUES),
    "nonzero": lambda: VALUES.nonzero(),
    "where of one argument": lambda: torch.where(VALUES > 0),
    "a mask as index": lambda: VALUES[VALUES > 0],
    "a mask assigned to": lambda: torch.zeros(3).__setitem__(VALUES > 0, VALUES),
    "a mask that index_put is given": lambda: VALUES.index_put((VALUES > 0,), VALUES),
    "a mask assigned one element": lambda: torch.zeros(3).__setitem__(VALUES > 0, SCALAR),
    "a mask in a keyword": lambda: VALUES.index_put(values=SCALAR, indices=(VALUES > 0,)),
    "a mask beside an index, assigned a number": lambda: torch.zeros(3, 3).__setitem__((VALUES > 0, INDEX[None]), 2.0),
    "a mask added to": lambda: torch.ops.aten.index_put_(torch.zeros(3), [VALUES > 0], SCALAR, accumulate=True),
    "save": lambda: torch.save(VALUES, io.BytesIO()),
    "save in the older format": lambda: torch.save(VALUES, io.BytesIO(), _use_new_zipfile_serialization=False),
    "pickle": lambda: pickle.dumps(VALUES),
    "apply_": lambda: torch.zeros(3).apply_(lambda value: value + 1.0),
    "map_": lambda: torch.zeros(3).map_(VALUES, lambda value, other: value + other),
    "to_dlpack": lambda: torch.utils.dlpack.to_dlpack(VALUES),
    "torch.to_dlpack": lambda: torch.to_dlpack(VALUES),
    "__dlpack__": lambda: VALUES.__dlpack__(),
    "masked_select": lambda: torch.masked_select(VALUES, VALUES > 0),
    "unique": lambda: torch.unique(VALUES),
    "repeat_interleave": lambda: VALUES.repeat_interleave(torch.tensor([1, 2, 1])),
    "bincount": lambda: torch.bincount(INDEX[None]),
    "arange up to a tensor": lambda: torch.arange(INDEX),
    "filled with a tensor": lambda: torch.full((2,), SCALAR),
    "a tensor of tensors": lambda: torch.tensor([SCALAR, SCALAR]),
    "a tensor of a tensor in a keyword": lambda: torch.tensor(data=[SCALAR]),
    "a tensor of a tensor with a dtype": lambda: torch.tensor([SCALAR], dtype=torch.float64),
    "a tensor of tensors in a list in a list": lambda: torch.as_tensor([[SCALAR, SCALAR]]),
    "a tensor of a tensor last and deep": lambda: torch.tensor([[(1.0, 2.0)], [(3.0, SCALAR)]]),
    "a tensor of tensors in tuples in a keyword": lambda: torch.as_tensor(data=((SCALAR,), (SCALAR,))),
    "an array of a tensor": lambda: torch.asarray([[SCALAR]]),
    "an array of a tensor in a keyword": lambda: torch.asarray(obj=[SCALAR]),
    "a new tensor of a tensor": lambda: VALUES.new_tensor([SCALAR]),
    "a new tensor of a tensor in a keyword": lambda: VALUES.new_tensor(data=[[SCALAR]]),
    "new of a tensor": lambda: VALUES.new([[SCALAR]]),
}
NO_READS: dict[str, Callable[[], Any]] = {
    "arithmetic": lambda: VALUES * SCALAR + 1.0,
    "a comparison": lambda: (VALUES > 0).any(),
    "shape and dtype": lambda: (VALUES.shape, VALUES.dtype, VALUES.ndim, VALUES.numel()),
    "a clone": lambda: VALUES.clone(),
    "a copy of the object": lambda: (copy.copy(VALUES), copy.deepcopy(VALUES)),
    "another dtype": lambda: VALUES.to(torch.float64),
    "an integer as index": lambda: VALUES[1:2],
    "an index tensor": lambda: VALUES[INDEX[None]],
    "an index tensor assigned to": lambda: torch.zeros(3).__setitem__(INDEX[None], SCALAR),
    "a mask filled with a number": lambda: torch.zeros(3).__setitem__(VALUES > 0, 2.0),
    "where of three": lambda: torch.where(VALUES > 0, VALUES, SCALAR),
    "numbers into a tensor": lambda: torch.tensor([1.0, 2.0]),
    "numbers in lists into a tensor": lambda: torch.tensor(data=[[1.0, 2.0], [3.0, 4.0]]),
    "numbers into a new tensor": lambda: VALUES.new_tensor([[1.0], (2.0,)]),
    "a tensor made of one whole tensor": lambda: torch.as_tensor(SCALAR),
    "an array made of one whole tensor": lambda: torch.asarray(VALUES),
    "a list of tensors to join": lambda: torch.stack([VALUES, VALUES]),
    "its address": lambda: VALUES.data_ptr(),
}


FROM_A_DEVICE: dict[str, Callable[[torch.Tensor], Any]] = {
    "cpu": lambda there: there.cpu(),
    "to a device's name": lambda there: there.to("cpu"),
    "to a device and dtype": lambda there: there.to(device=torch.device("cpu"), dtype=torch.float64),
    "a copy": lambda there: torch.empty(3).copy_(there),
}


@pytest.mark.parametrize("act", READS.values(), ids=READS)
def test_a_read_is_counted(act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
    assert reads.seen


@pytest.mark.parametrize("act", READS.values(), ids=READS)
def test_a_read_is_one_read_however_many_modes_see_it(act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
        act()
    assert sum(reads.seen.values()) == 2


NAMED: dict[str, Callable[[], Any]] = {
    "torch.Tensor.item": lambda: SCALAR.item(),
    "torch.Tensor.tolist": lambda: VALUES.tolist(),
    "torch.Tensor.numpy": lambda: VALUES.numpy(),
    "torch.Tensor.cpu": lambda: VALUES.cpu(),
    "torch.Tensor.__bool__": lambda: bool(SCALAR),
    "torch.Tensor.__int__": lambda: int(SCALAR),
    "torch.Tensor.__float__": lambda: float(SCALAR),
    "torch.Tensor.__complex__": lambda: complex(SCALAR),
    "torch.Tensor.__index__": lambda: [1, 2][INDEX],
    "torch.Tensor.__array__": lambda: VALUES.__array__(),
    "torch.Tensor.__contains__": lambda: 1.0 in VALUES,
    "torch.Tensor.__repr__": lambda: repr(VALUES),
    "torch.Tensor.__format__": lambda: f"{SCALAR}",
    "torch.Tensor.__dlpack__": lambda: VALUES.__dlpack__(),
    "torch.Tensor.apply_": lambda: torch.zeros(3).apply_(lambda value: value + 1.0),
    "torch.Tensor.map_": lambda: torch.zeros(3).map_(VALUES, lambda value, other: value + other),
    "torch.Tensor.map2_": lambda: torch.zeros(3).map2_(VALUES, VALUES, lambda value, *_others: value),
    "torch.Tensor.equal": lambda: VALUES.equal(VALUES),
    "torch.Tensor.allclose": lambda: VALUES.allclose(VALUES),
    "torch.Tensor.is_nonzero": lambda: SCALAR.is_nonzero(),
    "torch.Tensor.nonzero": lambda: VALUES.nonzero(),
    "torch.Tensor.argwhere": lambda: VALUES.argwhere(),
    "torch.Tensor.masked_select": lambda: VALUES.masked_select(VALUES > 0),
    "torch.Tensor.unique": lambda: VALUES.unique(),
    "torch.Tensor.unique_consecutive": lambda: VALUES.unique_consecutive(),
    "torch.Tensor.bincount": lambda: INDEX[None].bincount(),
    "torch.Tensor.histc": lambda: VALUES.histc(),
    "torch.Tensor.repeat_interleave": lambda: VALUES.repeat_interleave(torch.tensor([1, 2, 1])),
    "torch.equal": lambda: torch.equal(VALUES, VALUES),
    "torch.allclose": lambda: torch.allclose(VALUES, VALUES),
    "torch.is_nonzero": lambda: torch.is_nonzero(SCALAR),
    "torch.nonzero": lambda: torch.nonzero(VALUES),
    "torch.argwhere": lambda: torch.argwhere(VALUES),
    "torch.masked_select": lambda: torch.masked_select(VALUES, VALUES > 0),
    "torch.functional.unique": lambda: torch.unique(VALUES),
    "torch.functional.unique_consecutive": lambda: torch.unique_consecutive(VALUES),
    "torch.bincount": lambda: torch.bincount(INDEX[None]),
    "torch.histc": lambda: torch.histc(VALUES),
    "torch.repeat_interleave": lambda: torch.repeat_interleave(VALUES, torch.tensor([1, 2, 1])),
    "torch.tensor": lambda: torch.tensor([[SCALAR]]),
    "torch.as_tensor": lambda: torch.as_tensor([[SCALAR]]),
    "torch.asarray": lambda: torch.asarray([[SCALAR]]),
    "torch.Tensor.new_tensor": lambda: VALUES.new_tensor([[SCALAR]]),
}


@pytest.mark.parametrize(("name", "act"), NAMED.items(), ids=NAMED)
def test_a_read_that_python_asked_for_has_the_name_of_the_call(name: str, act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
    assert reads.seen == {name: 1}


@pytest.mark.parametrize("act", FROM_A_DEVICE.values(), ids=FROM_A_DEVICE)
def test_a_copy_from_a_device_is_one_read(act: Callable[[torch.Tensor], Any]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.empty(3, device="cuda")
        with HostReads() as reads:
            act(there)
    assert sum(reads.seen.values()) == 1


def test_a_read_goes_by_what_python_asked_and_else_by_the_operator() -> None:
    with HostReads() as reads:
        SCALAR.item()
        torch.arange(INDEX)
        bool(SCALAR)
        VALUES[VALUES > 0]
    assert reads.seen == {
        "torch.Tensor.item": 1, "torch.Tensor.__bool__": 1, "aten::_local_scalar_dense": 1, "aten::index": 1,
    }  # fmt: skip


def test_a_read_that_fails_hides_no_later_one() -> None:
    with HostReads() as reads:
        with pytest.raises(RuntimeError):
            VALUES.item()
        torch.arange(INDEX)
    assert reads.seen == {"torch.Tensor.item": 1, "aten::_local_scalar_dense": 1}


def test_a_block_within_another_counts_a_read_once_in_each() -> None:
    with HostReads() as outer, HostReads() as inner:
        SCALAR.item()
        torch.arange(INDEX)
    assert outer.seen == inner.seen == {"torch.Tensor.item": 1, "aten::_local_scalar_dense": 1}


def test_what_one_save_reads_is_one_read_and_a_later_read_counts() -> None:
    with HostReads() as outer, HostReads() as inner:
        torch.save({"a": VALUES, "b": [SCALAR]}, io.BytesIO())
        SCALAR.item()
    assert outer.seen == inner.seen == {"torch.save": 1, "torch.Tensor.item": 1}


def test_a_block_leaves_the_functions_that_it_replaced_as_they_were() -> None:
    def functions() -> list[Any]:
        return [torch.serialization._save, torch.serialization._legacy_save, torch.to_dlpack]

    before = functions()
    with pytest.raises(ZeroDivisionError), HostReads(), HostReads():
        assert functions() != before
        raise ZeroDivisionError
    assert functions() == before


def test_a_pause_within_another_ends_with_the_outer_one() -> None:
    with Operators() as operators:
        with operators.paused():
            with operators.paused():
                VALUES + 1.0
            VALUES + 1.0
        VALUES * 2.0
    assert operators.names == {"aten::mul": 1}


def test_a_result_that_is_written_into_a_given_tensor_is_no_allocation() -> None:
    given = torch.empty(3)
    with Operators() as operators:
        torch.add(VALUES, VALUES, out=given)
    assert (operators.names, operators.allocations) == ({"aten::add": 1}, 0)


@pytest.mark.parametrize("act", NO_READS.values(), ids=NO_READS)
def test_what_reads_nothing_is_not_counted(act: Callable[[], Any]) -> None:
    with HostReads() as reads:
        act()
    assert reads.seen == {}


@pytest.mark.parametrize("act", ["tolist", "cpu", "numpy"])
def test_a_dispatch_mode_alone_would_miss_some(act: str) -> None:
    with HostReads() as reads:
        READS[act]()
    assert reads.functions
    assert not reads.operators


@pytest.mark.parametrize("act", ["where of one argument", "a slice's end", "arange up to a tensor"])
def test_a_function_mode_alone_would_miss_some(act: str) -> None:
    with HostReads() as reads:
        READS[act]()
    assert reads.operators
    assert not reads.functions


def test_every_read_counts_and_nothing_outside_the_block_does() -> None:
    SCALAR.item()
    with HostReads() as reads:
        for _ in range(3):
            SCALAR.item()
            VALUES.tolist()
    VALUES.tolist()
    assert reads.functions == {"torch.Tensor.item": 3, "torch.Tensor.tolist": 3}
    assert reads.operators == {"aten::_local_scalar_dense": 3}


def test_the_modes_are_gone_after_an_error() -> None:
    reads = HostReads()
    with pytest.raises(ZeroDivisionError), reads:
        raise ZeroDivisionError
    SCALAR.item()
    assert reads.seen == {}
