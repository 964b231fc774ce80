from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import (
    LISTED,
    Difference,
    DifferenceKind,
    NotComparable,
    NothingCompared,
    ParityError,
    assert_identical,
    compare_named,
    compare_trees,
    copied,
    difference,
    digest,
    digest_tree,
    identical,
    max_abs,
    named_differences,
    ulp_distance,
)
from harness.parity.differences import BLESSED, LATENTS, LOCKSTEP, Words

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
FLOATS += [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
COMPLEX = [torch.complex64, torch.complex128]
PINNED_TENSOR = "a48364d2bcf8b010b01bdc81677b2b99559c7713097f76bf27775383c8d5f9c2"
PINNED_TREE = "ebbc8da80bfd95787d9ed18fefbcdeeab2858b6358ba92b8ad3fb909c9cab18a"
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def tensor_of(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


def report(actual: object, expected: object) -> Difference:
    found = difference(actual, expected)
    assert found is not None
    return found


@st.composite
def raw(draw: st.DrawFn) -> tuple[bytes, torch.dtype, tuple[int, ...]]:
    dtype, shape = draw(st.sampled_from(FLOATS + INTEGERS + COMPLEX)), draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    return draw(st.binary(min_size=size, max_size=size)), dtype, shape


@given(raw())
@example((b"\x01\x00\xc0\x7f", torch.float32, (1,)))
def test_equal_bytes_are_the_same_whatever_they_mean(given_raw: tuple[bytes, torch.dtype, tuple[int, ...]]) -> None:
    assert difference(tensor_of(*given_raw), tensor_of(*given_raw)) is None
    assert digest(tensor_of(*given_raw)) == digest(tensor_of(*given_raw))


@given(raw(), st.data())
def test_any_flipped_bit_is_reported_alone_at_its_element(
    given_raw: tuple[bytes, torch.dtype, tuple[int, ...]], data: st.DataObject
) -> None:
    content, dtype, shape = given_raw
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    actual, expected = tensor_of(flipped, dtype, shape), tensor_of(content, dtype, shape)
    found = report(actual, expected)
    place = bit // 8 // dtype.itemsize
    assert found.kind is DifferenceKind.BYTES
    assert found.index == tuple(int(i) for i in torch.unravel_index(torch.tensor(place), shape))
    assert (found.count, found.total) == (1, math.prod(shape))
    assert digest(actual) != digest(expected)


@given(raw(), st.data())
def test_no_difference_means_equal_bytes(
    given_raw: tuple[bytes, torch.dtype, tuple[int, ...]], data: st.DataObject
) -> None:
    content, dtype, shape = given_raw
    other = data.draw(st.one_of(st.just(content), st.binary(min_size=len(content), max_size=len(content))))
    one, two = tensor_of(other, dtype, shape), tensor_of(content, dtype, shape)
    assert (difference(one, two) is None) == identical(one, two) == (other == content)


SQUARE = torch.arange(9.0).reshape(3, 3)
COMPLEX_ROW = torch.tensor([1 + 2j, 3 - 4j])


@pytest.mark.parametrize(
    ("view", "buffer"),
    [
        (SQUARE.t(), SQUARE),
        (SQUARE[0].expand(3, 3), SQUARE),
        (SQUARE[:, :2], SQUARE.view(-1)[:6].view(3, 2)),
        (SQUARE.view(torch.int32), SQUARE),
        (SQUARE.view(9), SQUARE),
        (SQUARE[:2], SQUARE),
        (COMPLEX_ROW.conj(), COMPLEX_ROW),
        (COMPLEX_ROW.conj().imag, COMPLEX_ROW.imag),
    ],
    ids=["transposed", "repeated", "strides", "dtype", "shape", "length", "conjugated", "negated"],
)
def test_views_of_one_memory_are_not_identical_where_they_read_it_otherwise(view: Tensor, buffer: Tensor) -> None:
    assert view.data_ptr() == buffer.data_ptr()
    assert not identical(view, buffer) and difference(view, buffer) is not None
    assert identical(view, view.clone()) and difference(view, view.clone()) is None


def test_a_latents_place_is_row_frame_and_channel() -> None:
    expected = torch.zeros(2, 3, 4)
    actual = expected.clone()
    actual[1, 2, 3], actual[1, 0, 2] = 1.0, -0.25
    text = report(actual, expected).told(LATENTS)
    assert "bytes differ in 2 of 24 elements" in text
    assert "row 1, frame 0, channel 2" in text
    assert "got -0.25 (0xbe800000), expected 0.0 (0x00000000)" in text
    assert "max |Δ| 1" in text


def test_a_report_is_one_line_with_every_fact() -> None:
    nan, inf = torch.nan, torch.inf
    actual = torch.tensor([nan, 0.0, inf, 2.0, 3.0])
    expected = torch.tensor([1.0, -0.0, -inf, -2.0, 3.5])
    text = str(report(actual, expected))
    assert "\n" not in text
    assert "NaN: got 1, expected 0, payload changed in 0" in text
    assert "sign of zero changed in 1; sign flipped in 2" in text
    assert "max |Δ| 4;" in text


def test_only_facts_that_apply_are_told() -> None:
    text = str(report(torch.tensor([1, 2]), torch.tensor([1, 5])))
    assert text.endswith("max |Δ| 3")


def test_a_scalar_has_no_index_to_tell() -> None:
    found = report(torch.tensor(1.0), torch.tensor(2.0))
    assert found.index == ()
    assert "the only element" in str(found)


def test_the_largest_distances_are_found_among_many() -> None:
    expected = torch.ones(1000)
    actual = expected.clone()
    actual[10], actual[500] = 1.5, -3.0
    assert report(actual, expected).max_abs == 4.0


def test_a_difference_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        report(torch.ones(1), torch.zeros(1)).count = 0  # type: ignore[misc]


def test_a_long_list_of_differences_is_cut_and_counted() -> None:
    count = LISTED + 3
    with pytest.raises(ParityError, match="and 3 more") as caught:
        assert_identical([torch.ones(1)] * count, [torch.zeros(1)] * count, "trace")
    assert str(caught.value).startswith(f"trace is not identical, {count} difference(s)")
    assert len(caught.value.differences) == count
    assert len(str(caught.value).splitlines()) == LISTED + 2


def test_a_tensor_is_called_by_its_name() -> None:
    with pytest.raises(ParityError, match="velocity: shape differs"):
        assert_identical(torch.ones(1), torch.ones(2), "velocity")


def test_differences_come_in_the_expected_order_with_their_paths() -> None:
    def tree(value: float) -> dict[str, object]:
        return {"b": {"y": torch.full((2,), value)}, "a": [torch.ones(1), torch.full((3,), value)]}

    assert [d.name for d in compare_trees(tree(1.0), tree(2.0))] == ["b/y", "a[1]"]


@pytest.mark.parametrize("key", ["a", "/a", "//a", "a/", "/", "", "a/b", "[0]", "['a']", "(root)", "a b"])
def test_a_flat_comparison_reports_every_key_as_it_is(key: str) -> None:
    one, other = torch.ones(1), torch.zeros(1)
    beside = {"a": one, "/a": one, "//a": one}  # a name that lost a slash would be one of these
    assert [d.name for d in compare_named({**beside, key: other}, {**beside, key: one})] == [key]
    assert [(d.name, d.kind) for d in compare_named({}, {key: one})] == [(key, DifferenceKind.MISSING)]
    assert [(d.name, d.kind) for d in compare_named({key: one}, {})] == [(key, DifferenceKind.UNEXPECTED)]


@pytest.mark.parametrize("leaf", [torch.ones(1), None], ids=["tensor", "None"])
@pytest.mark.parametrize("container", [{"y": torch.ones(1)}, [torch.ones(1)]], ids=["mapping", "list"])
def test_a_container_against_a_leaf_is_one_difference_of_type(container: object, leaf: Tensor | None) -> None:
    for actual, expected in ((container, leaf), (leaf, container)):
        (found,) = compare_trees({"x": actual}, {"x": expected})
        assert (found.name, found.kind) == ("x", DifferenceKind.TYPE)


@pytest.mark.parametrize("dtype", FLOATS[:6], ids=str)
def test_one_step_is_one_ulp_in_every_floating_dtype(dtype: torch.dtype) -> None:
    word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    value = torch.ones(1).to(dtype)
    assert ulp_distance((value.view(word) + 1).view(dtype), value) == 1


def test_ulps_are_counted_through_zero() -> None:
    tiny = torch.tensor([1], dtype=torch.int32).view(torch.float32)
    assert ulp_distance(tiny, -tiny) == 2
    assert ulp_distance(torch.tensor([0.0]), torch.tensor([-0.0])) == 0


@pytest.mark.parametrize(("a", "b", "ulp"), [
    (1e-45, -1e-45, 2), (1e-45, -0.0, 1), (1e-45, 0.0, 1), (-1e-45, 0.0, 1), (0.0, -0.0, 0), (3e-45, -1e-45, 3),
    (1.0, -1.0, 2 * 0x3F800000), (math.inf, 3.4028234663852886e38, 1), (math.inf, -math.inf, 2 * 0x7F800000),
    (math.nan, 1.0, None), (math.nan, math.inf, None), (math.nan, -math.nan, None),
])  # fmt: skip
def test_a_difference_counts_ulps_in_the_order_of_values_also_across_a_change_of_sign(
    a: float, b: float, ulp: int | None
) -> None:
    for one, other in ((a, b), (b, a)):
        got, expected = torch.tensor([one]), torch.tensor([other])
        assert report(got, expected).max_ulp == ulp_distance(got, expected) == ulp
        assert (f"max {ulp} ULP" in str(report(got, expected))) == (ulp is not None)


def test_zeros_of_different_signs_are_0_ulp_apart_and_said_to_have_other_bytes() -> None:
    text = str(report(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])))
    assert "bytes differ in 1 of 2 elements" in text and "max 0 ULP, zeros of different signs" in text
    assert "zeros of" not in str(report(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 2.0])))


