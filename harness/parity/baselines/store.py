"""Captures on disk: one safetensors file a scenario, and a manifest that says what each must hold.

    captures/<platform>/scenarios/<name>.safetensors    the finished tensors by request id, no metadata
    captures/<platform>/scenarios/manifest.json         provenance, sizes, hashes, tick digests, tolerances

Metadata inside a safetensors file changes its hash from save to save, which is why provenance stands beside the files.
The manifest holds a digest of itself, so that an edit by hand is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from safetensors import torch as safetensors
from torch import Tensor

from harness.engine import atomic
from harness.engine.errors import InvalidInput
from harness.files import FileRefused, documents, reading, tensors
from harness.files.refused import FileMissing, described
from harness.files.schema import Name, Sha256, Within, fit
from harness.parity.baselines.kept import Digested, Keep, KeepName
from harness.parity.compare import digest_tree

FORMAT = 1
"""The manifest's format version; another one is refused, never guessed at."""

MANIFEST = "manifest.json"
SUFFIX = ".safetensors"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SELF = "digest"

T = TypeVar("T")


class CapturesError(RuntimeError):
    """Captures that cannot be used; the message names the file."""


class NoCaptures(CapturesError):
    """There is no folder of captures to compare with, neither this platform's nor the reference platform's."""


class CaptureMissing(CapturesError):
    """A file that should be there is not."""


class CaptureCorrupt(CapturesError):
    """A file is not what was blessed: truncated, altered, or a manifest of another format."""


class CaptureUnknown(CapturesError):
    """A file of a scenario that the manifest does not know."""


class ManifestMissing(CaptureMissing):
    """A folder of captures has no manifest."""


class ManifestFormat(CaptureCorrupt):
    """The manifest's format version is not `FORMAT`."""


class ManifestAltered(CaptureCorrupt):
    """The manifest is not JSON of the right form, or does not match its own digest."""


@dataclass(frozen=True)
class Entry:
    """The entry of one scenario in a manifest.

    Attributes:
        file: the file's name in the folder.
        size: its length in bytes.
        sha256: of its bytes.
        content: `digest_tree` of the tensors in it.
        ticks: a digest of every slot's state after each tick.
        k: tolerance on other platforms: max |Δ| at most `k` * eps * rms(capture), a tensor at a time; 0 and above.
        reason: why it was blessed.
        keep: the part of the tree that the file holds, see `kept.Keep`; of a scenario always all.
        digests: the digests of the tensors whose bytes are not all in the file, by name.
    """

    file: Name
    size: Annotated[int, Within(0, reading.LARGE)]
    sha256: Sha256
    content: Sha256
    ticks: tuple[Name, ...]
    k: Annotated[float, Within(0, sys.float_info.max)]
    reason: str
    keep: KeepName = Keep.ALL.value
    digests: Mapping[str, Digested] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Where a folder of captures comes from, and an `Entry` for each scenario by name."""

    fingerprint: Mapping[str, str]
    engine: Name
    torch: Name
    scenarios: Mapping[str, Entry] = field(default_factory=dict)


def file_name(scenario: str) -> str:
    """The capture's file name.

    Raises:
        InvalidInput: the name cannot be a file's in every checkout.
    """
    if not _NAME.fullmatch(scenario):
        allowed = "letters, digits, '_', '-' and '.', the first a letter or a digit"
        near = re.sub(r"[^A-Za-z0-9_.-]+", "-", scenario).lstrip("_.-")
        raise InvalidInput("name", repr(scenario), f"{allowed}, such as {near!r}" if near else allowed)
    return scenario + SUFFIX


def serialize(named: Mapping[str, Tensor]) -> bytes:
    """The tensors as the bytes of a safetensors file without metadata; equal tensors give equal bytes."""
    return safetensors.save({name: named[name].detach().cpu().contiguous().clone() for name in sorted(named)})


def deserialize(data: bytes, path: Path | str = "a capture") -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file, sorted by name: the library's order changes from call to call.

    Args:
        data: the bytes.
        path: where they are from, for messages.

    Raises:
        FileRefused: they are none.
    """
    return tensors.load(data, path)


def entry(scenario: str, named: Mapping[str, Tensor], ticks: tuple[str, ...], k: float, reason: str) -> Entry:
    """The entry that describes a capture of all bytes of the tensors in `named`."""
    data = serialize(named)
    return Entry(file_name(scenario), len(data), _sha256(data), digest_tree(named), ticks, k, reason)


