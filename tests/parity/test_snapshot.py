"""A snapshot sees everything that a pipeline or a stream holds, and changes none of it."""

from __future__ import annotations

from collections import UserDict, UserList, defaultdict, deque
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch

from harness.engine import Guidance, Session
from harness.engine.conditioning import ConditioningCache
from harness.engine.decoders import AffineDecoder
from harness.parity.bits import NotComparable
from harness.parity.compare import assert_identical, compare_trees
from harness.parity.snapshot import snapshot
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request


def running() -> Any:
    p = pipeline()
    p.submit(request(1, guidance=Guidance(2.5, [condition(9)], "initialize")))
    p.tick()
    p.submit(request(2))
    p.set_shared_curve("velocity_scale", torch.linspace(0.5, 1.0, T))
    return p


def differs(subject: object, before: dict[str, torch.Tensor], path: str) -> None:
    assert any(path in difference.name for difference in compare_trees(snapshot(subject), before))


def test_two_snapshots_of_what_did_not_change_are_the_same() -> None:
    p = running()
    assert_identical(snapshot(p), snapshot(p))


def test_every_attribute_of_a_pipeline_is_seen() -> None:
    p = running()
    before = snapshot(p)
    for name in vars(p):
        kept = getattr(p, name)
        setattr(p, name, "another")
        differs(p, before, name)
        setattr(p, name, kept)
    assert_identical(snapshot(p), before)


def test_an_attribute_that_is_new_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p.later = 0
    differs(p, before, "later")


def test_an_attribute_that_cannot_be_entered_is_refused_by_name() -> None:
    p = running()
    p.later = [iter(())]
    with pytest.raises(NotComparable, match=r"\.later\[0\] cannot be part of a snapshot: "):
        snapshot(p)


def test_a_write_into_a_tensor_deep_inside_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p.slots[0].request.guidance.negatives[0].encoder_hidden_states[0, 0, 0] += 1
    differs(p, before, "negatives")


def test_an_equal_copy_in_the_place_of_an_object_is_seen() -> None:
    p = running()
    before = snapshot(p)
    p._state = replace(p._state, ring=(replace(p.slots[0]), *p.slots[1:]))
    differs(p, before, "_state.ring[0]")


def test_the_order_of_a_caches_uses_is_seen_and_a_snapshot_is_no_use() -> None:
    cache, contexts = ConditioningCache(2), [fixed(7, T, 2 * D)]
    one, other, third = ([condition(seed)] for seed in (1, 2, 3))
    cache(one, contexts, 8)
    cache(other, contexts, 8)
    before = snapshot(cache)
    cache(one, contexts, 8)
    cache.counts = replace(cache.counts, hits=0)
    differs(cache, before, "order")
    snapshot(cache)
    cache(third, contexts, 8)
    hits = cache.counts.hits
    cache(one, contexts, 8)
    assert cache.counts.hits == hits + 1


def test_a_stream_is_seen_with_its_session_and_its_pipeline() -> None:
    stream = Session(AffineDecoder(E)).stream([condition()], fixed(7, T, 2 * D))
    before = snapshot(stream)
    stream.tick(seed=1)
    for path in ("last_submission", "pipeline._state.ring", "pipeline._state.stats"):
        differs(stream, before, path)
    stream._session.null_condition(condition(1, 9))
    differs(stream, before, "_session._null")


def test_code_in_c_is_told_from_other_code() -> None:
    p = running()
    p.later = torch.relu
    before = snapshot(p)
    assert_identical(snapshot(p), before)
    p.later = torch.tanh
    differs(p, before, "later")


def test_an_attribute_of_a_sequence_is_seen() -> None:
    items: Any = UserList([1])
    before = snapshot(items)
    items.note = "new"
    differs(items, before, ".note")


class Holder:
    """An object with one attribute, whose path is `.held`."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Metres(float):
    """A number that prints as another type's."""


class Slotted:
    __slots__ = ("x",)


class Listed(list[Any]):
    """A sequence that is neither of Python's own."""


def changes(held: Any, act: Any) -> list[str]:
    """The names of what differs in a snapshot after `act` on what is held."""
    holder = Holder(held)
    before = snapshot(holder)
    act(holder)
    return [found.name for found in compare_trees(snapshot(holder), before)]