def test_ulps_of_float64_do_not_overflow() -> None:
    infinity = torch.tensor([torch.inf], dtype=torch.float64)
    assert ulp_distance(infinity, -infinity) == 2 * 0x7FF0000000000000


def test_ulps_do_not_skip_a_nan() -> None:
    assert ulp_distance(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0])) is None
    assert ulp_distance(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan])) == 0


def test_ulps_of_integers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="floating"):
        ulp_distance(torch.ones(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def test_a_nan_on_one_side_is_infinitely_far() -> None:
    assert max_abs(torch.tensor([torch.nan, 1.0]), torch.tensor([0.0, 1.0])) == math.inf
    assert max_abs(torch.tensor([0.0, 1.0]), torch.tensor([0.0, torch.nan])) == math.inf


def test_a_nan_that_did_not_change_is_no_distance() -> None:
    assert max_abs(torch.tensor([torch.nan, torch.inf, 1.0]), torch.tensor([torch.nan, torch.inf, 3.0])) == 2.0


def test_a_changed_payload_is_infinitely_far() -> None:
    words = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert max_abs(words[:1], words[1:]) == math.inf


def test_a_changed_infinity_is_infinitely_far() -> None:
    assert max_abs(torch.tensor([torch.inf]), torch.tensor([-torch.inf])) == math.inf


def test_a_distance_is_taken_in_float64() -> None:
    one = torch.tensor([1.0])
    assert max_abs(torch.tensor([1e-9]), -one) == float(torch.tensor([1e-9]).double() + 1)


def test_empty_tensors_are_no_distance_apart() -> None:
    assert max_abs(torch.zeros(0), torch.zeros(0)) == 0.0
    assert ulp_distance(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize("measure", [max_abs, ulp_distance])
@pytest.mark.parametrize("other", [torch.ones(4), torch.ones(4, 1).double()], ids=["shape", "dtype"])
def test_no_distance_is_taken_across_shapes_or_dtypes(measure: object, other: Tensor) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        measure(torch.ones(4, 1), other)  # type: ignore[operator]


def test_the_digest_of_a_tensor_does_not_move() -> None:
    # Captures keep these: another encoding would call every one of them altered.
    assert digest(torch.arange(6, dtype=torch.float32).reshape(2, 3)) == PINNED_TENSOR
    assert digest_tree({"b": torch.ones(2), "a": torch.zeros(0, 3)}) == PINNED_TREE


def test_the_order_of_insertion_does_not_change_a_digest() -> None:
    a, b = torch.ones(1), torch.zeros(1)
    assert digest_tree({"a": a, "b": b}) == digest_tree({"b": b, "a": a})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}),
        ({"a": torch.ones(1), "b": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.ones(1)}),
        ({"a": torch.ones(2)}, {"a": torch.ones(1)}),
        ({"a": torch.ones(2, 1)}, {"a": torch.ones(2)}),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1, dtype=torch.int32)}),
        ({"a": torch.zeros(0)}, {}),
        ({"a": torch.zeros(0), "b": torch.zeros(0)}, {"ab": torch.zeros(0)}),
        ({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])}),
        ({"a": torch.zeros(2, 0)}, {"a": torch.zeros(0, 2)}),
    ],
    ids=["name", "swapped", "length", "shape", "dtype", "extra empty", "joined names", "sign of zero", "empty shape"],
)
def test_trees_that_differ_have_other_digests(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert digest_tree(one) != digest_tree(other)


def test_a_name_and_a_content_cannot_trade_bytes() -> None:
    # Joined without lengths, both read `atorch.uint8(17,)torch.uint8(2,)zz`.
    content = torch.frombuffer(bytearray(b"torch.uint8(2,)zz"), dtype=torch.uint8)
    assert digest_tree({"a": content}) != digest_tree({"atorch.uint8(17,)": content[-2:]})


def test_a_digest_of_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(NotComparable, match="'?x'? has no digest"):
        digest_tree({"x": {"y": torch.ones(1)}})  # type: ignore[dict-item]


def test_a_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvalidInput, match="strings"):
        digest_tree({0: torch.ones(1)})  # type: ignore[dict-item]


