"""Captures of trees: where they are looked for, what is written of them, and every word of a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import atomic
from harness.engine.errors import InvalidInput
from harness.parity.baselines import blessed, platform, store
from harness.parity.baselines.blessed import OutOfBound, Place, Rewritten
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.compare import NothingCompared, ParityError, tree_differences
from harness.parity.differences import BLESSED
from harness.parity.trees import named

HERE = platform.name()
TREE = {"slots": [torch.full((2,), 2.0), None], "n": torch.tensor(3)}
UNIT = 2.0**-22


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path / "captures", tmp_path)


def bless(
    place: Place, tree: Any = TREE, k: float = 0.0, *, reason: str = "why", name: str = "tree"
) -> Rewritten | None:
    return blessed.bless(name, tree, lambda: tree, place, reason, k)


def home(place: Place, name: str = "tree") -> Path:
    return place.own("blessed") / name


def entry(place: Place, name: str = "tree") -> store.Entry:
    return store.read_manifest(home(place, name)).scenarios[name]


def moved(steps: float) -> dict[str, Any]:
    return {**TREE, "slots": [torch.full((2,), 2.0) + torch.tensor([0.0, steps * UNIT]), None]}


def elsewhere(place: Place) -> None:
    manifest = store.read_manifest(home(place))
    fingerprint = {**manifest.fingerprint, "cpu_name": "other", "mkl": "other"}
    store.write_manifest(home(place), replace(manifest, fingerprint=fingerprint))


def reference(place: Place, name: str = "board") -> None:
    (place.project / "pyproject.toml").write_text(f"[tool.harness]\nreference-platform = '{name}'\n")


# Places.


def made(place: Place, *paths: str) -> None:
    for path in paths:
        (place.captures / path).mkdir(parents=True)


@pytest.mark.parametrize(("there", "asked", "named_", "folders", "folder"), [
    ([], "", "", [], HERE),
    ([f"{HERE}/blessed"], "", "", [HERE], HERE),
    (["board/blessed"], "", "", ["board"], "board"),
    (["board/blessed/tree"], "", "tree", ["board"], "board"),
    ([f"{HERE}/blessed", "board/blessed"], "", "", [HERE, "board"], HERE),
    ([f"{HERE}/blessed", "board/blessed/tree"], "", "tree", [HERE, "board"], "board"),
    ([f"{HERE}/blessed/tree", "board/blessed/tree"], "", "tree", [HERE, "board"], HERE),
    ([f"{HERE}/blessed", "board/blessed"], "", "tree", [HERE, "board"], HERE),
    ([f"{HERE}/costs", "board/blessed"], "", "tree", ["board"], "board"),
    ([f"{HERE}/blessed/tree", "board/blessed/tree"], "board", "tree", ["board"], "board"),
    ([f"{HERE}/blessed/tree", "third/blessed"], "third", "tree", ["third"], "third"),
    ([f"{HERE}/blessed/tree", "board/blessed/tree"], "third", "tree", [], "third"),
    ([f"{HERE}/blessed/tree", "third/blessed/tree"], "", "tree", [HERE], HERE),
])  # fmt: skip
def test_a_capture_is_looked_for_in_the_folder_that_was_asked_for_else_here_else_in_the_reference_platform_s(
    there: list[str], asked: str, named_: str, folders: list[str], folder: str, place: Place
) -> None:
    reference(place)
    made(place, *there)
    at = replace(place, platform=asked)
    assert at.folders("blessed") == tuple(place.captures / name / "blessed" for name in folders)
    assert at.folder("blessed", "cpu", named_) == place.captures / folder / "blessed"


def test_a_folder_that_is_both_this_machine_s_and_the_reference_platform_s_is_looked_into_once(place: Place) -> None:
    reference(place, HERE)
    made(place, f"{HERE}/blessed")
    assert place.folders("blessed") == (place.captures / HERE / "blessed",)


def test_each_device_has_a_folder_of_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Board 1")
    made(place, f"{HERE}/costs", "cuda-board-1/costs")
    for device, name in (("cpu", HERE), ("cuda", "cuda-board-1"), (torch.device("cuda", 0), "cuda-board-1")):
        own = place.captures / name / "costs"
        assert place.own("costs", device) == place.to_bless("costs", device) == place.folder("costs", device) == own
        assert place.folders("costs", device) == (own,)
    board = replace(place, platform="cuda-board-1")
    assert board.to_bless("costs", "cuda") == place.captures / "cuda-board-1" / "costs"
    with pytest.raises(BlessRefused, match=f"^captures of cuda-board-1 cannot be blessed on {HERE}$"):
        board.to_bless("costs")


def test_a_tree_is_on_a_gpu_where_any_of_its_tensors_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, meta, first, second = (torch.device(name) for name in ("cpu", "meta", "cuda:0", "cuda:1"))
    for found, expected in (((), cpu), ((cpu,), cpu), ((cpu, first), first), ((first, cpu), first),
                            ((meta, cpu), cpu), ((cpu, second), second)):  # fmt: skip
        monkeypatch.setattr(blessed, "devices", lambda _tree, found=found: found)
        assert blessed.device_of(TREE) == expected


def test_entries_are_those_of_this_machine_on_every_device_then_those_that_stand_in_with_their_stray_files(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Board 1")
    reference(place)
    made(place, f"{HERE}/blessed/b", f"{HERE}/blessed/a", "cuda-board-1/blessed/c", "board/blessed/a",
         "board/blessed/d", "third/blessed/e")  # fmt: skip
    own_files = ("a/manifest.json", "a/a.safetensors", "a/b.safetensors", "z.txt")
    for path in (*(f"{HERE}/blessed/{file}" for file in own_files), "board/blessed/d/.hidden", "board/blessed/a/stray"):
        (place.captures / path).touch()
    own = [f"{HERE}/blessed/{name}" for name in ("a", "a/b.safetensors", "b", "z.txt")]
    standing_in = ["board/blessed/d", "board/blessed/d/.hidden"]
    found = [str(path.relative_to(place.captures)) for path in blessed.entries(place)]
    assert found == [*own, "cuda-board-1/blessed/c", *standing_in]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = [str(path.relative_to(place.captures)) for path in blessed.entries(place)]
    assert found == [*own, *standing_in]
    third = [str(path.relative_to(place.captures)) for path in blessed.entries(replace(place, platform="third"))]
    assert third == ["third/blessed/e"]


# What is written.


def test_a_blessed_tree_is_its_tensors_by_path_and_a_manifest_of_where_and_why(place: Place) -> None:
    changed = bless(place, k=8.0)
    assert changed == Rewritten("tree new")
    assert (home(place) / "tree.safetensors").read_bytes() == store.serialize(named(TREE))
    found = store.read_manifest(home(place))
    expected = store.entry("tree", named(TREE), (), 8.0, "why")
    assert found == store.Manifest(platform.of_device(), "", str(torch.__version__), {"tree": expected})
    assert sorted(path.name for path in home(place).iterdir()) == ["manifest.json", "tree.safetensors"]
    assert bless(place, k=8.0, reason="other") is None
    assert store.read_manifest(home(place)) == found


@pytest.mark.parametrize(("then", "k", "what"), [
    (moved(2), 8.0, "tree moved, max |Δ| 4.8e-7"),
    (moved(2), 9.0, "tree moved, max |Δ| 4.8e-7, k 8 -> 9"),
    (TREE, 9.0, "tree, k 8 -> 9"),
    (TREE, 0.0, "tree, k 8 -> 0"),
    ({**TREE, "n": torch.tensor(3.0)}, 8.0, "tree changed in names, dtype, shape or to no finite value"),
    ({**TREE, "slots": [TREE["slots"][0]]}, 8.0, "tree changed in names, dtype, shape or to no finite value"),
])  # fmt: skip
def test_a_rewritten_tree_says_what_changed_and_its_differences_and_keeps_the_new_reason(
    then: Any, k: float, what: str, place: Place
) -> None:
    bless(place, k=8.0)
    differences = tuple(tree_differences(named(then), named(TREE)))
    assert bless(place, then, k, reason="better") == Rewritten(what, differences)
    assert entry(place) == store.entry("tree", named(then), (), k, "better")
    assert blessed.check("tree", then, place, k) == Result("tree", Verdict.EXACT, 0.0, 0.0)


IN_NO_MANIFEST = "tree restored, its file was in no manifest and is the same"


@pytest.mark.parametrize(("damage", "what"), [
    (lambda path: (path / "tree.safetensors").unlink(), "tree restored, its file was missing"),
    (lambda path: (path / "tree.safetensors").write_bytes(b""), "tree restored, its file was corrupt"),
    (lambda path: (path / "manifest.json").unlink(), IN_NO_MANIFEST),
    (lambda path: (path / "manifest.json").write_text("{}"), IN_NO_MANIFEST),
])  # fmt: skip
def test_a_damaged_capture_is_restored_although_nothing_moved(
    damage: Callable[[Path], Any], what: str, place: Place
) -> None:
    bless(place, k=8.0)
    damage(home(place))
    assert bless(place, k=8.0, reason="again") == Rewritten(what)
    assert entry(place).reason == "again"
    assert blessed.check("tree", TREE, place, 8.0).verdict is Verdict.EXACT


@pytest.mark.parametrize("written", [0, 1])
def test_stopped_between_the_file_and_its_manifest_the_next_check_fails(
    written: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bless(place)
    write, names = atomic.write, list[str]()

    def stopped(path: Path, data: bytes) -> None:
        if len(names) == written:
            raise KeyboardInterrupt
        names.append(path.name)
        write(path, data)

    monkeypatch.setattr(atomic, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        bless(place, moved(1))
    assert names == ["tree.safetensors"][:written]
    with pytest.raises(store.CaptureCorrupt if written else ParityError):
        blessed.check("tree", moved(1), place)


# What is refused.


@pytest.mark.parametrize("k", [-1.0, -1e-300, math.nan, math.inf, -math.inf])
def test_a_tolerance_is_a_finite_number_from_0_up(k: float, place: Place) -> None:
    bless(place)
    for act in (lambda: blessed.check("tree", TREE, place, k), lambda: bless(place, k=k)):
        with pytest.raises(InvalidInput, match=f"^k: got {k}, expected a finite number, 0 or above$"):
            act()
    assert entry(place).k == 0.0


@pytest.mark.parametrize(("tree", "said"), [
    ({"x": torch.ones(2), "y": torch.tensor([1.0, math.nan])}, "y holds a NaN"),
    ({"x": torch.tensor(complex(0, math.nan))}, "x holds a NaN"),
    ({"y": torch.tensor([math.nan]), "x": torch.tensor([math.nan])}, "y holds a NaN"),
    (torch.tensor([math.nan]).bfloat16(), r"\(root\) holds a NaN"),
])  # fmt: skip
def test_a_nan_is_refused_by_its_path_and_an_infinity_is_not(tree: Any, said: str, place: Place) -> None:
    with pytest.raises(BlessRefused, match=f"^tree: {said}, which equals itself, whatever made it$"):
        bless(place, tree)
    assert not place.captures.exists()
    infinite = {"x": torch.tensor([math.inf, 1.0])}
    bless(place, infinite)
    assert blessed.check("tree", infinite, place).verdict is Verdict.EXACT


@pytest.mark.parametrize("at", [2, 3])
def test_a_tree_that_is_made_otherwise_again_is_refused_by_its_first_difference(at: int, place: Place) -> None:
    calls = [1]

    def again() -> Any:
        calls.append(1)
        return moved(1) if len(calls) == at else TREE

    (difference,) = tree_differences(named(moved(1)), named(TREE))
    with pytest.raises(BlessRefused) as error:
        blessed.bless("tree", TREE, again, place, "why")
    assert str(error.value) == f"tree is not reproducible, called again it differs: {difference}"
    assert not place.captures.exists()


def test_what_was_made_once_must_be_what_was_blessed_and_is_never_written(place: Place) -> None:
    hint = "tree: to bless it, give the function that makes it, not what it made\n"
    with pytest.raises(BlessRefused) as error:
        blessed.bless("tree", TREE, None, place, "why")
    assert str(error.value).startswith(f"{hint}{home(place) / 'tree.safetensors'}: missing, tree was never blessed on ")
    bless(place, k=1.0)
    assert blessed.bless("tree", TREE, None, place, "why", 1.0) is None
    for tree, k, said in ((moved(1), 1.0, "tree is not identical"), (TREE, 2.0, "k of tree: got 2.0, expected 1.0"),
                          ({}, 1.0, "tree: no tensor with an element")):  # fmt: skip
        with pytest.raises(BlessRefused) as error:
            blessed.bless("tree", tree, None, place, "why", k)
        assert str(error.value).startswith(f"{hint}{said}")


@pytest.mark.parametrize("tree", [{}, None, [], {"x": torch.empty(0)}, [None, torch.empty(2, 0)]], ids=str)
def test_a_tree_without_an_element_is_no_comparison_whether_or_not_there_is_a_capture(tree: Any, place: Place) -> None:
    for act in (lambda: blessed.check("tree", tree, place), lambda: bless(place, tree)):
        with pytest.raises(NothingCompared, match="^tree: no tensor with an element, so there is nothing to compare$"):
            act()
    bless(place)
    with pytest.raises(NothingCompared):
        blessed.check("tree", tree, place)


def test_the_manifest_of_a_capture_is_of_that_capture_alone(place: Place) -> None:
    bless(place)
    manifest = store.read_manifest(home(place))
    for scenarios in ({}, {**manifest.scenarios, "z": replace(entry(place), file="z.safetensors")}):
        store.write_manifest(home(place), replace(manifest, scenarios=scenarios))
        with pytest.raises(store.ManifestAltered, match=f"^{home(place) / 'manifest.json'}: not the manifest of tree$"):
            blessed.check("tree", TREE, place)


def test_a_capture_that_cannot_be_read_goes_before_its_tolerance(place: Place) -> None:
    bless(place)
    (home(place) / "tree.safetensors").write_bytes(b"")
    with pytest.raises(store.CaptureCorrupt):
        blessed.check("tree", TREE, place, 1.0)


# Another machine.


def test_here_one_bit_is_a_difference_whatever_the_tolerance(place: Place) -> None:
    bless(place, k=100.0)
    with pytest.raises(ParityError) as error:
        blessed.check("tree", moved(1), place, 100.0)
    assert error.value.differences == tuple(tree_differences(named(moved(1)), named(TREE)))
    assert str(error.value).startswith("tree is not identical, 1 difference(s):\n  slots[0]: bytes differ in 1 of 2")


def test_elsewhere_the_tolerance_is_the_bound_and_both_numbers_are_told(place: Place) -> None:
    bless(place, k=4.0)
    elsewhere(place)
    assert blessed.check("tree", TREE, place, 4.0) == Result("tree", Verdict.EXACT, 0.0, 0.0)
    detail = "slots[0]: max |Δ| 9.54e-07 <= 9.54e-07"
    assert blessed.check("tree", moved(4), place, 4.0) == Result("tree", Verdict.TOLERANCE, 4 * UNIT, 4 * UNIT, detail)
    with pytest.raises(OutOfBound) as error:
        blessed.check("tree", moved(5), place, 4.0)
    (difference,) = tree_differences(named(moved(5)), named(TREE))
    assert str(error.value) == (
        "tree differs, and this machine is not the one that blessed it (other cpu_name, mkl): beyond k = 4, "
        f"slots[0]: max |Δ| 1.19e-06 > 9.54e-07; {difference.told(BLESSED)}"
    )


def zeros(value: float) -> dict[str, Tensor]:
    return {"x": torch.tensor([value, 0.0]), "y": torch.ones(1)}


@pytest.mark.parametrize(("was", "now", "apart"), [
    (TREE, moved(3), "it is 3 of k away"),
    (zeros(0.0), zeros(1.0), "it is inf of k away"),
    (zeros(0.0), zeros(math.inf), "no bound would let it pass"),
    (zeros(0.0), {**zeros(0.0), "y": torch.ones(1).double()}, "no bound would let it pass"),
])  # fmt: skip
def test_elsewhere_without_a_tolerance_it_says_which_one_would_let_it_pass(
    was: Any, now: Any, apart: str, place: Place
) -> None:
    bless(place, was)
    elsewhere(place)
    with pytest.raises(OutOfBound) as error:
        blessed.check("tree", now, place)
    start = "tree differs, and this machine is not the one that blessed it (other cpu_name, mkl): it has no tolerance k"
    assert str(error.value).startswith(f"{start}, {apart}. ")
    for difference in tree_differences(named(now), named(was)):
        assert difference.told(BLESSED) in str(error.value)