SAME_WORDS = [(1, True), (0, False), (1, 1.0), ("1", 1), ("None", None), (b"x", "x"), (0.0, -0.0), ("a", "b"), (1, 2)]


@pytest.mark.parametrize(("one", "other"), [*SAME_WORDS, (1.0, Metres(1.0)), (torch.float32, torch.float64)])
def test_a_plain_value_is_told_from_every_other_one(one: Any, other: Any) -> None:
    for before, after in ((one, other), (other, one)):
        assert changes(before, lambda holder, after=after: setattr(holder, "held", after)) == ["['.held']"]
    assert changes(one, lambda holder: None) == []


@pytest.mark.parametrize("make", [lambda: [1, 2], lambda: {"a": 1}, lambda: torch.ones(2), lambda: Holder(1), object])
def test_an_equal_object_in_the_place_of_another_is_seen_wherever_it_is(make: Any) -> None:
    if make is object:
        make = Listed
    kept = [make(), make()]
    names = changes(kept[0], lambda holder: setattr(holder, "held", kept[1]))
    assert names == ["['.held is']"]


def test_an_object_of_another_type_at_the_same_address_is_seen() -> None:
    class Other(Holder):
        pass

    assert changes(Holder(1), lambda holder: setattr(holder.held, "__class__", Other)) == ["['.held is']"]


def test_of_two_names_of_one_object_it_is_seen_which_one_they_share() -> None:
    one, other = [1], [1]
    holder = Holder([one, other, one])
    before = snapshot(holder)
    holder.held = holder.held[:]
    holder.held[2] = other
    names = [found.name for found in compare_trees(snapshot(holder), before)]
    assert "['.held[2] is']" in names
    assert "['.held[0] is']" not in names


def test_a_circle_of_objects_is_entered_once() -> None:
    holder = Holder(None)
    holder.held = [holder]
    assert list(snapshot(holder)) == [" is", ".held is", ".held length", ".held[0] is"]


def test_a_model_and_a_module_are_identified_and_not_entered() -> None:
    for opaque in (torch.nn.Linear(2, 2), torch, len, running):
        holder = Holder(opaque)
        before = snapshot(holder)
        assert list(before) == [" is", ".held is"]
        if isinstance(opaque, torch.nn.Linear):
            torch.nn.init.zeros_(opaque.weight)
        assert_identical(snapshot(holder), before)


@pytest.mark.parametrize(("act", "name"), [
    (lambda h: h.held.append(3), ".held length"),
    (lambda h: h.held.pop(), ".held length"),
    (lambda h: h.held.__setitem__(1, 5), ".held[1]"),
])  # fmt: skip
def test_a_change_of_a_sequence_is_seen_by_item_and_by_length(act: Any, name: str) -> None:
    assert f"['{name}']" in changes([1, 2], act)


def test_a_mapping_s_keys_are_told_apart_and_their_order_is_seen() -> None:
    assert set(snapshot({1: "a", "1": "b"})) >= {"[1]", "['1']"}
    assert "['.held in order']" in changes({1: 2, 3: 4}, lambda h: h.held.__setitem__(1, h.held.pop(1)))


def test_an_attribute_of_a_mapping_is_seen() -> None:
    assert "['.held.note']" in changes(UserDict({"a": 1}), lambda h: setattr(h.held, "note", "new"))


def test_a_mapping_that_cannot_be_written_is_entered_by_item() -> None:
    held = {"a": 1}
    names = changes(MappingProxyType(held), lambda h: held.update(a=2))
    assert names == ["[\".held['a']\"]"]


@pytest.mark.parametrize(
    "held", [{1, 2}, frozenset({1}), iter([1]), Slotted(), object()], ids=lambda h: type(h).__name__
)
def test_what_has_neither_items_nor_attributes_is_refused_by_its_path(held: Any) -> None:
    with pytest.raises(NotComparable, match=r"^\.held cannot be part of a snapshot: "):
        snapshot(Holder(held))


def test_a_tensor_that_cannot_be_read_is_refused_by_its_path() -> None:
    with pytest.raises(NotComparable, match=r"^\.held cannot be compared: "):
        snapshot(Holder(torch.ones(2, device="meta")))


def test_a_subject_that_is_a_value_or_a_tensor_is_the_root() -> None:
    assert list(snapshot(3)) == ["(root)"]
    assert list(snapshot(torch.ones(2))) == [" is", "(root)"]