@pytest.mark.parametrize("count", [1, LISTED - 1, LISTED, LISTED + 1])
def test_a_message_lists_up_to_the_limit_and_counts_only_what_it_left_out(count: int) -> None:
    with pytest.raises(ParityError) as caught:
        assert_identical([torch.ones(1)] * count, [torch.zeros(1)] * count)
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if "bytes differ" in line]) == min(count, LISTED)
    assert [line.strip() for line in lines if "more" in line] == (["and 1 more"] if count > LISTED else [])


FIRST_KINDS: list[tuple[object, object, DifferenceKind, tuple[object, object]]] = [
    ([1.0], torch.ones(2, 3), DifferenceKind.TYPE, ("list of 1", "torch.float32 tensor of shape [2, 3]")),
    (torch.ones(2).double(), torch.zeros(3), DifferenceKind.DTYPE, (torch.float64, torch.float32)),
    (torch.ones(2).int(), torch.zeros(2), DifferenceKind.DTYPE, (torch.int32, torch.float32)),
    (torch.ones(2, 1), torch.zeros(1), DifferenceKind.SHAPE, ((2, 1), (1,))),
    (torch.ones(()), torch.zeros(1), DifferenceKind.SHAPE, ((), (1,))),
]


@pytest.mark.parametrize(("actual", "expected", "kind", "sides"), FIRST_KINDS)
def test_of_several_kinds_the_first_is_reported_with_both_sides_in_plain_values(
    actual: object, expected: object, kind: DifferenceKind, sides: tuple[object, object]
) -> None:
    for found, wanted in ((report(actual, expected), sides), (report(expected, actual), sides[::-1])):
        assert (found.kind, (found.got, found.expected)) == (kind, wanted)
        assert [type(side) for side in (found.got, found.expected)] == [type(side) for side in wanted]
        assert str(found) == f"tensor: {kind} differs, got {wanted[0]}, expected {wanted[1]}"


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(("actual", "expected", "facts"), [
    ([NAN, NAN, 1.0], [NAN, NAN, 2.0], "max |Δ| 1; max 8388608 ULP; NaN: got 2, expected 2, payload changed in 0"),
    ([1.0, NAN, 3.0], [NAN, NAN, NAN], "no finite pair; NaN: got 1, expected 3, payload changed in 0"),
    ([1.0, 2.0], [NAN, 2.0], "no finite pair; NaN: got 0, expected 1, payload changed in 0"),
    ([NAN, 2.0], [1.0, 2.0], "no finite pair; NaN: got 1, expected 0, payload changed in 0"),
    ([INF, 2.0], [1.0, 2.0], "no finite pair; max 1073741824 ULP"),
    ([INF, 2.0], [1.0, 4.0], "max |Δ| 2; max 1073741824 ULP"),
    ([0.0, 2.0], [-0.0, 2.0], "max |Δ| 0; max 0 ULP, zeros of different signs; sign of zero changed in 1"),
])  # fmt: skip
def test_every_count_of_a_line_is_of_its_own_side_and_of_the_pairs_that_it_names(
    actual: list[float], expected: list[float], facts: str
) -> None:
    text = str(report(torch.tensor(actual), torch.tensor(expected)))
    assert "; ".join(text.split("; ")[1:]) == facts


