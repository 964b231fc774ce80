"""Traces that were blessed: a moment of production as a capture, from the beginning of its ring up to a tick.

captures/<platform>/traces/<name>.trace     the events until then, with their digests
captures/<platform>/traces/manifest.json    size, hash, ticks and reason of each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from harness.engine import atomic
from harness.engine.errors import InvalidInput
from harness.files import FileRefused, documents, frames, reading
from harness.files.refused import FileMissing
from harness.files.schema import Name, Natural, Sha256, Within
from harness.parity.baselines import platform, store
from harness.parity.baselines.refusals import BlessRefused, alone, refuse_unless_explicit
from harness.parity.traces.reading import opened
from harness.parity.traces.replay import Replayed
from harness.parity.traces.writer import END, EVENT

FOLDER, SUFFIX = "traces", ".trace"
LARGEST = 16 * 2**20
"""The most bytes of a blessed trace, which is committed with the captures."""


@dataclass(frozen=True)
class Kept:
    """The entry of one blessed trace in the manifest.

    Attributes:
        size: length of its file in bytes.
        sha256: digest of its bytes.
        ticks: number of ticks until its end.
        reason: reason for which it was blessed.
    """

    size: Annotated[int, Within(0, LARGEST)]
    sha256: Sha256
    ticks: Natural
    reason: Name


@dataclass(frozen=True)
class _Manifest:
    traces: Mapping[str, Kept] = field(default_factory=dict)


Play = Callable[[Path], Replayed]
"""Function that plays a trace."""


@alone
def keep(source: Path, name: str, reason: str, captures: Path, until: int, play: Play) -> Path:
    """Bless a trace up to a tick: play it, and make it a capture of this platform.

    Args:
        source: the trace.
        name: letters, digits, `_`, `-` and `.`.
        reason: reason, kept beside it.
        captures: folder of captures.
        until: number of ticks of which all events are kept.
        play: plays a trace, and raises where it differs.

    Returns:
        The file.

    Raises:
        BlessRefused: blessing is not explicit here, or the trace ends before that tick or is too large until then.
        InvalidInput: a name with other characters.
        TraceParted, OtherPlatform, FileRefused: the trace is not what is made here; see `replay.replayed`.
    """
    file = _file_name(name)
    refuse_unless_explicit(reason, captures)
    play(source)
    data = _cut(source, until)
    with opened(source) as trace:
        device = "cuda" if trace.header.platform.startswith("cuda") else "cpu"
    folder = captures / platform.name(device) / FOLDER
    known = _read(folder) if (folder / store.MANIFEST).exists() else _Manifest()
    entry = Kept(len(data), hashlib.sha256(data).hexdigest(), until, reason)
    atomic.write(folder / file, data)
    made = _Manifest({**known.traces, name: entry})
    store.write_document(folder / store.MANIFEST, asdict(made))
    return folder / file


@dataclass(frozen=True)
class Found:
    """A blessed trace, or a file beside blessed traces.

    Attributes:
        name: name of the trace, or of the file where it is none.
        path: the file.
        error: reason for which it is not what was blessed; None where its bytes are.
    """

    name: str
    path: Path
    error: store.CapturesError | None = None


def kept(captures: Path, device: str = "cpu") -> Iterator[tuple[str, Path]]:
    """Yield name and file of each blessed trace of this platform, after its bytes were checked.

    Raises:
        NoCaptures: this platform has none.
        CaptureMissing, CaptureCorrupt: a file is missing or was altered.
        CaptureUnknown: a file that the manifest does not name.
    """
    folder = captures / platform.name(device) / FOLDER
    if not folder.is_dir():
        raise store.NoCaptures(f"{folder}: no trace was blessed on this platform")
    for each in listed(folder):
        if each.error is not None:
            raise each.error
        yield each.name, each.path


def listed(folder: Path) -> Iterator[Found]:
    """List the files of a folder that its manifest does not name, then each blessed trace; every byte is checked.

    Where the manifest cannot be used, it is the one file that is listed: there is no telling what was blessed.
    """
    try:
        manifest = _read(folder)
    except store.CapturesError as error:
        yield Found(store.MANIFEST, folder / store.MANIFEST, error)
        return
    for name in sorted({each.name for each in folder.iterdir()} - {store.MANIFEST, *map(_file_name, manifest.traces)}):
        path = folder / name
        yield Found(name, path, store.CaptureUnknown(f"{path}: no blessed trace, the manifest does not name it"))
    for name, entry in sorted(manifest.traces.items()):
        path = folder / _file_name(name)
        yield Found(name, path, _altered(path, entry))


def _altered(path: Path, entry: Kept) -> store.CapturesError | None:
    """The reason for which the bytes of a file are not those of its entry, or None."""
    try:
        data = reading.whole(path, entry.size)
    except FileMissing:
        return store.CaptureMissing(f"{path}: missing")
    except FileRefused as error:
        return store.CaptureCorrupt(f"{path}: altered, {error.why}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return store.CaptureCorrupt(f"{path}: altered, its SHA-256 is not the manifest's")
    return None


def _cut(source: Path, until: int) -> bytes:
    """The bytes of a whole trace that ends behind a tick."""
    parts, chain, size, events = [frames.MAGIC], frames.Chain(), 0, 0
    with frames.opened(source) as found:
        for frame in found:
            if frame.kind == END:
                break
            parts += chain.framed(frame.kind, frame.payload)
            size += sum(map(len, parts[-3:]))
            if size > LARGEST - 2**16:
                raise BlessRefused(f"{source}: takes more than {LARGEST} bytes until tick {until}, bless fewer")
            if frame.kind == EVENT:
                events += 1
                if (documents.parse(frame.payload, source)["ticks"] or 0) >= until:
                    end = json.dumps({"events": events, "stopped": f"blessed up to tick {until}"})
                    return b"".join([*parts, *chain.framed(END, end.encode())])
    raise BlessRefused(f"{source}: ends before tick {until}")


def _read(folder: Path) -> _Manifest:
    path = folder / store.MANIFEST
    found: _Manifest = store.fitted(_Manifest, store.read_document(path), path, "one of traces")
    for name in found.traces:
        try:
            _file_name(name)
        except InvalidInput as error:
            raise store.ManifestAltered(f"{path}: altered, not one of traces ({error})") from error
    return found


def _file_name(name: str) -> str:
    return store.file_name(name).removesuffix(store.SUFFIX) + SUFFIX