def read_capture(folder: Path, expected: Entry) -> dict[str, Tensor]:
    """The tensors of one capture, after its size, its hash and the digest of its contents were checked.

    Raises:
        CaptureMissing: the file is not there.
        CaptureCorrupt: it is truncated or altered, or no regular file.
    """
    path = folder / expected.file
    try:
        data = reading.whole(path, expected.size)
    except FileMissing as error:
        raise CaptureMissing(f"{path}: missing") from error
    except FileRefused as error:
        raise CaptureCorrupt(f"{path}: altered, {error.why}") from error
    if len(data) < expected.size:
        raise CaptureCorrupt(f"{path}: truncated, {len(data)} of {expected.size} bytes")
    if _sha256(data) != expected.sha256:
        raise CaptureCorrupt(f"{path}: altered, its SHA-256 is not the manifest's")
    return _tensors(path, data, expected)


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest.

    Raises:
        ManifestMissing: there is none.
        ManifestFormat: it has another format version.
        ManifestAltered: it cannot be read, or was edited since it was written.
    """
    path = folder / MANIFEST
    return _parsed(path, read_document(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest."""
    write_document(folder / MANIFEST, as_document(manifest))


def as_document(manifest: Manifest) -> dict[str, Any]:
    """The manifest as it is written: an entry whose file holds every byte says nothing of digests."""
    document = asdict(manifest)
    for each in document["scenarios"].values():
        if each["keep"] == Keep.ALL and not each["digests"]:
            del each["keep"], each["digests"]
    return document


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object that `write_document` wrote, without its format version and digest.

    Raises:
        ManifestMissing: it is not there.
        ManifestFormat: it has another format version.
        ManifestAltered: it cannot be read, or was edited since it was written.
    """
    try:
        document = documents.load(path)
    except FileMissing as error:
        raise ManifestMissing(f"{path}: missing") from error
    except FileRefused as error:
        raise ManifestAltered(f"{path}: altered or truncated, not JSON ({error.why})") from error
    if not isinstance(document, dict):
        raise ManifestAltered(f"{path}: altered, not a JSON object")
    if type(document.get("format")) is not int or document["format"] != FORMAT:
        version = described(document.get("format"))
        raise ManifestFormat(f"{path}: format version {version}, this harness reads {FORMAT}")
    if document.pop(_SELF, None) != _digest(document):
        raise ManifestAltered(f"{path}: altered, it does not match its own digest")
    document.pop("format")
    return document


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a JSON object at once, so that no reader ever sees half of it, with a digest of what it says."""
    # Read back, because a tuple becomes a list in JSON and the digest is of what a reader will see.
    sealed = documents.parse(_canonical({"format": FORMAT, **document}), path)
    sealed[_SELF] = _digest(sealed)
    text = json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.write(path, text.encode())


def engine_digest(package: Path) -> str:
    """SHA-256 over the engine's sources: path and contents of every `*.py` under `package`, sorted by path."""
    hasher = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        for part in (path.relative_to(package).as_posix().encode(), reading.whole(path)):
            hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()


def _tensors(path: Path, data: bytes, expected: Entry) -> dict[str, Tensor]:
    try:
        found = deserialize(data, path)
    except FileRefused as error:
        raise CaptureCorrupt(f"{path}: altered, not a safetensors file ({error.why})") from error
    if digest_tree(found) != expected.content:
        raise CaptureCorrupt(f"{path}: altered, its contents do not have the manifest's digest")
    return found


def fitted(kind: Callable[..., T], document: Any, path: Path, what: str = f"of format {FORMAT}") -> T:
    """A document that `read_document` returned as a record; see `schema.fit`.

    Args:
        kind: the schema.
        document: the document.
        path: its file.
        what: what it is not where it does not fit, such as `a contract`.

    Raises:
        ManifestAltered: it does not fit.
    """
    try:
        made: T = fit(kind, document, path)
    except FileRefused as error:
        raise ManifestAltered(f"{path}: altered, not {what} ({error.why})") from error
    return made


def _parsed(path: Path, document: Mapping[str, Any]) -> Manifest:
    found = fitted(Manifest, document, path)
    if "scenarios" not in document:
        raise ManifestAltered(f"{path}: altered, not of format {FORMAT} (scenarios: missing)")
    for name, each in found.scenarios.items():
        try:
            expected = file_name(name)
        except InvalidInput as error:
            raise ManifestAltered(f"{path}: altered, not of format {FORMAT} ({error})") from error
        if each.file != expected:
            got = f"scenarios.{name}.file: got {described(each.file)}, expected {expected!r}"
            raise ManifestAltered(f"{path}: altered, not of format {FORMAT} ({got})")
    return found


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict
    ).encode()


def _digest(document: Mapping[str, Any]) -> str:
    return _sha256(_canonical(document))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
