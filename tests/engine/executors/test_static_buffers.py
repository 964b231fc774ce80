"""The buffers of the shapes used last are kept, and room is made for one more."""

from __future__ import annotations

from harness.engine.executors.static_buffers import Kept


def add(kept: Kept[str, int], key: str, value: int) -> None:
    kept.make_room()
    kept[key] = value


def filled(kept: Kept[str, int]) -> Kept[str, int]:
    for value, key in enumerate("ab"):
        add(kept, key, value)
    return kept


def test_the_buffers_used_longest_ago_go_first() -> None:
    kept = filled(Kept(2))
    assert kept.get("a") == 0
    add(kept, "c", 2)
    assert [kept.get(key) for key in "abc"] == [0, None, 2]
    assert len(kept) == 2
    kept.clear()
    assert len(kept) == 0


def test_room_is_made_before_the_new_buffers_are_there() -> None:
    kept = filled(Kept(2))
    kept.make_room()
    assert list(kept) == ["b"]


def test_what_leaves_to_make_room_is_told_once_and_nothing_else_is() -> None:
    gone: list[int] = []
    kept = filled(Kept(2, gone.append))
    assert gone == []
    add(kept, "c", 2)
    kept.clear()
    assert gone == [0]


def test_to_look_at_all_is_not_to_use_them() -> None:
    kept = filled(Kept(2))
    assert kept.get("a") == 0
    assert list(kept.values()) == [1, 0]
    add(kept, "c", 2)
    assert set(kept) == {"a", "c"}
