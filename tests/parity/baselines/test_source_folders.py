"""Which folder a capture is read from, asked of the folders alone."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from harness.parity.baselines import platform, store
from harness.parity.baselines.sources import Source, source_of, sources, used
from harness.parity.compare import compare_named

HERE, FINGERPRINT = platform.name(), {"cpu": "one"}
TENSORS = {"r": torch.ones(2)}
ERROR = store.ManifestAltered("manifest.json: altered")


def folder(root: Path, name: str, *scenarios: str, cpu: str = "one") -> Path:
    found = root / name / "scenarios"
    entries = {each: store.entry(each, TENSORS, (), 0.0, "why") for each in scenarios}
    store.write_manifest(found, store.Manifest({"cpu": cpu}, "", "", entries))
    for entry in entries.values():
        (found / entry.file).write_bytes(store.serialize(TENSORS))
    return found


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "reference_platform", lambda: "board")


@pytest.mark.parametrize(("own", "board"), list(product([None, "one", "two"], repeat=2)))
def test_this_platform_s_folder_comes_first_then_the_reference_s_each_with_where_this_machine_differs(
    own: str | None, board: str | None, tmp_path: Path
) -> None:
    made = [folder(tmp_path, name, "a", cpu=cpu) for name, cpu in ((HERE, own), ("board", board)) if cpu]
    (tmp_path / "third" / "scenarios").mkdir(parents=True)
    if not made:
        with pytest.raises(store.NoCaptures) as error:
            sources(tmp_path, FINGERPRINT)
        missing = f"{tmp_path / HERE / 'scenarios'}: no captures, nor in {tmp_path / 'board' / 'scenarios'}"
        assert str(error.value) == missing
        return
    found = sources(tmp_path, FINGERPRINT)
    assert [source.folder for source in found] == made
    assert [source.platform for source in found] == [path.parent.name for path in made]
    assert [source.differs for source in found] == [("cpu",) if cpu == "two" else () for cpu in (own, board) if cpu]
    assert [source.manifest for source in found] == [store.read_manifest(path) for path in made]


def test_a_folder_that_is_the_reference_s_too_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "reference_platform", lambda: HERE)
    own = folder(tmp_path, HERE, "a")
    assert [source.folder for source in sources(tmp_path, FINGERPRINT)] == [own]


def test_without_a_reference_platform_this_machine_s_captures_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unnamed() -> str:
        raise platform.NoReferencePlatform("pyproject.toml: missing")

    monkeypatch.setattr(platform, "reference_platform", unnamed)
    with pytest.raises(store.NoCaptures, match=f"^{tmp_path / 'captures'}: no such folder of captures$"):
        sources(tmp_path / "captures", FINGERPRINT)
    (tmp_path / HERE / "scenarios").mkdir(parents=True)
    with pytest.raises(platform.NoReferencePlatform, match="^pyproject.toml: missing$"):
        sources(tmp_path, FINGERPRINT)
    own = folder(tmp_path, HERE, "a")
    assert [source.folder for source in sources(tmp_path, FINGERPRINT)] == [own]


def test_a_damaged_manifest_is_a_source_without_entries_that_claims_everything(tmp_path: Path) -> None:
    own = folder(tmp_path, HERE, "a")
    (own / store.MANIFEST).write_text("{")
    (source,) = sources(tmp_path, FINGERPRINT)
    assert isinstance(source.manifest, store.ManifestAltered)
    assert (dict(source.entries), source.differs) == ({}, ())
    assert source.claims("a") and source.claims("never")
    with pytest.raises(store.ManifestAltered) as error:
        source.read("a")
    assert error.value is source.manifest


def test_a_source_claims_what_its_manifest_or_its_folder_has_and_nothing_else(tmp_path: Path) -> None:
    own = folder(tmp_path, HERE, "a", "gone")
    (own / "gone.safetensors").unlink()
    (own / "stray.safetensors").touch()
    (own / "other").touch()
    (source,) = sources(tmp_path, FINGERPRINT)
    claims = {name: source.claims(name) for name in ("a", "gone", "stray", "other", "never")}
    assert claims == {"a": True, "gone": True, "stray": True, "other": False, "never": False}
    entry, tensors = source.read("a")
    assert entry == source.entries["a"] and compare_named(tensors, TENSORS) == []
    with pytest.raises(store.CaptureMissing, match=f"^{own / 'gone.safetensors'}: missing$"):
        source.read("gone")
    with pytest.raises(store.CaptureUnknown, match=f"^{own / 'stray.safetensors'}: not in the manifest$"):
        source.read("stray")


def test_the_first_that_claims_a_scenario_has_it_and_where_none_does_every_place_is_named(tmp_path: Path) -> None:
    first, second = folder(tmp_path, HERE, "a", "b"), folder(tmp_path, "board", "b", "c")
    known = sources(tmp_path, FINGERPRINT)
    assert {name: source_of(name, known).folder for name in "abc"} == {"a": first, "b": first, "c": second}
    with pytest.raises(store.CaptureMissing) as error:
        source_of("d", known)
    assert str(error.value) == f"{first / 'd.safetensors'}, nor {second / 'd.safetensors'}: never blessed"


def test_a_folder_is_used_where_it_is_the_first_or_a_scenario_is_read_from_it(tmp_path: Path) -> None:
    folder(tmp_path, HERE, "a")
    folder(tmp_path, "board", "a", "b")
    first, second = sources(tmp_path, FINGERPRINT)
    for names, found in ((["a"], [first]), (["a", "b"], [first, second]), (["b"], [first, second]), ([], [first]),
                         (["never"], [first])):  # fmt: skip
        assert used(names, [first, second]) == found
    damaged = Source(first.folder, ERROR)
    assert used(["b"], [damaged, second]) == [damaged]