@pytest.mark.parametrize(("shape", "index", "place"), [
    ((), (), "the only element"),
    ((3,), (0,), "index [0]"),
    ((3,), (2,), "index [2]"),
    ((2, 3), (1, 0), "index [1, 0]"),
    ((2, 3, 4), (0, 0, 0), "row 0, frame 0, channel 0"),
    ((2, 3, 4, 5), (1, 2, 3, 4), "index [1, 2, 3, 4]"),
])  # fmt: skip
def test_a_place_in_three_dimensions_alone_is_row_frame_and_channel(
    shape: tuple[int, ...], index: tuple[int, ...], place: str
) -> None:
    actual = torch.zeros(shape)
    actual[index] = 1.0
    found = report(actual, torch.zeros(shape))
    assert found.index == index
    assert f" 1 of {actual.numel()} elements, first at {place}: got" in found.told(LATENTS)


def test_a_foreign_tensor_of_three_dimensions_has_no_slots() -> None:
    actual = torch.zeros(3, 18, 4)
    actual[2, 17, 3] = 1.0
    found = report(actual, torch.zeros(3, 18, 4))
    for text in (str(found), found.told(BLESSED), found.told(LOCKSTEP)):
        assert ", first at index [2, 17, 3]: " in text and "slot" not in text


@pytest.mark.parametrize(("words", "sides"), [(BLESSED, ("got", "blessed")), (LOCKSTEP, ("fast", "plain"))])
def test_every_kind_of_difference_names_the_sides_in_the_words_it_is_given(
    words: Words, sides: tuple[str, str]
) -> None:
    x, (got, blessed) = torch.tensor([1.0, NAN]), sides
    told = [each.told(words) for each in compare_trees({"x": x, "a": x}, {"x": x.double(), "b": x})]
    assert told[0] == f"x: dtype differs, {got} torch.float32, {blessed} torch.float64"
    assert told[1] == f"b: missing, {blessed} torch.float32 tensor of shape [2]"
    assert told[2] == f"a: unexpected, {got} torch.float32 tensor of shape [2]"
    text = report(x, torch.tensor([2.0, 1.0])).told(words)
    assert f"index [0]: {got} 1.0 (0x3f800000), {blessed} 2.0 (0x40000000)" in text
    assert f"NaN: {got} 1, {blessed} 0, payload changed in 0" in text


