"""Numbers, texts and NumPy's arrays and scalars as leaves of trees."""

from __future__ import annotations

import math
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.parity import values
from harness.parity.baselines import blessed
from harness.parity.baselines.blessed import OutOfBound, Place
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Verdict
from harness.parity.compare import Difference, NotComparable, ParityError, tree_differences
from harness.parity.proofs.generic import EnginesParted, run
from harness.parity.trees import named
from tests.parity.baselines.test_blessed import another_machine

ONES: dict[str, Any] = {
    "int": 1, "bool": True, "float": 1.0, "complex": 1 + 0j, "str": "1", "bytes": b"1",
    "tensor": torch.tensor(1), "bool tensor": torch.tensor(True), "float tensor": torch.tensor(1.0).double(),
    "array": np.array(1), "bool array": np.array(True), "float array": np.array(1.0), "array of one": np.array([1]),
    "scalar": np.int64(1), "bool scalar": np.bool_(True), "float scalar": np.float64(1.0),
    "narrow scalar": np.float32(1.0), "text tensor": torch.tensor([49], dtype=torch.uint8), "None": None, "empty": [],
    "big": 2**64, "list": [1],
}  # fmt: skip
DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64", "complex64", "complex128"]  # fmt: skip


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path / "captures", tmp_path)


def bless(place: Place, tree: object, k: float = 0.0) -> None:
    blessed.bless("tree", tree, lambda: tree, place, "why", k)


def differences(got: object, expected: object) -> list[Difference]:
    return tree_differences(named({"n": got}), named({"n": expected}))


def told(got: object, expected: object) -> str:
    (found,) = differences(got, expected)
    return str(found)


@pytest.mark.parametrize("one", ONES)
def test_ones_of_different_types_are_different_leaves(one: str) -> None:
    others = [name for name in ONES if name != one]
    assert [name for name in others if not differences(ONES[one], ONES[name])] == []


@pytest.mark.parametrize("leaf", ONES)
def test_equal_leaves_are_the_same_also_behind_a_capture(leaf: str, place: Place) -> None:
    tree = {"leaf": ONES[leaf], "x": torch.ones(1)}
    bless(place, tree)
    assert blessed.check("tree", tree, place).verdict is Verdict.EXACT
    with pytest.raises(ParityError, match=r"^tree is not identical, \d difference\(s\):\n  leaf: "):
        blessed.check("tree", {**tree, "leaf": 7}, place)


@pytest.mark.parametrize(("got", "expected", "words"), [
    (4, 3, "n: value differs, got 4, expected 3"),
    (-(2**63) - 1, 2**63, "n: value differs, got -0x8000000000000001, expected 0x8000000000000000"),
    (2**63 - 1, 2**63, "n: value differs, got 9223372036854775807, expected 0x8000000000000000"),
    (True, False, "n: value differs, got True, expected False"),
    (True, 1, "n: type differs, got bool True, expected int 1"),
    (1.0, 1, "n: type differs, got float 1.0, expected int 1"),
    (torch.tensor(1), 1, "n: type differs, got torch.int64 tensor of shape [], expected int 1"),
    (np.array([1.0]), np.float64(1), "n: type differs, got NumPy array, torch.float64 [1], "
     "expected NumPy scalar, torch.float64 []"),
    (None, [], "n: type differs, got None, expected an empty container"),
    ("on", "off", "n: value differs, got 'on', expected 'off'"),
    ("", "x", "n: value differs, got '', expected 'x'"),
    (b"on", b"of", "n: value differs, got b'on', expected b'of'"),
    ("a" * 100 + "b", "a" * 101, f"n: value differs, got {'a' * 20 + 'b'!r} from 80 on, of 101, "
     f"expected {'a' * 21!r} from 80 on, of 101"),
    (np.float32(1), np.float64(1), "n: dtype differs, got torch.float32, expected torch.float64"),
    (np.zeros((2, 1)), np.zeros(2), "n: shape differs, got (2, 1), expected (2,)"),
    (0.1 + 0.2, 0.3, "n: bytes differ in 1 of 1 elements, first at the only element: got 0.30000000000000004 "
     "(0x3fd3333333333334), expected 0.3 (0x3fd3333333333333); max |Δ| 5.55e-17; max 1 ULP"),
])  # fmt: skip
def test_a_difference_of_values_is_told_in_their_own_words(got: object, expected: object, words: str) -> None:
    assert told(got, expected) == words


