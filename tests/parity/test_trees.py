"""Trees of tensors by name."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from typing import Any

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.compare import NotComparable, compare_trees, identical
from harness.parity.trees import ROOT, devices, leaves, named

X = torch.arange(3.0)


@dataclass
class State:
    x: torch.Tensor
    kept: Any = None


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (X, [ROOT]),
        ({"a": X, "b": {"c": X}}, ["a", "b/c"]),
        ([X, (X, X)], ["[0]", "[1][0]", "[1][1]"]),
        ([State(X), State(X, {0: X})], ["[0]/x", "[0]/kept is None", "[1]/x", "[1]/kept/0"]),
        (namedtuple("Pair", "a b")(X, X), ["[0]", "[1]"]),
        ({"a/b": X, "0": X, 0: X, "layer.0.w": X}, ["['a/b']", "['0']", "0", "layer.0.w"]),
        (None, [f"{ROOT} is None"]),
        ({"a": [], "b": {}}, ["a is empty", "b is empty"]),
    ],
)  # fmt: skip
def test_every_part_has_a_name_of_its_own(tree: object, names: list[str]) -> None:
    assert list(named(tree)) == names


@dataclass
class Hidden(State):
    """Fields that Python treats in ways of its own."""

    _average: Any = field(default_factory=lambda: X)
    __count: Any = field(default_factory=lambda: X)
    unshown: Any = field(default_factory=lambda: X, repr=False)
    unequal: Any = field(default_factory=lambda: X, compare=False, hash=False)
    by_name: Any = field(default_factory=lambda: X, kw_only=True)


NAMES = [each.name for each in fields(Hidden)]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_dataclass_is_part_of_its_tree(name: str) -> None:
    assert list(named(Hidden(X, X))) == NAMES
    (found,) = compare_trees(replace(Hidden(X, X), **{name: X + 1}), Hidden(X, X))
    assert found.name == name


@pytest.mark.parametrize("key", ["_x", "__x__", "", 0])
def test_every_key_of_a_mapping_is_part_of_its_tree(key: str | int) -> None:
    assert len(named({"x": X, key: X})) == 2
    assert len(compare_trees({"x": X, key: X + 1}, {"x": X, key: X})) == 1


@pytest.mark.parametrize("leaf", [object(), bytearray(b"x"), {1, 2}, State, X.to_sparse(), X.to("meta")])
def test_a_leaf_that_cannot_be_read_is_refused_by_name(leaf: object) -> None:
    with pytest.raises(NotComparable, match=r"^a\[0\] cannot be compared"):
        named({"a": [leaf]})


@pytest.mark.parametrize("key", [True, None, (1, 2), 1.5])
def test_a_key_that_is_neither_text_nor_an_integer_is_refused(key: object) -> None:
    with pytest.raises(InvalidInput, match="key"):
        named({key: X})


def test_what_is_named_is_a_copy_with_flags_applied() -> None:
    x = torch.view_as_complex(torch.tensor([[1.0, 2.0]]))
    (kept,) = named(x.conj()).values()
    x.zero_()
    assert not kept.is_conj() and kept.is_contiguous()
    assert identical(kept, torch.tensor([1 - 2j], dtype=torch.complex64))


def test_devices_are_those_of_the_tensors() -> None:
    assert devices({"a": X, "b": [None, X.to("meta")]}) == {torch.device("cpu"), torch.device("meta")}


KEYS: list[tuple[str | int, str]] = [
    ("x", "/x"), ("_x", "/_x"), ("x-1", "/x-1"), ("x.y", "/x.y"), ("x9", "/x9"), ("größe", "/größe"), ("Ω", "/Ω"),
    (0, "/0"), (12, "/12"), (-1, "/-1"), ("0", "['0']"), ("9x", "['9x']"), ("-x", "['-x']"), (".x", "['.x']"),
    ("", "['']"), ("x y", "['x y']"), ("x ", "['x ']"), ("x\n", r"['x\n']"), ("x/y", "['x/y']"), ("x[0]", "['x[0]']"),
    ("it's", '["it\'s"]'),
]  # fmt: skip


@pytest.mark.parametrize(("key", "step"), KEYS)
def test_a_key_is_quoted_where_it_looks_like_several_steps_or_like_a_number(key: str | int, step: str) -> None:
    assert list(named({"a": {key: X}})) == [f"a{step}"]
    (found,) = compare_trees({"a": {key: X + 1}}, {"a": {key: X}})
    assert found.name == f"a{step}"


class Word(StrEnum):
    X = "x"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(("key", "name"), [(Word.X, "x"), (Number.ONE, "1")])
def test_a_key_of_an_enumeration_is_the_text_or_the_number_that_it_is(key: Any, name: str) -> None:
    assert list(named({key: X})) == [name]


@pytest.mark.parametrize(("leaf", "name"), [
    ("", "a as str"), ("text", "a as str"), (b"", "a as bytes"), (b"ab", "a as bytes"), (0, "a as int"),
    (0.0, "a as float"), (False, "a as bool"), (0j, "a as complex"), ((), "a is empty"), (X.numpy(), "a as array"),
    (X.numpy()[0], "a as scalar"),
])  # fmt: skip
def test_a_leaf_that_is_no_tensor_has_its_type_in_its_name(leaf: Any, name: str) -> None:
    assert list(named({"a": leaf})) == [name]
    assert list(leaves({"a": leaf})) == [("a", leaf)]


@pytest.mark.parametrize("leaf", [bytearray(), bytearray(b"ab"), object()])
def test_a_leaf_of_another_type_is_refused_by_its_name(leaf: object) -> None:
    said = "^a cannot be compared: expected a tensor, a NumPy array, a number or a text, got "
    with pytest.raises(NotComparable, match=said + type(leaf).__name__):
        named({"a": leaf})
    assert list(leaves({"a": leaf})) == [("a", leaf)]


def test_paths_of_leaves_begin_with_the_path_of_the_tree() -> None:
    assert [path for path, _ in leaves({"a": X, "b": [X]}, "p")] == ["p/a", "p/b[0]"]
    assert [path for path, _ in leaves(X, "p")] == ["p"]
    assert [path for path, _ in leaves([X])] == ["[0]"]


def test_a_tensor_without_an_element_has_a_device_and_a_name_too() -> None:
    empty = torch.empty(0, device="meta")
    assert devices([empty]) == {torch.device("meta")}
    assert devices([None, {}, "x"]) == set()
    assert list(named({"a": torch.empty(0)})) == ["a"]
