"""Manifests, contracts and costs that nobody vouches for: sealed anew, they are refused by file and field."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from harness.parity.baselines import contract, platform, store
from harness.parity.baselines.captures import CAPTURES
from harness.rails.costs import rails
from tests.files.hostile import sealed

MANIFEST = json.loads((CAPTURES / "cpu-x86_64-avx2/scenarios/manifest.json").read_bytes())
CONTRACT = json.loads((CAPTURES / "cpu-x86_64-avx512/contract.json").read_bytes())
COSTS = json.loads((CAPTURES / "cpu-x86_64-avx512/costs.json").read_bytes())
SUBJECT = "affine/eager/float32/T16/max8"
RAIL = "plain/1"


def changed(document: Any, place: tuple[str | int, ...], value: Any) -> Any:
    made = copy.deepcopy(document)
    inside = made
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    return made


@pytest.fixture
def captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of captures whose platform is this machine's, whatever machine this is."""
    monkeypatch.setattr(platform, "name", lambda device="cpu": "here")
    (tmp_path / "here").mkdir()
    return tmp_path


CONTRACTS: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "a list where a mapping is due": (("subjects",), [], "subjects: got a list of 0, expected a mapping"),
    "a list of rows": (("subjects", SUBJECT, "holds", "fused"), [1, 2], "holds.fused: got a list of 2"),
    "rows without end": (("subjects", SUBJECT, "holds", "fused"), "1-200000000", "holds.fused: got '1-200000000'"),
    "a row without end": (("subjects", SUBJECT, "fails", "fused"), "9" * 5000, "fails.fused: got '9999"),
    "no row": (("subjects", SUBJECT, "fails", "fused"), "0-3", "fails.fused: got '0-3'"),
    "many parts": (("subjects", SUBJECT, "holds", "fused"), "1-256, " * 50_000 + "1", "holds.fused: got '1-256, "),
    "rows in no order": (("subjects", SUBJECT, "holds", "fused"), "4-1", "holds.fused: got '4-1'"),
    "many rows": (
        ("subjects",),
        {str(n): {"holds": {"fused": "1-9999"}, "fails": {}, "reason": ""} for n in range(20_000)},
        "subjects.100.holds.fused: got more rows than that",
    ),
    "a fact that is no text": (("fingerprint", "threads"), 1, "fingerprint.threads: got 1, expected a text"),
    "no reason": (("subjects", SUBJECT, "reason"), None, "reason: got None, expected a text"),
    "another field": (("new",), 1, "new: got an unknown field"),
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_a_contract_that_was_sealed_anew_is_refused_by_field(case: str, captures: Path) -> None:
    place, value, message = CONTRACTS[case]
    (captures / "here" / "contract.json").write_bytes(sealed(changed(CONTRACT, place, value)))
    started = time.monotonic()
    with pytest.raises(store.ManifestAltered) as refused:
        contract.read(captures)
    assert str(captures / "here" / "contract.json") in str(refused.value)
    assert message in str(refused.value)
    assert time.monotonic() - started < 5