def test_values_and_bits_of_both_sides_are_those_at_the_first_differing_element() -> None:
    actual, expected = (
        torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        torch.tensor([[1.0, 2.0, -3.0], [4.0, 9.0, 6.0]]),
    )
    found = report(actual, expected)
    assert (found.index, found.got, found.expected) == ((0, 2), 3.0, -3.0)
    assert (found.got_bits, found.expected_bits) == ("0x40400000", "0xc0400000")


def test_a_complex_element_is_one_element_of_two_parts() -> None:
    actual = torch.tensor([1 + 2j, 3 + 4j, complex(0.0, NAN), 5 + 6j])
    expected = torch.tensor([1 + 2j, -3 + 5j, complex(-0.0, NAN), 5 - 6j])
    found = report(actual, expected)
    assert (found.index, found.count, found.total) == ((1,), 3, 4)
    assert (found.got, found.expected) == (3 + 4j, -3 + 5j)
    assert (found.got_bits, found.expected_bits) == ("0x40400000,0x40800000", "0xc0400000,0x40a00000")
    assert (found.max_abs, found.nan_got, found.nan_expected) == (12.0, 1, 1)
    assert (found.zero_signs, found.sign_flips) == (1, 2)


def test_missing_and_unexpected_parts_are_told_with_what_they_are() -> None:
    there: list[object] = [torch.ones(2, 3), None, [torch.ones(1)] * 3, {}, "text", b"bytes"]
    words = ["torch.float32 tensor of shape [2, 3]", "NoneType", "list of 3", "dict of 0", "str", "bytes"]
    x = torch.ones(1)
    for part, word in zip(there, words, strict=True):
        assert [str(d) for d in compare_trees({"x": x}, {"x": x, "y": part})] == [f"y: missing, expected {word}"]
        assert [str(d) for d in compare_trees({"x": x, "y": part}, {"x": x})] == [f"y: unexpected, got {word}"]