@pytest.mark.parametrize(("got", "expected"), [
    (0.0, -0.0), (np.float32(0.0), np.float32(-0.0)), (np.zeros(2), -np.zeros(2)), (complex(0, 0.0), complex(0, -0.0)),
    (math.nan, -math.nan), (np.array([np.nan]), -np.array([np.nan])),
])  # fmt: skip
def test_zeros_and_nans_of_other_bits_differ_and_of_the_same_bits_do_not(got: Any, expected: Any) -> None:
    assert "bytes differ" in told(got, expected)
    assert differences(got, got) == differences(expected, expected) == []


@pytest.mark.parametrize("nan", [math.nan, complex(0, math.nan), np.float32(np.nan), np.array([1.0, np.nan])])
def test_a_nan_is_no_evidence_whatever_holds_it(nan: Any, place: Place) -> None:
    with pytest.raises(BlessRefused, match="^tree: x as [a-z]+ holds a NaN"):
        bless(place, {"n": 1, "x": nan})
    with pytest.raises(EnginesParted, match=r"x as [a-z]+ is NaN in both"):
        run(lambda _: {"x": nan}, lambda _: {"x": nan}, [1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_compares_by_bytes_in_every_dtype_that_torch_has(dtype: str) -> None:
    one = np.array([[0, 1], [1, 0]]).astype(dtype)
    other = one.copy()
    other.view(np.uint8).reshape(-1)[-1] ^= 1
    (found,) = differences(other, one)
    assert (found.kind, found.index, found.count, found.total) == ("bytes", (1, 1), 1, 4)
    assert differences(one.copy(), one) == []


@pytest.mark.parametrize("view", [
    lambda x: x.T, lambda x: np.asfortranarray(x), lambda x: x[::-1, ::-2], lambda x: np.broadcast_to(x[:1], (3, 4)),
    lambda x: x[:, 1:3], lambda x: x[1, 2, None, None], lambda x: x[:0],
])  # fmt: skip
def test_an_array_is_what_it_reads_whatever_its_order_in_memory(view: Any) -> None:
    x = np.arange(12.0).reshape(3, 4)
    assert differences(view(x), view(x).copy(order="C")) == []
    (kept,) = named(view(x)).values()
    assert torch.equal(kept, torch.tensor(view(x).tolist(), dtype=torch.float64).reshape(view(x).shape))


def test_later_writes_to_an_array_do_not_change_what_was_named() -> None:
    x = np.zeros(2)
    (kept,) = named(x).values()
    x[:] = 1
    assert kept.tolist() == [0.0, 0.0]


class Number(IntEnum):
    ONE = 1


class Own(np.ndarray):
    pass


class Text(str):
    __slots__ = ()


REFUSED = [
    (np.zeros(2, [("a", "f4"), ("b", "i4")]), r"NumPy's dtype \[\('a', '<f4'\), \('b', '<i4'\)\]"),
    (np.array(["a"]), "NumPy's dtype <U1"), (np.array([object()]), "NumPy's dtype object"),
    (np.array(0, "M8[s]"), r"NumPy's dtype datetime64\[s\]"), (np.zeros(2, ">f4"), "NumPy's dtype >f4"),
    (np.longdouble(1), "NumPy's dtype float128"), (np.str_("a"), "NumPy's dtype <U1"),
    (np.ma.masked_array([1.0, 2.0], [True, False]), "got MaskedArray"), (np.zeros(1).view(Own), "got Own"),
    (Number.ONE, "got Number"), (Text("x"), "got Text"), (bytearray(b"x"), "got bytearray"), ({1}, "got set"),
    (object(), "got object"), (int, "got type"), (len, "got builtin_function_or_method"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("leaf", "said"), REFUSED, ids=lambda each: each if isinstance(each, str) else type(each).__name__
)
def test_what_has_no_rule_is_refused_by_name(leaf: object, said: str) -> None:
    with pytest.raises(NotComparable, match=rf"^a\[0\] cannot be compared: .*{said}"):
        named({"a": [leaf]})


def test_a_key_that_reads_like_a_typed_leaf_is_not_one() -> None:
    tree = {"n as int": torch.tensor(1), "n is None": torch.tensor(2), "n": 1, "a b": {"c": 2.0}, "é": "x\ny"}
    parts = [values.parted(name) for name in named(tree)]
    assert parts == [("['n as int']", "tensor"), ("['n is None']", "tensor"), ("n", "int"), ("['a b']/c", "float"),
                     ("é", "str")]  # fmt: skip
    assert values.parted("(root) as bool") == ("(root)", "bool")
    assert values.parted("x[0] is empty") == ("x[0]", "empty")


@pytest.mark.parametrize("text", ["", "é", "\x00", "\ud800", "a\nb", "x" * 70_000])
def test_every_text_is_a_leaf_of_its_own(text: str) -> None:
    assert differences(text, text) == []
    assert len(differences(text, text + "\x00")) == 1


def test_texts_with_other_halves_of_a_surrogate_pair_differ() -> None:
    assert len(differences("\ud800", "\ud801")) == 1


def test_where_one_long_text_goes_on_after_the_other_the_message_shows_its_end() -> None:
    got, expected = values.both("a" * 100 + "b", "a" * 100)
    assert "b" in got and "b" not in expected


def test_an_old_capture_of_tensors_and_none_is_read_as_before(place: Place) -> None:
    """Names and bytes as they are in captures that hold tensors alone."""
    tree = {"slots": [{"x": torch.ones(2)}, None], "empty": {}}
    assert {name: list(each.shape) for name, each in named(tree).items()} == {
        "slots[0]/x": [2], "slots[1] is None": [0], "empty is empty": [0],
    }  # fmt: skip
    bless(place, tree)
    with pytest.raises(ParityError) as error:
        blessed.check("tree", {"slots": [{"x": torch.ones(2)}, 3], "empty": None}, place)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert lines == ["slots[1]: type differs, got int 3, blessed None", "empty: type differs, got None, "
                     "blessed an empty container"]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [(3, 4), (True, False), ("on", "of"), (b"on", b"of"), (3, 3.0)])
def test_no_tolerance_lets_a_number_that_counts_or_a_text_differ(old: Any, new: Any, place: Place) -> None:
    bless(place, {"n": old, "x": torch.ones(1)}, 1e30)
    another_machine(place)
    assert blessed.check("tree", {"n": old, "x": torch.ones(1) + 1e-3}, place, 1e30).verdict is Verdict.TOLERANCE
    with pytest.raises(OutOfBound, match=r"no bound would let it pass\. n: (value|type) differs, got"):
        blessed.check("tree", {"n": new, "x": torch.ones(1)}, place, 1e30)


@pytest.mark.parametrize("number", [lambda x: x, np.float32, lambda x: np.array([x]), complex])
def test_a_tolerance_is_for_floating_point_values_of_every_type(number: Any, place: Place) -> None:
    bless(place, {"x": number(1.0)}, 100.0)
    another_machine(place)
    assert blessed.check("tree", {"x": number(1.0 + 1e-6)}, place, 100.0).verdict is Verdict.TOLERANCE
    with pytest.raises(OutOfBound, match="beyond k = 100, x as [a-z]+: max"):
        blessed.check("tree", {"x": number(1.1)}, place, 100.0)


def test_engines_that_return_other_values_are_told_apart_by_both_names() -> None:
    plain = {"n": 3, "mode": "on", "x": np.ones(2), "more": 1}
    fast = {"n": True, "mode": "off", "x": np.array([1.0, 2.0]), "extra": 1}
    assert run(lambda _: dict(plain), lambda _: plain, [1, 2]).tensors == 8
    with pytest.raises(EnginesParted) as caught:
        run(lambda _: plain, lambda _: fast, [1])
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "n: type differs, fast bool True, plain int 3",
        "mode: value differs, fast 'off', plain 'on'",
        "x: bytes differ in 1 of 2 elements, first at index [1]: fast 2.0 (0x4000000000000000), plain 1.0 "
        "(0x3ff0000000000000); max |Δ| 1; max 4503599627370496 ULP",
        "more: missing, plain int 1",
        "extra: unexpected, fast int 1",
    ]


def test_a_complex_array_of_64_bits_a_part_is_compared_but_no_capture_keeps_it(place: Place) -> None:
    assert differences(np.array([1j]), np.array([1j])) == []
    with pytest.raises(BlessRefused, match="the file format cannot keep it"):
        bless(place, {"x": np.array([1j])})
    bless(place, {"x": 1j})
    assert blessed.check("tree", {"x": 1j}, place).verdict is Verdict.EXACT


def test_an_engine_that_writes_to_an_array_of_an_event_is_named_and_arrays_without_a_rule_are_left_alone() -> None:
    def writes(event: Any) -> Any:
        event["x"] += 1
        return np.array([1.0])

    with pytest.raises(EnginesParted, match="fast wrote to the event's own tensors"):
        run(lambda _: np.array([1.0]), writes, [{"x": np.zeros(2)}])
    event = {"x": np.zeros(2), "names": np.array(["a"]), "deep": [torch.ones(1), {1}]}
    assert run(lambda _: np.array([1.0]), lambda _: np.array([1.0]), [event]).events == 1