TEXTS = {
    "NaN": (b'{"format": 1, "digest": NaN}', "digest: got NaN"),
    "nesting": (b'{"format": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    "surrogate": (b'{"format": 1, "a": "\\ud800"}', "a: got a lone surrogate"),
    "list": (b"[]", "not a JSON object"),
    "format": (b'{"format": true}', "format version True"),
    "digits": (b'{"format": ' + b"1" * 10_000 + b"}", "format: got an integer of 10000 characters"),
    "no digest": (b'{"format": 1}', "does not match its own digest"),
    "bytes": (b"\xff", "UTF-8"),
    "nothing": (b"", "JSON"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("kind", ["contract", "costs", "manifest"])
def test_a_sealed_file_that_is_no_strict_json_is_refused(kind: str, case: str, captures: Path) -> None:
    data, message = TEXTS[case]
    path = captures / "here" / f"{kind}.json"
    path.write_bytes(data)
    with pytest.raises(store.CaptureCorrupt) as refused:
        read(kind, captures)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize("kind", ["contract", "costs", "manifest"])
def test_a_sealed_file_that_is_a_fifo_or_a_device_is_refused_at_once(kind: str, captures: Path) -> None:
    path = captures / "here" / f"{kind}.json"
    os.mkfifo(path)
    with pytest.raises(store.CapturesError, match="a FIFO, expected a regular file"):
        read(kind, captures)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(store.CapturesError, match="a character device, expected a regular file"):
        read(kind, captures)


COST = ("torch", "2.13.0", RAIL)
ALTERED: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "a text": ((*COST, "operators"), "many", "operators: got 'many', expected an integer"),
    "null": ((*COST, "operators"), None, "operators: got None, expected an integer"),
    "a fraction": ((*COST, "operators"), 1.5, "operators: got 1.5, expected an integer"),
    "true": ((*COST, "operators"), True, "operators: got True, expected an integer"),
    "below zero": ((*COST, "operators"), -1, "operators: got -1, expected an integer from 0"),
    "a list": (COST, [1], "got a list of 1, expected a mapping"),
    "a version": (("torch", "2.13.0"), "all", "got 'all', expected a mapping"),
    "all": (("torch",), None, "torch: got None, expected a mapping"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_costs_that_were_sealed_anew_are_refused_by_field(case: str, captures: Path) -> None:
    place, value, message = ALTERED[case]
    path = captures / "here" / "costs.json"
    path.write_bytes(sealed(changed(COSTS, place, value)))
    with pytest.raises(store.ManifestAltered) as refused:
        rails.read(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


ENTRY = ("scenarios", "cfg_full")
RESEALED: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "a text as size": ((*ENTRY, "size"), "1752", "scenarios.cfg_full.size: got '1752', expected an integer"),
    "a size below zero": ((*ENTRY, "size"), -1, "scenarios.cfg_full.size: got -1"),
    "a size beyond all memory": ((*ENTRY, "size"), 2**60, "scenarios.cfg_full.size: got"),
    "a text as ticks": ((*ENTRY, "ticks"), "abc", "scenarios.cfg_full.ticks: got 'abc', expected a list"),
    "a number as a tick": ((*ENTRY, "ticks", 0), 1, "scenarios.cfg_full.ticks[0]: got 1, expected a text"),
    "a tolerance below zero": ((*ENTRY, "k"), -1.0, "scenarios.cfg_full.k: got -1.0"),
    "a text as tolerance": ((*ENTRY, "k"), "1", "scenarios.cfg_full.k: got '1', expected a number"),
    "a digest of another kind": ((*ENTRY, "sha256"), "no digest", "scenarios.cfg_full.sha256: got 'no digest'"),
    "a path out of the folder": ((*ENTRY, "file"), "../../a.safetensors", "scenarios.cfg_full.file: got '../../a"),
    "a name that is no file's": (("scenarios", "../a"), MANIFEST["scenarios"]["cfg_full"], "name: got '../a'"),
    "another field": ((*ENTRY, "new"), 1, "scenarios.cfg_full.new: got an unknown field"),
    "a list of scenarios": (("scenarios",), [], "scenarios: got a list of 0, expected a mapping"),
    "a fact that is no text": (("fingerprint", "threads"), 1, "fingerprint.threads: got 1, expected a text"),
    "an engine that is no text": (("engine",), None, "engine: got None, expected a text"),
}


@pytest.mark.parametrize("case", RESEALED)
def test_a_manifest_that_was_sealed_anew_is_refused_by_field(case: str, tmp_path: Path) -> None:
    place, value, message = RESEALED[case]
    (tmp_path / "manifest.json").write_bytes(sealed(changed(MANIFEST, place, value)))
    with pytest.raises(store.ManifestAltered) as refused:
        store.read_manifest(tmp_path)
    assert str(tmp_path / "manifest.json") in str(refused.value)
    assert message in str(refused.value)


def test_a_capture_that_is_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    entry = store.read_manifest(CAPTURES / "cpu-x86_64-avx2/scenarios").scenarios["cfg_full"]
    os.mkfifo(tmp_path / entry.file)
    with pytest.raises(store.CaptureCorrupt, match="a FIFO, expected a regular file"):
        store.read_capture(tmp_path, entry)


def test_a_capture_that_is_longer_than_blessed_is_refused_by_its_size(tmp_path: Path) -> None:
    folder = CAPTURES / "cpu-x86_64-avx2/scenarios"
    entry = store.read_manifest(folder).scenarios["cfg_full"]
    shutil.copy(folder / entry.file, tmp_path)
    with (tmp_path / entry.file).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(store.CaptureCorrupt, match=rf"got {2**40} bytes, expected at most {entry.size} bytes"):
        store.read_capture(tmp_path, entry)


def read(kind: str, captures: Path) -> object:
    if kind == "contract":
        return contract.read(captures)
    return rails.read(captures / "here" / "costs.json") if kind == "costs" else store.read_manifest(captures / "here")