@pytest.mark.parametrize("compare", [difference, identical])
@pytest.mark.parametrize("readable", [torch.ones(2), torch.ones(3), torch.ones(2).int()], ids=["", "shape", "dtype"])
@pytest.mark.parametrize("side", [0, 1])
def test_what_cannot_be_read_is_refused_on_either_side_whatever_the_other_one_is(
    side: int, readable: Tensor, compare: Callable[[Tensor, Tensor], object]
) -> None:
    pair = [readable, readable]
    pair[side] = torch.ones(2, device="meta")
    with pytest.raises(NotComparable, match="meta"):
        compare(*pair)


def test_nothing_compared_is_told_by_its_name_and_with_both_sides() -> None:
    with pytest.raises(
        NothingCompared, match=r"^velocity: .*: got list of 1, expected torch.float32 tensor of shape \[0\]$"
    ):
        compare_trees([torch.ones(0)], torch.ones(0), "velocity")


@pytest.mark.parametrize(("actual", "expected"), [({}, {}), ({"a": torch.ones(0)}, {}), ({}, {"a": torch.ones(2, 0)})])
def test_flat_mappings_without_an_element_are_refused_except_as_one_comparison_of_many(
    actual: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    with pytest.raises(NothingCompared):
        compare_named(actual, expected)
    assert len(named_differences(actual, expected)) == len({**actual, **expected})


def widest(dtype: torch.dtype) -> tuple[int, int]:
    return (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


@pytest.mark.parametrize("dtype", [torch.bool, *INTEGERS], ids=str)
def test_the_distance_of_integers_is_whole_over_the_whole_range(dtype: torch.dtype) -> None:
    low, high = (torch.tensor([value], dtype=dtype) for value in widest(dtype))
    wanted = float(widest(dtype)[1] - widest(dtype)[0])
    for a, b in ((low, high), (high, low)):
        assert max_abs(a, b) == wanted
        assert (report(a, b).max_abs, report(a, b).max_ulp) == (wanted, None)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.complex32, *COMPLEX], ids=str)
