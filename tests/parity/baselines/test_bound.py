"""The bound of another machine, and what a check says: whole results, in every dtype, to the last word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.baselines import captures, platform, store
from harness.parity.baselines.bless import bound_factor
from harness.parity.baselines.captures import Report, check, counted, select
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import EPS, Result, Verdict, distance, tolerance, within_bound
from harness.parity.compare import compare_named

UNIT = 2.0**-22
"""eps * rms of a tensor of twos."""
V = Verdict


# The unit.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_the_unit_is_of_float32_s_eps_and_of_the_capture_s_rms_in_every_dtype(dtype: torch.dtype) -> None:
    """The rms of 1, 1, 1, 5 is the root of 7; what is computed is another tensor and changes no unit."""
    expected = torch.tensor([1, 1, 1, 5]).to(dtype)
    assert tolerance(expected * 3, expected) == (10.0, 2.0**-23 * math.sqrt(7.0))
    assert EPS == 2.0**-23


@pytest.mark.parametrize(("value", "dtype"), [(2.0**100, torch.float32), (2.0**-100, torch.float32),
                                              (2.0**15, torch.float16), (2.0**62, torch.int64)], ids=str)  # fmt: skip
def test_squares_that_a_dtype_does_not_hold_neither_overflow_nor_vanish(value: float, dtype: torch.dtype) -> None:
    expected = torch.full((3,), value).to(dtype)
    assert tolerance(expected, expected) == (0.0, 2.0**-23 * value)


def test_the_rms_of_a_complex_tensor_is_that_of_its_parts_also_where_it_is_a_conjugate() -> None:
    expected = torch.tensor([3 + 4j, 3 - 4j])
    assert tolerance(expected, expected) == (0.0, EPS * math.sqrt(12.5))
    assert tolerance(expected.conj(), expected.conj()) == (0.0, EPS * math.sqrt(12.5))


def test_a_tensor_without_elements_has_a_unit_of_0() -> None:
    assert tolerance(torch.empty(0, 3), torch.empty(0, 3)) == (0.0, 0.0)


@pytest.mark.parametrize("spoiled", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("k", [0.0, 100.0])
def test_beside_a_capture_s_value_that_is_not_finite_nothing_may_move(spoiled: float, order: int, k: float) -> None:
    """Whichever tensor comes first: no bound is relative to such an rms."""
    blessed = dict([("a", torch.tensor([spoiled, 1.0])), ("b", torch.full((2,), 2.0))][::order])
    now = {"a": torch.tensor([spoiled, 1.5]), "b": blessed["b"] + UNIT}
    found = within_bound("s", now, blessed, k)
    assert (found.verdict, found.max_abs, found.bound) == (V.MOVED, None, None)
    assert found.detail.startswith("a: its capture is not finite, so no bound exists; ")
    assert within_bound("s", {**now, "a": blessed["a"]}, blessed, 100.0).verdict is V.TOLERANCE
    with pytest.raises(BlessRefused, match="a tensor whose rms is 0 or not finite, no bound"):
        bound_factor("s", blessed, now)


@pytest.mark.parametrize("order", [1, -1])
def test_k_is_that_of_the_tensor_that_plain_kernels_move_most_in_its_own_unit(order: int) -> None:
    """The large tensor moves more, but by less of its unit."""
    tensors = [("large", torch.full((2,), 2.0**10)), ("small", torch.full((2,), 2.0)), ("still", torch.zeros(1))]
    blessed = dict(tensors[::order])
    plain = {"large": blessed["large"] + 2.0**-12, "small": blessed["small"] + 3 * UNIT, "still": torch.zeros(1)}
    assert bound_factor("s", blessed, plain) == 4 * 3.0


@pytest.mark.parametrize("plain", [{}, {"r": torch.ones(2).double()}, {"r": torch.ones(1)}, {"q": torch.ones(2)},
                                   {"r": torch.ones(2), "q": torch.ones(2)}], ids=str)  # fmt: skip
def test_plain_kernels_that_make_other_tensors_give_no_k(plain: dict[str, Tensor]) -> None:
    with pytest.raises(BlessRefused, match="^s: plain kernels give other tensors, or values that are not finite$"):
        bound_factor("s", {"r": torch.ones(2)}, plain)


# The distance.


@pytest.mark.parametrize("shifts", [(3,), *permutations((0, -8, 5))], ids=str)
def test_the_distance_is_the_largest_over_all_tensors_wherever_it_stands(shifts: tuple[int, ...]) -> None:
    expected = {str(number): torch.zeros(2) for number in range(len(shifts))}
    actual = {name: tensor + torch.tensor([0.0, shifts[int(name)]]) for name, tensor in expected.items()}
    assert distance(actual, expected) == max(map(abs, shifts))


ONE = {"a": torch.ones(2), "b": torch.ones(2)}


@pytest.mark.parametrize("other", [
    {"a": torch.ones(2)}, {**ONE, "c": torch.ones(2)}, {"a": torch.ones(2), "c": torch.ones(2)},
    {**ONE, "b": torch.ones(2).double()}, {**ONE, "b": torch.ones(1)}, {**ONE, "a": torch.ones(1, 2)},
    {**ONE, "b": torch.tensor([1.0, math.nan])}, {**ONE, "a": torch.tensor([math.inf, 1.0])},
])  # fmt: skip
def test_there_is_no_distance_where_names_dtypes_or_shapes_differ_or_a_value_is_not_finite(
    other: dict[str, Tensor],
) -> None:
    assert distance(other, ONE) is None
    assert distance(ONE, other) is None
    found = within_bound("s", other, ONE, 1e9)
    detail = "; ".join(map(str, compare_named(other, ONE)))
    assert found == Result("s", V.MOVED, None, None, detail)


def test_an_infinity_that_both_sides_have_is_no_distance() -> None:
    same = {"a": torch.tensor([math.inf, math.nan, 1.0])}
    assert distance(same, same) == 0.0
    assert distance({}, {}) == 0.0


# Whole results.


def twos(**shifts: float) -> dict[str, Tensor]:
    return {name: torch.full((2,), 2.0) + steps * UNIT for name, steps in shifts.items()}


def test_a_result_within_the_bound_says_both_numbers_of_the_tensor_that_is_nearest_to_it() -> None:
    found = within_bound("s", twos(a=1, b=3, c=2, d=0), twos(a=0, b=0, c=0, d=0), 4.0)
    assert found == Result("s", V.TOLERANCE, 3 * UNIT, 4 * UNIT, "b: max |Δ| 7.15e-07 <= 9.54e-07")
    assert within_bound("s", twos(a=0, b=0), twos(a=0, b=0), 4.0) == Result("s", V.EXACT, 0.0, 0.0)


def test_a_result_beyond_the_bound_says_both_numbers_and_then_every_difference() -> None:
    now, blessed = twos(a=1, b=5, c=2, d=0), twos(a=0, b=0, c=0, d=0)
    differences = [str(each) for each in compare_named(now, blessed)]
    assert len(differences) == 3
    detail = "; ".join(["b: max |Δ| 1.19e-06 > 9.54e-07", *differences])
    assert within_bound("s", now, blessed, 4.0) == Result("s", V.MOVED, 5 * UNIT, 4 * UNIT, detail)


def test_of_two_tensors_beyond_their_bounds_the_one_speaks_that_is_beyond_by_more() -> None:
    """The other one is beyond its own bound by a larger factor."""
    blessed = {"little": torch.full((2,), 2.0), "large": torch.full((2,), 2.0**10)}
    now = {"little": blessed["little"] + 5 * UNIT, "large": blessed["large"] + 2.0**-12}
    for order in (1, -1):
        found = within_bound("s", now, dict(list(blessed.items())[::order]), 1.0)
        assert (found.max_abs, found.bound) == (2.0**-12, 2.0**-13)
        assert found.detail.startswith("large: max |Δ| 0.000244 > 0.000122; ")


def test_the_bound_is_k_units_whatever_k_is() -> None:
    for k, verdict in ((0.0, V.MOVED), (0.5, V.MOVED), (1.0, V.TOLERANCE), (1.5, V.TOLERANCE)):
        found = within_bound("s", twos(a=1), twos(a=0), k)
        assert (found.verdict, found.bound) == (verdict, k * UNIT)


# A check of made-up captures, each as a table of whole results.


class Folder:
    """A platform's folder of captures, and what is played."""

    def __init__(self, root: Path, tensors: Mapping[str, Tensor], *, here: bool = True) -> None:
        self.root, self.own = root, root / platform.name() / "scenarios"
        self.scenarios: dict[str, Any] = {name: SimpleNamespace(name=name) for name in ("one", "two")}
        self.finished = {name: {key: x.clone() for key, x in tensors.items()} for name in self.scenarios}
        self.ticks = {name: ("aa", "bb", "cc") for name in self.scenarios}
        entries = {name: store.entry(name, tensors, ("aa", "bb", "cc"), 4.0, "why") for name in self.scenarios}
        for entry in entries.values():
            store.atomic.write(self.own / entry.file, store.serialize(tensors))
        with platform.one_thread():
            fingerprint = platform.fingerprint() | ({} if here else {"cpu_name": "another", "mkl": "another"})
        store.write_manifest(self.own, store.Manifest(fingerprint, "", "", entries))
        self.log: list[str] = []

    def play(self, scenario: Any) -> Any:
        self.log.append(f"play {scenario.name}")
        return SimpleNamespace(finished=self.finished[scenario.name], ticks=self.ticks[scenario.name])

    def check(self, *only: str) -> Report:
        return check(self.scenarios, self.play, self.root, only, lambda name: self.log.append(f"announce {name}"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(platform, "reference_platform", platform.name)
    return Folder(tmp_path, twos(a=0, b=0))


@pytest.mark.parametrize(
    ("ticks", "first"),
    [
        (("xx", "bb", "cc"), "0 of 0 to 2"),
        (("aa", "xx", "xx"), "1 of 0 to 2"),
        (("aa", "bb", "xx"), "2 of 0 to 2"),
        (("aa", "xx"), "1 of 0 to 2"),
        (("aa", "bb", "cc", "dd"), "3, after 4 ticks where 3 were blessed"),
        (("aa", "bb", "xx", "dd"), "2 of 0 to 2"),
        (("aa", "bb", "cc", "dd", "ee"), "3, after 5 ticks where 3 were blessed"),
        (("aa",), "1, after 1 ticks where 3 were blessed"),
        ((), "0, after 0 ticks where 3 were blessed"),
    ],
)
def test_the_first_tick_that_moved_is_counted_from_0_of_those_that_were_blessed(
    ticks: tuple[str, ...], first: str, folder: Folder
) -> None:
    folder.ticks["two"] = ticks
    states = f"finished tensors are identical, states are not; first tick that moved: {first}"
    assert folder.check("two").results == (Result("two", V.DIGEST_DIFFERS, 0.0, 0.0, states, platform.name()),)
    folder.finished["two"] = twos(a=1, b=8)
    (found,) = folder.check("two").results
    differences = map(str, compare_named(folder.finished["two"], twos(a=0, b=0)))
    detail = f"first tick that moved: {first}; finished latents: " + "; ".join(differences)
    assert found == Result("two", V.MOVED, 8 * UNIT, 0.0, detail, platform.name())


def test_tensors_that_moved_under_the_same_states_say_that_no_tick_moved(folder: Folder) -> None:
    folder.finished["one"]["b"] = torch.ones(3)
    one, two = folder.check().results
    assert one.detail == "first tick that moved: none; finished latents: b: shape differs, got (3,), expected (2,)"
    assert (one.verdict, one.max_abs, one.bound) == (V.MOVED, None, 0.0)
    assert two == Result("two", V.EXACT, 0.0, 0.0, "", platform.name())


def test_each_scenario_is_announced_before_it_is_played_and_one_without_a_capture_too(folder: Folder) -> None:
    folder.check()
    assert folder.log == ["announce one", "play one", "announce two", "play two"]
    (folder.own / "one.safetensors").unlink()
    folder.log.clear()
    folder.check()
    assert folder.log == ["announce one", "announce two", "play two"]


def test_the_fingerprint_is_that_of_the_one_thread_that_the_check_runs_with(folder: Folder) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        report = folder.check()
    finally:
        torch.set_num_threads(before)
    assert report.passes and report.blessed_here
    assert report.fingerprint["threads"] == "1"


def test_every_stray_is_named_captures_of_no_scenario_first_whatever_it_is(folder: Folder) -> None:
    del folder.scenarios["one"], folder.scenarios["two"]
    folder.scenarios["zero"] = SimpleNamespace(name="zero")
    for name in ("zoo", ".hidden", "a.safetensors"):
        (folder.own / name).touch()
    (folder.own / "folder").mkdir()
    _, *strays = folder.check().results
    gone = [Result(name, V.ORPHAN, detail=f"{folder.own / name}.safetensors: blessed, but no scenario of the battery")
            for name in ("one", "two")]  # fmt: skip
    files = [Result(name, V.ORPHAN, detail=f"{folder.own / name}: not in the manifest")
             for name in (".hidden", "a.safetensors", "folder", "zoo")]  # fmt: skip
    assert strays == gone + files
    assert len(folder.check("zero").results) == 1


def test_a_scenario_that_cannot_be_compared_says_what_reading_it_said(folder: Folder) -> None:
    path = folder.own / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    size = path.stat().st_size
    (found,) = folder.check("one").results
    assert found == Result("one", V.CORRUPT, detail=f"{path}: truncated, {size} of {size + 1} bytes")


# What a report says.

RESULTS = (Result("a", V.EXACT, compared_with="here"), Result("b", V.TOLERANCE, compared_with="there"),
           Result("c", V.MISSING), Result("d", V.EXACT, compared_with="there"))  # fmt: skip


@pytest.mark.parametrize(("compared_with", "said", "blessed_here"), [
    ({}, "here, nothing was compared", False),
    ({"here": ()}, "here, the platform that blessed them", True),
    ({"there": ()}, "here, the platform that blessed them", True),
    ({"here": ("cpu", "mkl")}, "here, differs in cpu, mkl from where they were blessed: within the bound", False),
    ({"there": ("cpu",)}, "here, within the bound of the captures of there", False),
    ({"here": (), "there": ("cpu",)},
     "here, 1 byte for byte with its own captures, 2 within the bound of the captures of there", False),
    ({"here": ("cpu",), "there": ()},
     "here, 1 within the bound of its own captures, 2 byte for byte with the captures of there", False),
    ({"here": (), "there": ()},
     "here, 1 byte for byte with its own captures, 2 byte for byte with the captures of there", True),
])  # fmt: skip
def test_a_report_says_with_what_it_was_compared_and_how(
    compared_with: dict[str, tuple[str, ...]], said: str, blessed_here: bool
) -> None:
    report = Report(RESULTS, "here", compared_with, {"cpu": "x", "mkl": "y"})
    assert report.summary() == f"4 scenarios: 2 exact, 1 tolerance, 1 missing ({said})"
    assert report.blessed_here is blessed_here
    document = report.document()
    assert document["platform"] == {
        "name": "here",
        "compared_with": {name: list(differs) for name, differs in compared_with.items()},
        "blessed_here": blessed_here,
        "elsewhere": [],
        "fingerprint": {"cpu": "x", "mkl": "y"},
    }
    assert document["scenarios"][1] == {"name": "b", "verdict": "tolerance", "max_abs": None, "bound": None,
                                        "detail": "", "compared_with": "there"}  # fmt: skip


@pytest.mark.parametrize("verdict", Verdict)
def test_one_verdict_that_does_not_pass_fails_a_report_wherever_it_stands_and_so_does_no_result(
    verdict: Verdict,
) -> None:
    passes = verdict in (V.EXACT, V.TOLERANCE)
    other, exact = Result("x", verdict), Result("y", V.EXACT)
    for results in ((other,), (other, exact), (exact, other)):
        assert Report(results, "here", {}).passes is passes
        assert Report(results, "here", {}).compared
    assert Report((other,), "here", {"here": ()}).summary().startswith(f"1 scenario: 1 {verdict} (")
    assert not Report((), "here", {}).passes


def test_verdicts_are_counted_in_one_order_and_none_that_does_not_occur() -> None:
    found = [V.ORPHAN, V.TOLERANCE, V.EXACT, V.TOLERANCE, V.MISSING]
    assert counted(found) == "1 exact, 2 tolerance, 1 missing, 1 orphan"
    assert counted(list(reversed(found))) == counted(found)
    assert counted([]) == ""


def test_chosen_scenarios_are_those_named_and_keep_the_order_of_the_battery() -> None:
    battery: Any = {"cfg": 1, "cfg_full": 2, "ode": 3}
    assert list(select(battery, ["ode", "cfg", "ode"]).items()) == [("cfg", 1), ("ode", 3)]
    assert list(select(battery, ["cfg_full"])) == ["cfg_full"]
    assert list(select(battery, ())) == list(battery)
    with pytest.raises(InvalidInput, match="only: got nine, full, expected some of cfg, cfg_full, ode"):
        select(battery, ["nine", "cfg", "full"])


def test_the_tolerance_that_a_capture_was_blessed_with_is_the_one_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "reference_platform", platform.name)
    folder = Folder(tmp_path, twos(a=0, b=0), here=False)
    manifest = store.read_manifest(folder.own)
    narrow = {**manifest.scenarios, "two": replace(manifest.scenarios["two"], k=0.5)}
    store.write_manifest(folder.own, replace(manifest, scenarios=narrow))
    for name in folder.scenarios:
        folder.finished[name] = twos(a=0, b=1)
    one, two = folder.check().results
    assert (one.verdict, one.bound) == (V.TOLERANCE, 4 * UNIT)
    assert (two.verdict, two.bound) == (V.MOVED, 0.5 * UNIT)
    where = f"{platform.name()}, differs in cpu_name, mkl from where they were blessed: within the bound"
    assert folder.check().summary() == f"2 scenarios: 1 tolerance, 1 moved ({where})"


def test_captures_is_the_folder_of_the_checkout() -> None:
    assert captures.CAPTURES == platform.ROOT / "captures"