class Whole:
    """One of each kind of thing that an object may hold."""

    def __init__(self) -> None:
        self.flag, self.number, self.complex, self.text, self.nothing = True, 2.5, 1j, "it's", None
        self.kind, self.dtype, self.size = float, torch.float16, torch.Size([2, 3])
        self.device, self.code, self.built_in, self.bound, self.module = (
            torch.device("cpu"),
            running,
            len,
            self.act,
            torch,
        )
        self.model, self.tensor = torch.nn.Linear(2, 2), torch.tensor([[1, 2]], dtype=torch.int16)
        self.pair, self.queue, self.named = (
            (1, [self.tensor]),
            deque([None], maxlen=3),
            defaultdict(list, {2: (), "2": 3}),
        )
        self.itself = self
        self.__hidden__, self.long, self.precise = {"": None}, "x" * 500, 0.1 + 0.2
        self.view = self.tensor[0]

    def act(self) -> None: ...


def test_a_snapshot_is_these_entries_in_this_order() -> None:
    """A plain value and a type stand in words; whatever else has an identity, and what it holds below it."""
    whole = Whole()

    def identity(held: Any, first: str) -> str:
        return f"{type(held).__name__} {id(held)}, first met at {first!r}"

    assert {name: words(entry) for name, entry in snapshot(whole).items()} == (wanted := {
        " is": identity(whole, ""),
        ".flag": "bool True",
        ".number": "float 2.5",
        ".complex": "complex 1j",
        ".text": "str \"it's\"",
        ".nothing": "NoneType None",
        ".kind": "type <class 'float'>",
        ".dtype": "dtype torch.float16",
        ".size": "Size torch.Size([2, 3])",
        ".device": "device device(type='cpu')",
        ".code is": identity(running, ".code"),
        ".built_in is": identity(len, ".built_in"),
        ".bound is": identity(whole.bound, ".bound"),
        ".module is": identity(torch, ".module"),
        ".model is": identity(whole.model, ".model"),
        ".tensor is": identity(whole.tensor, ".tensor"),
        ".tensor": "",
        ".pair is": identity(whole.pair, ".pair"),
        ".pair length": "int 2",
        ".pair[0]": "int 1",
        ".pair[1] is": identity(whole.pair[1], ".pair[1]"),
        ".pair[1] length": "int 1",
        ".pair[1][0] is": identity(whole.tensor, ".tensor"),
        ".queue is": identity(whole.queue, ".queue"),
        ".queue length": "int 1",
        ".queue[0]": "NoneType None",
        ".named is": identity(whole.named, ".named"),
        ".named in order": "str \"[2, '2']\"",
        ".named[2] is": identity(whole.named[2], ".named[2]"),
        ".named[2] length": "int 0",
        ".named['2']": "int 3",
        ".itself is": identity(whole, ""),
        ".__hidden__ is": identity(whole.__hidden__, ".__hidden__"),
        ".__hidden__ in order": "str \"['']\"",
        ".__hidden__['']": "NoneType None",
        ".long": f"str '{'x' * 500}'",
        ".precise": "float 0.30000000000000004",
        ".view is": identity(whole.view, ".view"),
        ".view": "",
    })  # fmt: skip
    assert list(snapshot(whole)) == list(wanted)
    for name in ("tensor", "view"):
        assert_identical(snapshot(whole)[f".{name}"], getattr(whole, name))


def words(entry: torch.Tensor) -> str:
    return bytes(entry.tolist()).decode() if entry.dtype is torch.uint8 else ""


def test_a_snapshot_does_not_follow_what_is_written_later() -> None:
    held = [torch.zeros(2), torch.zeros(2, 2).t()]
    before = snapshot(held)
    for tensor in held:
        tensor.fill_(1.0)
    assert not before["[0]"].any() and not before["[1]"].any()


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1.0, 1.0 + 2**-23)])
@pytest.mark.parametrize("hold", [lambda x: (x,), lambda x: {"a": x}, lambda x: deque([x]), Holder, UserList])
def test_one_bit_of_a_tensor_is_seen_in_whatever_holds_it(hold: Any, one: float, other: float) -> None:
    tensor = torch.full((3,), one)
    (name,) = changes(hold([tensor] if hold is UserList else tensor), lambda _: tensor[2:].fill_(other))
    assert name.startswith("['.held") or name.startswith('[".held')
