"""A capture of a tree: what is compared where nothing else is said, and what the messages say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.baselines import blessed, platform, store
from harness.parity.baselines.blessed import OutOfBound, Place, Rewritten
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Verdict
from harness.parity.compare import LISTED, Difference, ParityError, named_differences
from harness.parity.differences import BLESSED

OLD, NEW = {"x": torch.ones(2)}, {"x": torch.zeros(2)}


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path / "captures", tmp_path)


def bless(place: Place, tree: object, k: float = 0.0) -> Rewritten | None:
    return blessed.bless("tree", tree, lambda: tree, place, "why", k)


@pytest.mark.parametrize(("count", "more"), [(LISTED, []), (LISTED + 1, ["  and 1 more"])])
def test_a_change_names_the_first_differences_and_counts_the_others_where_there_are_others(
    count: int, more: list[str]
) -> None:
    differences = tuple(Difference(f"x{number}", "missing", "nothing", "a tensor") for number in range(count))
    named = [f"  {difference.told(BLESSED)}" for difference in differences[:LISTED]]
    assert list(Rewritten("tree moved", differences).lines()) == ["tree moved", *named, *more]


def test_the_differences_of_a_change_are_fixed(place: Place) -> None:
    bless(place, OLD)
    changed = bless(place, NEW)
    assert changed is not None and changed.differences == tuple(named_differences(NEW, OLD))


def test_a_tolerance_has_to_be_asked_for(place: Place) -> None:
    bless(place, OLD, k=1.0)
    with pytest.raises(InvalidInput, match=r"got 0\.0, expected 1\.0, as it was blessed"):
        blessed.check("tree", OLD, place)
    bless(place, OLD)
    assert blessed.check("tree", OLD, place).verdict.passes


def here(place: Place) -> None:
    """Leave the captures this machine's."""
    assert place.own("blessed").is_dir()


def another_machine(place: Place) -> None:
    """Make the captures those of another machine of this platform's name."""
    home = place.own("blessed") / "tree"
    manifest = store.read_manifest(home)
    store.write_manifest(home, replace(manifest, fingerprint={**manifest.fingerprint, "cpu_name": "other"}))


def another_platform(place: Place) -> None:
    """Make the captures those of a reference platform."""
    another_machine(place)
    place.own("blessed").parent.rename(place.captures / "reference")
    (place.project / "pyproject.toml").write_text('[tool.harness]\nreference-platform = "reference"\n')


@pytest.mark.parametrize("tree", [OLD, {"x": OLD["x"] + 1e-6}, NEW], ids=["same", "near", "far"])
@pytest.mark.parametrize(("k", "asked"), [(0.0, 100.0), (100.0, 0.0), (100.0, 99.0), (100.0, 101.0), (100.0, 1e9)])
@pytest.mark.parametrize("moved", [here, another_machine, another_platform])
def test_another_tolerance_than_the_blessed_one_is_refused_on_every_machine(
    moved: Callable[[Place], None], k: float, asked: float, tree: object, place: Place
) -> None:
    bless(place, OLD, k)
    moved(place)
    with pytest.raises(InvalidInput, match=re.escape(f"k of tree: got {asked}, expected {k}, as it was blessed")):
        blessed.check("tree", tree, place, asked)


@pytest.mark.parametrize("moved", [another_machine, another_platform])
def test_on_other_machines_the_blessed_tolerance_lets_pass_what_is_within_it(
    moved: Callable[[Place], None], place: Place
) -> None:
    bless(place, OLD, 100.0)
    moved(place)
    assert blessed.check("tree", OLD, place, 100.0).verdict is Verdict.EXACT
    assert blessed.check("tree", {"x": OLD["x"] + 1e-6}, place, 100.0).verdict is Verdict.TOLERANCE
    with pytest.raises(OutOfBound):
        blessed.check("tree", NEW, place, 100.0)


@pytest.mark.parametrize(("others", "said"), [((), ""), (("b", "a"), ", only on a, b")])
def test_what_was_never_blessed_here_names_every_platform_that_has_it(
    place: Place, others: tuple[str, ...], said: str
) -> None:
    for other in others:
        (place.captures / other / "blessed" / "tree").mkdir(parents=True)
    with pytest.raises(store.CaptureMissing) as error:
        blessed.check("tree", OLD, place)
    assert str(error.value).endswith(f"missing, tree was never blessed on {platform.name()}{said}")


def test_differences_are_listed_in_the_order_of_the_tree_and_what_is_gone_comes_last(place: Place) -> None:
    ticks = [{"x": torch.full((2,), float(number))} for number in range(LISTED + 5)]
    bless(place, {"tick": ticks, "gone": torch.ones(1)})
    later = {"tick": [{"x": each["x"] + (number > 1)} for number, each in enumerate(ticks)], "added": torch.ones(1)}
    with pytest.raises(ParityError) as error:
        blessed.check("tree", later, place)
    names = [each.name for each in error.value.differences]
    assert names == [*(f"tick[{number}]/x" for number in range(2, LISTED + 5)), "added", "gone"]
    assert str(error.value).splitlines()[1].strip().startswith("tick[2]/x: bytes differ")
    assert str(error.value).splitlines()[-1].strip() == "and 5 more"


@pytest.mark.parametrize("asked", ["", platform.name()])
def test_this_platform_is_blessed_by_its_name_as_without_one_and_another_is_not(asked: str, place: Place) -> None:
    named = replace(place, platform=asked)
    assert named.to_bless("blessed") == place.captures / platform.name() / "blessed"
    changed = bless(named, OLD)
    assert changed is not None and blessed.check("tree", OLD, named).verdict is Verdict.EXACT
    with pytest.raises(BlessRefused, match=f"captures of board cannot be blessed on {platform.name()}"):
        bless(replace(place, platform="board"), NEW)
    assert blessed.check("tree", OLD, named).verdict is Verdict.EXACT


@pytest.mark.parametrize("asked", ["", platform.name(), "board"])
def test_where_nothing_was_blessed_the_platform_that_was_asked_for_is_the_one_without(asked: str, place: Place) -> None:
    name = asked or platform.name()
    assert replace(place, platform=asked).folder("blessed") == place.captures / name / "blessed"
    with pytest.raises(store.CaptureMissing, match=f"tree was never blessed on {name}$"):
        blessed.check("tree", OLD, replace(place, platform=asked))


@pytest.mark.parametrize("order", [1, -1])
def test_the_tolerance_that_would_be_needed_is_that_of_the_tensor_that_needs_most(order: int, place: Place) -> None:
    """Tensors of twos have a unit of 2^-22, exactly: they move by 4 and by 16 of it."""
    old = {"x": torch.full((2,), 2.0), "y": torch.full((2,), 2.0), "z": torch.ones(1)}
    bless(place, old)
    another_machine(place)
    shifts = dict(zip("xy", [2.0**-20, 2.0**-18][::order], strict=True))
    now = {name: tensor + shifts.get(name, 0.0) for name, tensor in old.items()}
    with pytest.raises(OutOfBound, match=r"it has no tolerance k, it is 16 of k away\. "):
        blessed.check("tree", now, place)