def test_the_distances_of_complex_numbers_are_those_of_their_parts(dtype: torch.dtype) -> None:
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.empty(0, dtype=dtype).real.dtype)
    other = torch.tensor([[1.0, 2.25], [3.5, 4.0]], dtype=one.dtype)
    a, b = torch.view_as_complex(one), torch.view_as_complex(other)
    found = report(a, b)
    assert max_abs(a, b) == found.max_abs == 0.5
    assert ulp_distance(a, b) == found.max_ulp == ulp_distance(one, other)
    assert not identical(a, b) and identical(a, a.clone())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_distances_of_every_floating_dtype_are_taken_in_float64(dtype: torch.dtype) -> None:
    low, high = torch.tensor([-1.0]).to(dtype), torch.tensor([1.5]).to(dtype)
    assert (max_abs(low, high), report(low, high).max_abs, report(low, high).got) == (2.5, 2.5, -1.0)


@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_on_either_side_has_no_distance_in_ulp(side: int) -> None:
    pair = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])]
    pair[side] = torch.tensor([1.0, NAN])
    assert ulp_distance(*pair) is None
    assert report(*pair).max_ulp is None


@pytest.mark.parametrize("measure", [max_abs, ulp_distance])
def test_a_refused_distance_says_what_it_got_and_what_was_expected(measure: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(InvalidInput, match=r"torch.float32 tensor of shape \[2\].*torch.float32 tensor of shape \[3\]"):
        measure(torch.ones(2), torch.ones(3))


@pytest.mark.parametrize("view", [SQUARE.t(), SQUARE[:, 1], SQUARE.expand(2, 3, 3)], ids=["turned", "column", "again"])
def test_a_copy_is_contiguous_and_of_its_own_memory(view: Tensor) -> None:
    made = copied(view)
    assert made.is_contiguous() and identical(made, view)
    assert made.data_ptr() != view.data_ptr()
    assert not copied(view.clone().requires_grad_()).requires_grad


def test_a_digest_of_a_mapping_is_over_its_number_of_tensors_first() -> None:
    def framed(field: bytes) -> bytes:
        return len(field).to_bytes(8, "big") + field

    for count in (0, 1, 3):
        stream = framed(str(count).encode())
        for number in range(count):
            stream += (
                framed(f"t{number}".encode()) + framed(b"torch.uint8") + framed(b"(2,)") + framed(bytes([number] * 2))
            )
        made = {f"t{number}": torch.full((2,), number, dtype=torch.uint8) for number in range(count)}
        assert digest_tree(made) == hashlib.sha256(stream).hexdigest()


def test_a_difference_of_another_kind_than_bytes_keeps_every_default() -> None:
    found = difference(torch.zeros(2), torch.zeros(3))
    assert found == Difference(
        "tensor", DifferenceKind.SHAPE, (2,), (3,), None, 0, 0, "", "", None, None, 0, 0, 0, 0, 0
    )
    assert Difference("x", DifferenceKind.DTYPE, "a", "b").nan_payloads == 0


@pytest.mark.parametrize("actual", [[1.0, 2.0], [1.0, 2.5], []])
def test_a_distance_in_ulp_is_a_plain_number_that_json_writes(actual: list[float]) -> None:
    assert type(ulp_distance(torch.tensor(actual), torch.tensor(actual) * 2)) is int


@given(order=st.permutations(range(3)), places=st.sets(st.integers(0, 23), min_size=1, max_size=5))
def test_the_first_element_is_the_first_in_row_major_order_whatever_the_strides(
    order: list[int], places: set[int]
) -> None:
    expected = torch.zeros(2, 3, 4)
    expected.view(-1)[list(places)] = 1.0 + torch.arange(len(places))
    expected = expected.permute(order)
    found = difference(torch.zeros(2, 3, 4).permute(order), expected)
    assert found is not None
    first = tuple(expected.nonzero()[0].tolist())
    assert (found.index, found.got, found.expected) == (first, 0.0, float(expected[first]))
    assert found == difference(torch.zeros(2, 3, 4).permute(order).contiguous(), expected.contiguous())
