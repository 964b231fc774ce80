"""Folders that a scenario's capture may come from: this platform's own, and the reference platform's for the rest.

What a platform blessed itself is never passed over. Where its own capture is damaged, or its own manifest cannot say
which captures there were, nothing of the reference platform stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from harness.parity.baselines import platform, store


@dataclass(frozen=True)
class Source:
    """One platform's folder of captures.

    Attributes:
        folder: `captures/<platform>/scenarios`.
        manifest: the folder's; the error where it cannot be used.
        differs: fields in which this machine differs from the one that blessed them.
    """

    folder: Path
    manifest: store.Manifest | store.CapturesError
    differs: tuple[str, ...] = ()

    @property
    def platform(self) -> str:
        """Name of the platform whose captures these are."""
        return self.folder.parent.name

    @property
    def entries(self) -> Mapping[str, store.Entry]:
        """Entries of the manifest by scenario; none where it cannot be used."""
        return {} if isinstance(self.manifest, store.CapturesError) else self.manifest.scenarios

    def claims(self, name: str) -> bool:
        """True where this folder has a capture of the scenario, or may have had one: no other folder stands in then."""
        damaged = isinstance(self.manifest, store.CapturesError)
        return damaged or name in self.entries or (self.folder / store.file_name(name)).exists()

    def read(self, name: str) -> tuple[store.Entry, dict[str, Tensor]]:
        """The entry and the tensors of a scenario that this folder claims.

        Raises:
            CaptureMissing: its file, or the manifest, is not there.
            CaptureCorrupt: either is truncated or altered.
            CaptureUnknown: the manifest does not know its file.
        """
        if isinstance(self.manifest, store.CapturesError):
            raise self.manifest
        if name not in self.entries:
            raise store.CaptureUnknown(f"{self.folder / store.file_name(name)}: not in the manifest")
        return self.entries[name], store.read_capture(self.folder, self.entries[name])


def sources(captures: Path, here: Mapping[str, str], device: str = "cpu") -> tuple[Source, ...]:
    """This platform's folder where it has captures, then the reference platform's where that is another one.

    A GPU has no reference platform: no bound was measured that the captures of another one are within.

    Args:
        captures: the folder that holds one folder a platform.
        here: this machine's fingerprint of captures on `device`.
        device: the device whose captures are asked for, the CPU or a CUDA device.

    Raises:
        NoCaptures: there is neither.
        NoReferencePlatform: this platform has no captures, and no reference platform is named.
    """
    if not captures.is_dir():
        raise store.NoCaptures(f"{captures}: no such folder of captures")
    own = captures / platform.name(device) / "scenarios"
    if platform.on_gpu(device):
        if not _filled(own):
            raise store.NoCaptures(f"{own}: no captures")
        return (_source(own, here),)
    try:
        reference = captures / platform.reference_platform() / "scenarios"
    except platform.NoReferencePlatform:
        if not _filled(own):
            raise
        reference = own
    found = [folder for folder in dict.fromkeys((own, reference)) if _filled(folder)]
    if not found:
        raise store.NoCaptures(f"{own}: no captures, nor in {reference}")
    return tuple(_source(folder, here) for folder in found)


def source_of(name: str, known: Sequence[Source]) -> Source:
    """The first folder that claims a scenario.

    Raises:
        CaptureMissing: none does.
    """
    for source in known:
        if source.claims(name):
            return source
    places = ", nor ".join(str(source.folder / store.file_name(name)) for source in known)
    raise store.CaptureMissing(f"{places}: never blessed")


def used(names: Sequence[str], known: Sequence[Source]) -> list[Source]:
    """The first folder, and each other one that claims any of these scenarios before the others do."""
    firsts = [next((source for source in known if source.claims(name)), None) for name in names]
    return [source for source in known if source is known[0] or source in firsts]


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _source(folder: Path, here: Mapping[str, str]) -> Source:
    try:
        manifest = store.read_manifest(folder)
    except store.CapturesError as error:
        return Source(folder, error)
    return Source(folder, manifest, platform.differing(here, manifest.fingerprint))
