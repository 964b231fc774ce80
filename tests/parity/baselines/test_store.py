"""Captures on disk: every byte that is written, and every edit that is noticed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from harness.engine.errors import InvalidInput
from harness.parity.baselines import store
from harness.parity.baselines.kept import Digested
from harness.parity.compare import compare_named, digest_tree

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([-0.0, math.nan])}
ENTRY = store.entry("s.1", TENSORS, ("aa", "bb"), 2.5, "why, é")
SAMPLED = replace(
    ENTRY, file="k.safetensors", keep="sample", digests={"x": Digested("torch.float32", (2, 3), "a" * 64, 1)}
)
MANIFEST = store.Manifest(
    {"cpu": "one", "threads": "1"},
    "ee",
    "2.0",
    {"s.1": ENTRY, "r": replace(ENTRY, file="r.safetensors"), "k": SAMPLED},
)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A folder whose name has a space."""
    folder = tmp_path / "my captures"
    store.write_manifest(folder, MANIFEST)
    (folder / "s.1.safetensors").write_bytes(store.serialize(TENSORS))
    return folder


# Documents.


def test_a_document_is_written_to_the_last_byte_and_read_as_it_was(tmp_path: Path) -> None:
    document = {"z": [1, 2.5, None, True], "a": {"é": ("x", "y")}}
    store.write_document(tmp_path / "d.json", document)
    canonical = '{"a":{"é":["x","y"]},"format":1,"z":[1,2.5,null,true]}'.encode()
    digest = hashlib.sha256(canonical).hexdigest()
    assert (tmp_path / "d.json").read_bytes() == (
        '{\n "a": {\n  "é": [\n   "x",\n   "y"\n  ]\n },\n'
        f' "digest": "{digest}",\n "format": 1,\n "z": [\n  1,\n  2.5,\n  null,\n  true\n ]\n}}\n'
    ).encode()  # fmt: skip
    assert store.read_document(tmp_path / "d.json") == {"z": [1, 2.5, None, True], "a": {"é": ["x", "y"]}}
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_does_not_have_is_never_written(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_document(tmp_path / "d.json", {"k": value})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    found = store.read_manifest(folder)
    assert found == MANIFEST
    assert list(found.scenarios) == ["k", "r", "s.1"]
    assert isinstance(found.scenarios["r"].ticks, tuple)
    before = (folder / store.MANIFEST).read_bytes()
    store.write_manifest(folder, found)
    assert (folder / store.MANIFEST).read_bytes() == before


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document is, itself and its parts."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield at
    for key, child in below:
        yield from paths(child, (*at, key))


SEALED = [at for at in paths(json.loads(json.dumps({"format": 1, **store.as_document(MANIFEST)}))) if at]


def other(value: Any) -> Any:
    """Another value of the same type, as near as can be."""
    if isinstance(value, dict):
        return {**value, "more": ""}
    if isinstance(value, list):
        return value[:-1]
    return value + ("0" if isinstance(value, str) else 1)


@pytest.mark.parametrize("change", ["another", "gone"])
@pytest.mark.parametrize("at", SEALED, ids=lambda at: "/".join(map(str, at)))
def test_no_value_of_a_manifest_can_be_edited(at: tuple[Any, ...], change: str, folder: Path) -> None:
    document = json.loads((folder / store.MANIFEST).read_text())
    edited = copy.deepcopy(document)
    parent = edited
    for key in at[:-1]:
        parent = parent[key]
    if change == "gone":
        del parent[at[-1]]
    else:
        parent[at[-1]] = other(parent[at[-1]])
    (folder / store.MANIFEST).write_text(json.dumps(edited))
    error = store.ManifestFormat if at == ("format",) else store.ManifestAltered
    with pytest.raises(error, match="my captures/manifest.json: "):
        store.read_manifest(folder)


@pytest.mark.parametrize(("text", "error", "said"), [
    ("{", store.ManifestAltered, "altered or truncated, not JSON ("),
    ("", store.ManifestAltered, "altered or truncated, not JSON ("),
    ("\udc80", store.ManifestAltered, "altered or truncated, not JSON ("),
    ("[]", store.ManifestAltered, "altered, not a JSON object"),
    ("{}", store.ManifestFormat, "format version None, this harness reads 1"),
    ('{"format": 2}', store.ManifestFormat, "format version 2, this harness reads 1"),
    ('{"format": 1}', store.ManifestAltered, "altered, it does not match its own digest"),
    (None, store.ManifestMissing, "missing"),
])  # fmt: skip
def test_a_document_that_cannot_be_used_says_the_file_and_why(
    text: str | None, error: type[Exception], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(store.CapturesError) as found:
        store.read_document(path)
    assert type(found.value) is error
    assert str(found.value).startswith(f"{path}: {said}")


def sealed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write a manifest that matches its own digest and is another one."""
    document = store.read_document(folder / store.MANIFEST)
    change(document)
    store.write_document(folder / store.MANIFEST, document)


@pytest.mark.parametrize("change", [
    lambda d: d["scenarios"]["r"].update(file="other.safetensors"),
    lambda d: d["scenarios"]["r"].update(file="../r.safetensors"),
    lambda d: d["scenarios"].update({"a/b": d["scenarios"]["r"]}),
    lambda d: d["scenarios"]["r"].update(more=1),
    lambda d: d["scenarios"]["r"].update(ticks=None),
    lambda d: d["scenarios"].update(r=None),
    lambda d: d.update(fingerprint=["cpu"]),
    lambda d: d.update(scenarios=None),
    *[lambda d, name=name: d["scenarios"]["r"].pop(name) for name in asdict(ENTRY) if name not in ("keep", "digests")],
    *[lambda d, name=name: d["scenarios"]["k"]["digests"]["x"].pop(name) for name in ("dtype", "shape", "sha256")],
    lambda d: d["scenarios"]["k"].update(keep="some"),
    lambda d: d["scenarios"]["k"]["digests"]["x"].update(dtype="torch.Tensor"),
    lambda d: d["scenarios"]["k"]["digests"]["x"].update(shape=[-1]),
    lambda d: d["scenarios"]["k"]["digests"]["x"].update(stride=-1),
    lambda d: d["scenarios"]["k"]["digests"]["x"].update(sha256="a"),
    *[lambda d, name=name: d.pop(name) for name in ("fingerprint", "engine", "torch", "scenarios")],
])  # fmt: skip
def test_a_manifest_of_another_form_is_altered_although_its_digest_is_right(
    change: Callable[[dict[str, Any]], Any], folder: Path
) -> None:
    sealed(folder, change)
    with pytest.raises(store.ManifestAltered, match="manifest.json: altered, not of format 1 "):
        store.read_manifest(folder)


# Captures.


def test_an_entry_describes_the_file_and_the_tensors_in_it() -> None:
    data = store.serialize(TENSORS)
    sha = hashlib.sha256(data).hexdigest()
    content = digest_tree(TENSORS)
    assert asdict(ENTRY) == {
        "file": "s.1.safetensors", "size": len(data), "sha256": sha, "content": content, "ticks": ("aa", "bb"),
        "k": 2.5, "reason": "why, é", "keep": "all", "digests": {},
    }  # fmt: skip


def test_a_capture_is_read_as_it_was_in_one_order(folder: Path) -> None:
    found = store.read_capture(folder, ENTRY)
    assert compare_named(found, TENSORS) == []
    many = {f"r{number}": torch.ones(1) for number in range(30)}
    orders = {tuple(store.deserialize(store.serialize(many))) for _ in range(5)}
    assert orders == {tuple(sorted(many))}


SHA = "altered, its SHA-256 is not the manifest's"


@pytest.mark.parametrize(("change", "error", "said"), [
    (lambda data: data[:-1], store.CaptureCorrupt, "truncated, {less} of {size} bytes"),
    (lambda _: b"", store.CaptureCorrupt, "truncated, 0 of {size} bytes"),
    (lambda data: data + b"\0", store.CaptureCorrupt, "altered, got {more} bytes, expected at most {size} bytes"),
    (lambda data: bytes([data[0] ^ 1]) + data[1:], store.CaptureCorrupt, SHA),
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), store.CaptureCorrupt, SHA),
    (None, store.CaptureMissing, "missing"),
])  # fmt: skip
def test_a_capture_that_is_not_what_was_blessed_says_the_file_and_why(
    change: Callable[[bytes], bytes] | None, error: type[Exception], said: str, folder: Path
) -> None:
    path = folder / "s.1.safetensors"
    data = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(data))
    with pytest.raises(store.CapturesError) as found:
        store.read_capture(folder, ENTRY)
    assert type(found.value) is error
    assert str(found.value) == f"{path}: {said.format(less=len(data) - 1, more=len(data) + 1, size=len(data))}"


@pytest.mark.parametrize(("data", "said"), [
    (store.serialize({**TENSORS, "a": torch.zeros(2)}), "altered, its contents do not have the manifest's digest"),
    (store.serialize({"a": TENSORS["a"]}), "altered, its contents do not have the manifest's digest"),
    (b"x" * 400, "altered, not a safetensors file ("),
])  # fmt: skip
def test_a_file_of_the_right_hash_and_another_content_is_corrupt(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / ENTRY.file).write_bytes(data)
    entry = replace(ENTRY, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(store.CaptureCorrupt) as found:
        store.read_capture(tmp_path, entry)
    assert str(found.value).startswith(f"{tmp_path / ENTRY.file}: {said}")


def test_tensors_that_are_views_of_each_other_have_gradients_or_are_conjugates_are_kept_as_they_are() -> None:
    x, c = torch.arange(6.0), torch.tensor([1 + 2j, 3 - 4j])
    tensors = {"all": x, "part": x[1:4], "turned": x.reshape(2, 3).T, "again": x, "step": x[::2],
               "conjugate": c.conj(), "negative": c.conj().imag,
               "learned": torch.ones(2, requires_grad=True)}  # fmt: skip
    found = store.deserialize(store.serialize(tensors))
    assert compare_named(found, {name: tensor.detach() for name, tensor in tensors.items()}) == []
    plain = {name: torch.tensor(tensor.detach().tolist()) for name, tensor in tensors.items()}
    assert store.serialize(plain) == store.serialize(tensors)
    assert store.serialize({"x": torch.ones(1)}) == save({"x": torch.ones(1)})


NAMES = ["a", "A", "7", "a.b", "a-b_c", "x" * 80, "ode_plain"]
NO_NAMES = ["", ".a", "-a", "_a", "a/b", "../a", "a b", "a\n", "\na", "é", "aé", "a*", "a\\b", "a:b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_scenario_is_that_of_its_file(name: str) -> None:
    assert store.file_name(name) == f"{name}.safetensors"


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_cannot_be_a_file_s_in_every_checkout_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as found:
        store.file_name(name)
    allowed = "letters, digits, '_', '-' and '.', the first a letter or a digit"
    assert str(found.value).startswith(f"name: got {name!r}, expected {allowed}")
    _, _, near = str(found.value).partition(", such as ")
    assert not near or store.file_name(near.strip("'")) == f"{near.strip(chr(39))}.safetensors"


@pytest.mark.parametrize(("name", "near"), [("demon/plain", "demon-plain"), ("../x y", "x-y"), ("/", ""), ("é", "")])
def test_the_refusal_of_a_name_shows_one_like_it_that_is_taken(name: str, near: str) -> None:
    with pytest.raises(InvalidInput) as found:
        store.file_name(name)
    assert str(found.value).endswith(f", such as {near!r}" if near else "the first a letter or a digit")


# The engine's digest.


def test_the_engine_s_digest_is_of_every_source_below_it_by_its_path_and_of_nothing_else(tmp_path: Path) -> None:
    sources = {"a-b.py": b"1", "a/b.py": b"", "a/c/d.py": b"22", "a.py": b"3", "é.py": b"\xff"}
    for name, data in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in ("a.pyc", "a.txt", "a/py", "b.pyi"):
        (tmp_path / name).write_bytes(b"x")
    hasher = hashlib.sha256()
    for name in sorted(sources):
        for part in (name.encode(), sources[name]):
            hasher.update(len(part).to_bytes(8, "little") + part)
    assert store.engine_digest(tmp_path) == hasher.hexdigest()
    (tmp_path / "a/c/d.py").write_bytes(b"23")
    assert store.engine_digest(tmp_path) != hasher.hexdigest()


def test_each_error_is_of_the_kind_that_its_verdict_goes_by() -> None:
    kinds = {error: error.__mro__[1] for error in store.CapturesError.__subclasses__()}
    assert set(kinds) == {store.NoCaptures, store.CaptureMissing, store.CaptureCorrupt, store.CaptureUnknown}
    assert store.CaptureMissing.__subclasses__() == [store.ManifestMissing]
    assert store.CaptureCorrupt.__subclasses__() == [store.ManifestFormat, store.ManifestAltered]
