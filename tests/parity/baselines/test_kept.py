"""Captures that keep digests and samples: what they find, what they can say of it, and how small they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.errors import InvalidInput
from harness.parity.baselines import blessed, kept, store
from harness.parity.baselines.blessed import OutOfBound, Place, Rewritten
from harness.parity.baselines.kept import SAMPLE, Digested, Keep
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Verdict
from harness.parity.bits import DTYPES, digest
from harness.parity.compare import ParityError
from harness.parity.trees import named
from tests.parity.baselines.test_blessed import another_machine

SHAPE = (1, 750, 64)
STRIDE = 47  # 48000 elements in at most 1024 steps
SMALLER = (Keep.SAMPLE, Keep.DIGEST)


def latent(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def changed(*places: int) -> torch.Tensor:
    """The latent with other bits in these elements."""
    made = latent()
    made.view(-1)[list(places)] += 1.0
    return made


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path / "captures", tmp_path)


def bless(place: Place, tree: object, keep: str, k: float = 0.0) -> Rewritten | None:
    return blessed.bless("tree", tree, lambda: tree, place, "why", k, keep)


def check(place: Place, tree: object, keep: str) -> Any:
    return blessed.check("tree", tree, place, 0.0, keep)


def red(place: Place, tree: object, keep: str) -> list[str]:
    with pytest.raises(ParityError) as error:
        check(place, tree, keep)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def home(place: Place) -> Path:
    return place.own("blessed") / "tree"


def size(place: Place) -> int:
    return sum(path.stat().st_size for path in home(place).iterdir())


HEAD = "x: bytes differ by their SHA-256, torch.float32 tensor of shape [1, 750, 64]; "


def test_a_digest_alone_says_that_no_element_can_be_shown_and_names_tensor_dtype_and_shape(place: Place) -> None:
    bless(place, {"x": latent()}, "digest")
    assert check(place, {"x": latent()}, "digest").verdict is Verdict.EXACT
    (line,) = red(place, {"x": changed(5)}, "digest")
    assert line == f"{HEAD}the capture keeps no bytes, so no element can be shown"


def test_a_sample_shows_the_first_sampled_element_that_differs_by_its_place_in_the_whole_tensor(place: Place) -> None:
    bless(place, {"x": latent()}, "sample")
    assert check(place, {"x": latent()}, "sample").verdict is Verdict.EXACT
    now = changed(1, 40 * STRIDE, 41 * STRIDE)
    index = [0, *divmod(40 * STRIDE, 64)]
    (line,) = red(place, {"x": now}, "sample")
    values = f"got {now[tuple(index)].item()} (0x"
    assert line.startswith(f"{HEAD}2 of 1022 sampled elements of 48000 differ, first at index {index}: {values}")
    assert f"blessed {latent()[tuple(index)].item()} (0x" in line and "max |Δ| 1;" in line
    assert line.endswith("the first difference may be at an element that is not in the sample")


@pytest.mark.parametrize("place_of", [1, 46, 48, 47999])
def test_an_element_beside_the_sample_is_found_and_said_to_be_outside(place_of: int, place: Place) -> None:
    bless(place, {"x": latent()}, "sample")
    (line,) = red(place, {"x": changed(place_of)}, "sample")
    told = "1022 sampled elements of 48000 are the same, so the difference is in elements that are not in the sample"
    assert line == f"{HEAD}{told}"


@given(place_of=st.integers(0, 47999), bit=st.integers(0, 31), keep=st.sampled_from(SMALLER))
def test_every_bit_of_every_element_is_covered_whatever_is_kept(place_of: int, bit: int, keep: Keep) -> None:
    digested = kept.digests({"x": latent()}, keep)
    there, now = kept.stored({"x": latent()}, digested), latent()
    now.view(torch.int32).view(-1)[place_of] ^= -(2**31) if bit == 31 else 1 << bit
    assert len(kept.differences({"x": now}, there, digested)) == 1
    assert kept.differences({"x": latent()}, there, digested) == []


@pytest.mark.parametrize("keep", SMALLER)
@pytest.mark.parametrize(("now", "line"), [
    (latent().double(), "x: dtype differs, got torch.float64, blessed torch.float32"),
    (latent().view(torch.int32), "x: dtype differs, got torch.int32, blessed torch.float32"),
    (latent().view(750, 64), "x: shape differs, got (750, 64), blessed (1, 750, 64)"),
    (latent().numpy(), "x: type differs, got NumPy array, torch.float32 [1, 750, 64], "
     "blessed torch.float32 tensor of shape [1, 750, 64]"),
    (None, "x: type differs, got None, blessed torch.float32 tensor of shape [1, 750, 64]"),
])  # fmt: skip
def test_type_dtype_and_shape_are_told_as_with_every_byte(now: Any, line: str, keep: Keep, place: Place) -> None:
    bless(place, {"x": latent(), "y": torch.ones(1)}, keep)
    assert red(place, {"x": now, "y": torch.ones(1)}, keep) == [line]
    assert red(place, {"y": torch.ones(1)}, keep) == ["x: missing, blessed torch.float32 tensor of shape [1, 750, 64]"]
    (extra,) = red(place, {"x": latent(), "y": torch.ones(1), "z": latent()}, keep)
    assert extra == "z: unexpected, got torch.float32 tensor of shape [1, 750, 64]"


@pytest.mark.parametrize("keep", SMALLER)
def test_numbers_and_texts_are_kept_whole(keep: Keep, place: Place) -> None:
    tree = {"n": 3, "mode": "on", "loss": 0.5, "scalar": np.float32(2), "x": latent(), "none": None}
    bless(place, tree, keep)
    lines = red(place, {**tree, "n": 4, "mode": "off", "loss": 0.25, "scalar": np.float32(3)}, keep)
    assert lines[:2] == ["n: value differs, got 4, blessed 3", "mode: value differs, got 'off', blessed 'on'"]
    assert "got 0.25 (" in lines[2] and "got 3.0 (" in lines[3] and len(lines) == 4


@pytest.mark.parametrize("keep", Keep)
@pytest.mark.parametrize("tree", [{"n": 3}, "on", [True, None], np.float64(1.0)], ids=str)
def test_a_tree_without_a_tensor_has_nothing_to_digest(tree: Any, keep: Keep, place: Place) -> None:
    bless(place, tree, keep)
    assert check(place, tree, keep).verdict is Verdict.EXACT
    assert bless(place, tree, keep) is None
    (line,) = red(place, {"n": 4} if isinstance(tree, dict) else 4, keep)[:1]
    assert " differs, got " in line or "unexpected, got int 4" in line


@pytest.mark.parametrize("keep", SMALLER)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (SAMPLE + 1,), (1031, 2), (64, 64, 64)])
def test_tensors_of_every_shape_are_kept(shape: tuple[int, ...], keep: Keep, place: Place) -> None:
    tree = {"x": torch.randn(shape, generator=torch.Generator().manual_seed(0)), "n": 1}
    bless(place, tree, keep)
    assert check(place, tree, keep).verdict is Verdict.EXACT
    assert len(red(place, {"x": torch.zeros(shape) if tree["x"].numel() else torch.zeros(7), "n": 1}, keep)) == 1


def test_a_tensor_as_small_as_its_sample_is_shown_as_with_every_byte(place: Place) -> None:
    x = torch.arange(float(SAMPLE)).reshape(2, -1)
    now = x.clone()
    now[1, 3] = -1.0
    bless(place, x, "sample")
    (line,) = red(place, now, "sample")
    assert line.startswith(f"(root): bytes differ in 1 of {SAMPLE} elements, first at index [1, 3]: got -1.0")


@pytest.mark.parametrize("keep", SMALLER)
@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"torch.complex32", "torch.complex64", "torch.complex128"}))
def test_every_dtype_is_kept(dtype: str, keep: Keep, place: Place) -> None:
    x = torch.arange(4096).remainder(2).to(torch.uint8).repeat(16).view(DTYPES[dtype])[:3000].reshape(3, 1000)
    now = x.clone()
    now.view(torch.uint8)[1, 0] ^= 1
    bless(place, {"x": x}, keep)
    assert check(place, {"x": x.T.contiguous().T}, keep).verdict is Verdict.EXACT
    assert "x: bytes differ by their SHA-256" in red(place, {"x": now}, keep)[0]


def test_a_digest_keeps_what_the_file_format_cannot(place: Place) -> None:
    x = torch.full((2000,), 1j, dtype=torch.complex128)
    bless(place, x, "digest")
    assert check(place, x, "digest").verdict is Verdict.EXACT
    with pytest.raises(BlessRefused, match="the file format cannot keep it"):
        blessed.bless("other", x, lambda: x, place, "why", 0.0, "sample")


@pytest.mark.parametrize(("keep", "most"), [("digest", 8_000), ("sample", 2**18)])
def test_latents_of_30_seconds_and_what_a_decoder_makes_of_them_are_far_below_1_mib(
    keep: str, most: int, place: Place
) -> None:
    audio = torch.randn(1, 2, 48_000 * 30, generator=torch.Generator().manual_seed(1))
    tree = {"latents": [latent(seed) for seed in range(24)], "audio": audio}
    bless(place, tree, keep)
    assert check(place, tree, keep).verdict is Verdict.EXACT
    assert size(place) < most < 2**20


@given(numel=st.integers(0, 3_000_000))
def test_a_sample_is_of_at_most_1024_elements_and_meets_every_channel(numel: int) -> None:
    stride = kept.stride_of(torch.empty(numel, device="meta"))
    assert -(-numel // stride) <= SAMPLE and (stride == 1) == (numel <= SAMPLE)
    assert stride == 1 or math.gcd(stride, numel) == 1


# The caller's word, and what is recorded.


@pytest.mark.parametrize("asked", Keep)
@pytest.mark.parametrize("was", Keep)
def test_what_is_kept_is_recorded_and_must_be_asked_for_as_it_was_blessed(was: Keep, asked: Keep, place: Place) -> None:
    bless(place, latent(), was)
    assert store.read_manifest(home(place)).scenarios["tree"].keep == was
    if was is asked:
        assert check(place, latent(), asked).verdict is Verdict.EXACT
        return
    with pytest.raises(InvalidInput, match=f"keep of tree: got '{asked}', expected '{was}', as it was blessed"):
        check(place, latent(), asked)


@pytest.mark.parametrize("keep", ["", "All", "none", "samples"])
def test_another_word_is_refused(keep: str, place: Place) -> None:
    for act in (bless, check):
        with pytest.raises(InvalidInput, match=f"keep: got '{keep}', expected 'all' or 'sample' or 'digest'"):
            act(place, latent(), keep)


@pytest.mark.parametrize("keep", SMALLER)
def test_a_tolerance_needs_every_byte(keep: Keep, place: Place) -> None:
    with pytest.raises(InvalidInput, match=f"k: got 2.0, expected 0 with keep='{keep}'"):
        bless(place, latent(), keep, 2.0)
    bless(place, latent(), keep)
    another_machine(place)
    assert check(place, latent(), keep).verdict is Verdict.EXACT
    with pytest.raises(OutOfBound, match="a capture that does not keep every byte has no tolerance. .* by their SHA"):
        check(place, changed(1), keep)


@pytest.mark.parametrize(
    ("was", "then"), [(Keep.ALL, Keep.DIGEST), (Keep.DIGEST, Keep.SAMPLE), (Keep.SAMPLE, Keep.ALL)]
)
def test_another_part_is_blessed_by_itself_and_nothing_is_written_again(was: Keep, then: Keep, place: Place) -> None:
    assert bless(place, latent(), was) == Rewritten("tree new")
    assert bless(place, latent(), then) == Rewritten(f"tree, keep {was} -> {then}")
    written = (home(place) / store.MANIFEST).read_bytes()
    assert bless(place, latent(), then) is None
    assert (home(place) / store.MANIFEST).read_bytes() == written


@pytest.mark.parametrize("keep", SMALLER)
@pytest.mark.parametrize("element", [1, STRIDE])
def test_what_moved_outside_or_inside_the_sample_is_blessed_anew_and_told(
    element: int, keep: Keep, place: Place
) -> None:
    bless(place, {"x": latent()}, keep)
    rewritten = bless(place, {"x": changed(element)}, keep)
    assert rewritten is not None
    what, line = rewritten.lines()
    assert what == "tree moved" and line.startswith(f"  {HEAD}")
    assert check(place, {"x": changed(element)}, keep).verdict is Verdict.EXACT


def test_a_capture_of_all_bytes_says_nothing_of_digests_in_its_manifest(place: Place) -> None:
    bless(place, latent(), "all")
    text = (home(place) / store.MANIFEST).read_text()
    assert '"keep"' not in text and '"digests"' not in text
    assert store.read_manifest(home(place)).scenarios["tree"].keep == Keep.ALL


@pytest.mark.parametrize("change", [
    lambda entry: replace(entry, keep="all"),
    lambda entry: replace(entry, keep="digest"),
    lambda entry: replace(entry, digests={}),
    lambda entry: replace(entry, digests={**entry.digests, "y": Digested("torch.float32", (2,), "a" * 64, 1)}),
    lambda entry: replace(entry, digests={"x": replace(entry.digests["x"], stride=1)}),
    lambda entry: replace(entry, digests={"x": replace(entry.digests["x"], stride=0)}),
    lambda entry: replace(entry, digests={"x": replace(entry.digests["x"], dtype="torch.int32")}),
    lambda entry: replace(entry, digests={"x": replace(entry.digests["x"], shape=(2**40, 2**40))}),
    lambda entry: replace(entry, digests={"n as int": entry.digests["x"]}),
])  # fmt: skip
def test_a_manifest_whose_digests_contradict_its_file_is_refused(
    change: Callable[[store.Entry], store.Entry], place: Place
) -> None:
    bless(place, {"x": latent(), "n": 1}, "sample")
    manifest = store.read_manifest(home(place))
    store.write_manifest(home(place), replace(manifest, scenarios={"tree": change(manifest.scenarios["tree"])}))
    with pytest.raises(store.ManifestAltered, match="manifest.json: altered, "):
        check(place, {"x": latent(), "n": 1}, "sample")
    assert bless(place, {"x": latent(), "n": 1}, "sample") is not None
    assert check(place, {"x": latent(), "n": 1}, "sample").verdict is Verdict.EXACT


def test_the_digest_is_that_of_dtype_shape_and_bytes(place: Place) -> None:
    bless(place, {"x": latent(), "y": [np.ones((2, 3), np.uint16)]}, "digest")
    assert store.read_manifest(home(place)).scenarios["tree"].digests == {
        "x": Digested("torch.float32", SHAPE, digest(latent())),
        "y[0] as array": Digested("torch.uint16", (2, 3), digest(torch.ones(2, 3).to(torch.uint16))),
    }
    assert store.read_capture(home(place), store.read_manifest(home(place)).scenarios["tree"]) == {}
    assert list(named({"x": latent()})) == ["x"]
