"""What bless says that it changed, to the last word."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.parity.baselines import store
from harness.parity.baselines.bless import Blessed
from harness.parity.baselines.changes import Change, drift, of_manifest, short, with_k

WAS = {"a": torch.tensor([0.0, 1.0]), "b": torch.ones(3)}
TICKS = ("aa", "bb")
ENTRY = store.entry("s", WAS, TICKS, 2.0, "why")


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "s.safetensors").write_bytes(store.serialize(WAS))
    return tmp_path


OTHER = "changed in names, dtype, shape or to no finite value"


@pytest.mark.parametrize(("change", "ticks", "what", "distance"), [
    ({"a": torch.tensor([0.0, 1.5])}, TICKS, "moved", 0.5),
    ({"a": torch.tensor([0.0, 1.5]), "b": torch.tensor([1.0, 1.0, 3.0])}, TICKS, "moved", 2.0),
    ({"a": torch.tensor([2.0, 1.0]), "b": torch.tensor([1.0, 0.0, 1.0])}, ("xx",), "moved", 2.0),
    ({"a": torch.tensor([-0.0, 1.0])}, TICKS, "moved", 0.0),
    ({"a": torch.tensor([0.0, math.nan])}, TICKS, OTHER, None),
    ({"b": torch.tensor([1.0, 1.0, math.inf])}, TICKS, OTHER, None),
    ({"b": torch.ones(3).double()}, TICKS, OTHER, None),
    ({"b": torch.ones(3, 1)}, TICKS, OTHER, None),
    ({"c": torch.ones(1)}, TICKS, OTHER, None),
    ({}, ("aa", "xx"), "moved in its states only", None),
    ({}, ("aa",), "moved in its states only", None),
    ({}, ("aa", "bb", "cc"), "moved in its states only", None),
])  # fmt: skip
def test_what_drifted_is_said_with_the_largest_distance_from_the_capture(
    change: dict[str, Tensor], ticks: tuple[str, ...], what: str, distance: float | None, folder: Path
) -> None:
    assert drift(folder, "s", {**WAS, **change}, ticks, ENTRY) == Change("s", what, distance)


def test_the_same_tensors_and_states_are_no_change_whatever_order_they_have(folder: Path) -> None:
    assert drift(folder, "s", dict(reversed(WAS.items())), list(TICKS), ENTRY) is None
    assert drift(folder, "s", {"a": WAS["a"]}, TICKS, ENTRY) == Change("s", OTHER)
    found = drift(folder, "s", WAS, TICKS, None)
    assert found == Change("s", "restored, its file was in no manifest and is the same")


@pytest.mark.parametrize(("damage", "what"), [
    (lambda path: path.unlink(), "restored, its file was missing"),
    (lambda path: path.write_bytes(b""), "restored, its file was corrupt"),
    (lambda path: path.write_bytes(store.serialize({"a": torch.zeros(2)})), "restored, its file was corrupt"),
])  # fmt: skip
def test_a_file_that_is_restored_says_what_had_become_of_it(
    damage: Callable[[Path], Any], what: str, folder: Path
) -> None:
    damage(folder / "s.safetensors")
    assert drift(folder, "s", WAS, TICKS, ENTRY) == Change("s", what)


MOVED = Change("s", "moved", 0.25)


@pytest.mark.parametrize("drifted", [None, MOVED, Change("s", "new")])
def test_another_tolerance_is_told_before_and_now_and_the_same_or_an_unmeasured_one_is_not(
    drifted: Change | None,
) -> None:
    for k in (0.0, 1.0, math.nextafter(2.0, 3.0), 3.0):
        told = with_k("s", drifted, {"s": ENTRY}, {"s": k})
        assert told == replace(drifted or Change("s", "tolerance"), k=(2.0, k))
    for entries, ks in (({"s": ENTRY}, {"s": 2.0}), ({"s": ENTRY}, {"t": 3.0}), ({"t": ENTRY}, {"s": 3.0}), ({}, {})):
        assert with_k("s", drifted, entries, ks) is drifted


@pytest.mark.parametrize(("change", "words"), [
    (Change("s", "new"), "s new"),
    (Change("s", "moved", 0.0041), "s moved, max |Δ| 4.1e-3"),
    (Change("s", "moved", 0.0), "s moved, max |Δ| 0.0e0"),
    (Change("s", "moved", 0.0041, (54.0, 481.0)), "s moved, max |Δ| 4.1e-3, k 54 -> 481"),
    (Change("s", "tolerance", k=(0.0, 0.5)), "s tolerance, k 0 -> 0.5"),
    (Change("s", "tolerance", k=(1e7, 1e7 + 1)), "s tolerance, k 10000000.0 -> 10000001.0"),
    (Change("s", "tolerance", k=(54.0, 54.0000001)), "s tolerance, k 54.0 -> 54.0000001"),
])  # fmt: skip
def test_a_change_is_said_in_words(change: Change, words: str) -> None:
    assert str(change) == words


@pytest.mark.parametrize(("value", "words"), [
    (1.0, "1.0e0"), (0.0041, "4.1e-3"), (1234.5, "1.2e3"), (9.99, "1.0e1"), (2.0**-126, "1.2e-38"), (1e100, "1.0e100"),
])  # fmt: skip
def test_a_distance_has_two_digits_and_an_exponent_without_padding(value: float, words: str) -> None:
    assert short(value) == words


WERE = store.Manifest({"cpu": "one", "gone": "x", "same": "z"}, "0" * 12 + "a" * 52, "2.0", {"s": ENTRY})


@pytest.mark.parametrize(("now", "said"), [
    (WERE, []),
    (replace(WERE, scenarios={}), []),
    (replace(WERE, fingerprint={"new": "y", "cpu": "two", "same": "z"}),
     ["fingerprint changed: cpu one -> two, gone x -> none, new none -> y"]),
    (replace(WERE, engine="1" * 64), ["engine changed: 000000000000 -> 111111111111"]),
    (replace(WERE, engine="0" * 12 + "b" * 52), ["engine changed: '000000000000' -> '000000000000'"]),
    (replace(WERE, torch="2.1"), ["torch changed: 2.0 -> 2.1"]),
    (store.Manifest({}, "1" * 64, "2.1"),
     ["fingerprint changed: cpu one -> none, gone x -> none, same z -> none",
      "engine changed: 000000000000 -> 111111111111", "torch changed: 2.0 -> 2.1"]),
])  # fmt: skip
def test_every_field_of_a_manifest_that_changed_is_named(now: store.Manifest, said: list[str]) -> None:
    assert of_manifest(WERE, now) == [Change(store.MANIFEST, words) for words in said]


@pytest.mark.parametrize(("known", "said"), [
    (None, []),
    (store.ManifestMissing("m"), ["restored, it was missing"]),
    (store.ManifestAltered("m"), ["restored, it was corrupt"]),
    (store.ManifestFormat("m"), ["restored, it was corrupt"]),
])  # fmt: skip
def test_a_manifest_that_could_not_be_used_says_what_had_become_of_it(
    known: store.CapturesError | None, said: list[str]
) -> None:
    assert of_manifest(known, WERE) == [Change(store.MANIFEST, words) for words in said]


def test_a_blessing_is_summed_up_in_one_line_and_one_document() -> None:
    made = Blessed(Path("x"), (MOVED, Change("t", "tolerance", k=(1.0, 2.0))), 3)
    assert made.summary() == "s moved, max |Δ| 2.5e-1; t tolerance, k 1 -> 2; the others identical (3)"
    assert Blessed(Path("x"), (MOVED,), 0).summary() == "s moved, max |Δ| 2.5e-1"
    assert Blessed(Path("x"), (), 3).summary() == "all 3 identical, nothing written"
    assert made.document() == {
        "changes": [
            {"name": "s", "what": "moved", "max_abs": 0.25, "k": None},
            {"name": "t", "what": "tolerance", "max_abs": None, "k": (1.0, 2.0)},
        ],
        "identical": 3,
    }
