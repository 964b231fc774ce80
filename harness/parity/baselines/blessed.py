"""Captures of a project that has an engine of its own: trees of tensors, each with a manifest of its own.

    captures/<platform>/blessed/<name>/<name>.safetensors    the tensors by their paths
    captures/<platform>/blessed/<name>/manifest.json         where and why they were blessed, and content hashes

A capture of large tensors may keep digests and samples instead of their bytes, see `kept`. On the machine that blessed
a capture it must match byte for byte. Elsewhere it must too, unless it was blessed with a
tolerance `k`: then `max |Δ| <= k * eps * rms(capture)` is enough there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from harness.engine import atomic
from harness.engine.errors import InvalidInput
from harness.files import FileRefused
from harness.parity.baselines import platform, store
from harness.parity.baselines.changes import Change, drift
from harness.parity.baselines.kept import Keep, digests, fault, keep_of, stored
from harness.parity.baselines.kept import differences as from_capture
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.store import file_name
from harness.parity.baselines.verdicts import Result, Verdict, tolerance, within_bound
from harness.parity.compare import Difference, DifferenceKind, NothingCompared, ParityError, tree_differences
from harness.parity.differences import BLESSED as SIDES
from harness.parity.differences import listed
from harness.parity.proofs.generic import nans
from harness.parity.trees import devices, named
from harness.parity.values import parted

BLESSED = "blessed"
REPLAYS = 3
"""How often a tree is made before it is blessed."""


class OutOfBound(AssertionError):
    """A tree differs, on another machine than the one that blessed it, by more than its tolerance."""


@dataclass(frozen=True)
class Place:
    """Where a project keeps its captures.

    Attributes:
        captures: the folder that holds one folder a platform.
        project: the folder of its `pyproject.toml`, which may name a reference platform.
        platform: the platform whose captures are compared with; empty is this machine's, and the reference platform's
            for each name that this machine's has not.
    """

    captures: Path
    project: Path
    platform: str = ""

    def own(self, kind: str, device: torch.device | str = "cpu") -> Path:
        """The folder of this machine's captures of one kind."""
        return self.captures / platform.name(device) / kind

    def folders(self, kind: str, device: torch.device | str = "cpu") -> tuple[Path, ...]:
        """The folders to compare with that are there: this machine's, then the one that stands in for the rest."""
        names = [self.platform] if self.platform else [platform.name(device), self._reference()]
        folders = [self.captures / name / kind for name in dict.fromkeys(names) if name]
        return tuple(folder for folder in folders if folder.is_dir())

    def folder(self, kind: str, device: torch.device | str = "cpu", name: str = "") -> Path:
        """The folder to compare with; one that does not exist where there is none.

        What this machine blessed itself is never passed over, also where it is damaged.

        Args:
            kind: of the captures.
            device: where the tensors are.
            name: an entry of the folder, which the first folder that has it is taken for; empty takes the first folder.
        """
        found = self.folders(kind, device)
        with_it = [folder for folder in found if (folder / name).exists()]
        own = self.captures / self.platform / kind if self.platform else self.own(kind, device)
        return next(iter([*with_it, *found[:1]]), own)

    def to_bless(self, kind: str, device: torch.device | str = "cpu") -> Path:
        """The folder to write to.

        Raises:
            BlessRefused: another platform was asked for.
        """
        own = self.own(kind, device)
        if self.platform and self.platform != own.parent.name:
            raise BlessRefused(f"captures of {self.platform} cannot be blessed on {own.parent.name}")
        return own

    def _reference(self) -> str:
        try:
            return platform.reference_platform(self.project)
        except platform.NoReferencePlatform:
            return ""


@dataclass(frozen=True)
class Rewritten:
    """A change that blessing made: in words, and the differences of the new tree from the old one."""

    what: str
    differences: tuple[Difference, ...] = ()

    def lines(self) -> Iterator[str]:
        """The change, then the first differences and how many more there are."""
        yield self.what
        yield from (f"  {line}" for line in listed(self.differences, SIDES))


def check(name: str, tree: object, place: Place, k: float = 0.0, keep: str = Keep.ALL) -> Result:
    """Compare a tree with the capture of its name; what is returned is `exact` or `tolerance`.

    Args:
        name: the capture's.
        tree: nestings with tensors as leaves, see `trees.named`.
        place: where captures are.
        k: the tolerance on other machines than the one that blessed it, 0 and above; as it was blessed.
        keep: the part of the tree that the capture keeps, see `kept.Keep`; as it was blessed.

    Raises:
        ParityError: it differs on the machine that blessed it.
        OutOfBound: it differs on another one by more than `k` lets pass.
        CaptureMissing: it was never blessed, or its file is gone.
        CaptureCorrupt: its file or manifest is truncated or altered.
        NothingCompared: neither side holds a tensor with an element.
        NotComparable: see `trees.named`.
        InvalidInput: `k`, `keep` or the name cannot be one, or `k` or `keep` is not what was blessed.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    _check_k(k)
    kept = keep_of(keep, k)
    tensors, device = _some(name, tree), device_of(tree)
    folder = place.folder(BLESSED, device, name)
    manifest, entry = _manifest(folder, name)
    blessed = _read(folder / name, entry)
    if entry.k != k:
        raise InvalidInput(f"k of {name}", k, f"{entry.k}, as it was blessed: a tolerance is blessed like a capture")
    if entry.keep != kept:
        raise InvalidInput(f"keep of {name}", repr(str(kept)), f"{entry.keep!r}, as it was blessed")
    differs = platform.differing(platform.of_device(str(device)), manifest.fingerprint)
    differences = _differences(tensors, blessed, entry)
    if differs:
        return _elsewhere(name, tensors, blessed, entry, differs, differences)
    if differences:
        raise ParityError(name, differences, SIDES)
    return Result(name, Verdict.EXACT, 0.0, 0.0)


def bless(
    name: str,
    tree: object,
    again: Callable[[], object] | None,
    place: Place,
    reason: str,
    k: float = 0.0,
    keep: str = Keep.ALL,
) -> Rewritten | None:
    """Make a tree the capture of its name, where that is not what the capture holds.

    Whether blessing is allowed at all is for the caller to ask, once: `bless.refuse_unless_explicit`.

    Args:
        name: the capture's.
        tree: what is to be blessed.
        again: makes it again, with the same bytes, as often as it is called; with None it must be what was blessed.
        place: where captures are.
        reason: why; kept with the capture.
        k: the tolerance to bless with it.
        keep: the part of the tree to keep, see `kept.Keep`.

    Returns:
        What changed; None where nothing was written.

    Raises:
        BlessRefused: `again` gives other bytes, or is needed and not there; a tensor holds a NaN; the file format
            cannot keep it; or the captures are another platform's.
        NothingCompared: there is no tensor with an element.
        NotComparable: see `trees.named`.
        InvalidInput: `k`, `keep` or the name cannot be one, or `k` is not 0 where not every byte is kept.
    """
    if again is None:
        _refuse_unless_blessed(name, tree, place, k, keep)
        return None
    _check_k(k)
    kept = keep_of(keep, k)
    tensors = _some(name, tree)
    if nans(tensors):
        raise BlessRefused(f"{name}: {nans(tensors)[0]} holds a NaN, which equals itself, whatever made it")
    for _ in range(REPLAYS - 1):
        differences = tree_differences(named(again()), tensors)
        if differences:
            raise BlessRefused(f"{name} is not reproducible, called again it differs: {differences[0]}")
    digested = digests(tensors, kept)
    holds = stored(tensors, digested)
    _refuse_unkeepable(name, holds)
    entry = replace(store.entry(name, holds, (), k, reason), keep=str(kept), digests=digested)
    return _rewrite(place.to_bless(BLESSED, device_of(tree)), name, tensors, entry, device_of(tree))


def entries(place: Place) -> Iterator[Path]:
    """Paths in the folders that trees are compared with here: captures, and files that belong to no capture.

    A capture of the folder that stands in is none of them where this machine has its own, on any device.
    """
    found = [place.folders(BLESSED, device) for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]]
    firsts = dict.fromkeys(folders[0] for folders in found if folders)
    behind = dict.fromkeys(folder for folders in found for folder in folders[1:] if folder not in firsts)
    own = {path.name for folder in firsts for path in folder.iterdir()}
    paths = [path for folder in firsts for path in sorted(folder.iterdir())]
    for path in paths + [path for folder in behind for path in sorted(folder.iterdir()) if path.name not in own]:
        yield path
        known = {store.MANIFEST, path.name + store.SUFFIX}
        yield from (each for each in sorted(path.glob("*")) if each.name not in known)


def device_of(tree: object) -> torch.device:
    """The GPU where any tensor is on one, else the CPU."""
    return next((device for device in devices(tree) if device.type == "cuda"), torch.device("cpu"))


def _some(name: str, tree: object) -> dict[str, Tensor]:
    tensors = named(tree)
    if not any(tensor.numel() for tensor in tensors.values()):
        raise NothingCompared(f"{name}: no tensor with an element, so there is nothing to compare")
    return tensors


def _refuse_unless_blessed(name: str, tree: object, place: Place, k: float, keep: str) -> None:
    try:
        check(name, tree, place, k, keep)
    except (AssertionError, store.CapturesError, InvalidInput) as error:
        raise BlessRefused(
            f"{name}: to bless it, give the function that makes it, not what it made\n{error}"
        ) from error


def _check_k(k: float) -> None:
    if not (math.isfinite(k) and k >= 0):
        raise InvalidInput("k", k, "a finite number, 0 or above")


def _manifest(folder: Path, name: str) -> tuple[store.Manifest, store.Entry]:
    file = folder / name / file_name(name)
    if not (folder / name).is_dir():
        others = sorted(each.parent.parent.name for each in folder.parent.parent.glob(f"*/{BLESSED}/{name}"))
        elsewhere = f", only on {', '.join(others)}" if others else ""
        raise store.CaptureMissing(f"{file}: missing, {name} was never blessed on {folder.parent.name}{elsewhere}")
    manifest = store.read_manifest(folder / name)
    if list(manifest.scenarios) != [name]:
        raise store.ManifestAltered(f"{folder / name / store.MANIFEST}: not the manifest of {name}")
    return manifest, manifest.scenarios[name]


def _read(home: Path, entry: store.Entry) -> dict[str, Tensor]:
    """The tensors in a capture's file.

    Raises:
        CapturesError: see `store.read_capture`; or the file and the digests contradict each other.
    """
    found = store.read_capture(home, entry)
    wrong = fault(entry.keep, entry.digests, found)
    if wrong:
        raise store.ManifestAltered(f"{home / store.MANIFEST}: altered, {wrong}")
    return found


def _differences(tensors: Mapping[str, Tensor], blessed: Mapping[str, Tensor], entry: store.Entry) -> list[Difference]:
    """All differences in the order of the tree, which may be that of ticks; a file has an order of its own."""
    place_of = {parted(name)[0]: number for number, name in enumerate(tensors)}
    found = from_capture(tensors, blessed, entry.digests)
    return sorted(found, key=lambda each: place_of.get(each.name, len(place_of)))


def _elsewhere(
    name: str,
    tensors: Mapping[str, Tensor],
    blessed: Mapping[str, Tensor],
    entry: store.Entry,
    differs: tuple[str, ...],
    differences: Sequence[Difference],
) -> Result:
    """The verdict on another machine than the one that blessed."""
    __tracebackhide__ = True
    if not differences:
        return Result(name, Verdict.EXACT, 0.0, 0.0)
    k, told = entry.k, "; ".join(listed(differences, SIDES))
    where = f"{name} differs, and this machine is not the one that blessed it (other {', '.join(differs)})"
    if entry.digests:
        raise OutOfBound(f"{where}: a capture that does not keep every byte has no tolerance. {told}")
    if any(each.kind is not DifferenceKind.BYTES for each in differences):
        raise OutOfBound(f"{where}: {'' if k else 'it has no tolerance k, '}no bound would let it pass. {told}")
    # In the order of the tree; both sides have the same names here.
    result = within_bound(name, tensors, {each: blessed[each] for each in tensors}, k, SIDES)
    if result.verdict.passes:
        return result
    if k:
        raise OutOfBound(f"{where}: beyond k = {k:g}, {result.detail}")
    apart = (
        "no bound would let it pass" if result.max_abs is None else f"it is {_needed(tensors, blessed):.3g} of k away"
    )
    raise OutOfBound(f"{where}: it has no tolerance k, {apart}. {result.detail}")


def _needed(tensors: Mapping[str, Tensor], blessed: Mapping[str, Tensor]) -> float:
    """The smallest k that would let it pass."""
    measured = [tolerance(tensors[name], blessed[name]) for name in blessed]
    return max(moved / unit if unit else math.inf for moved, unit in measured if moved)


def _refuse_unkeepable(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what cannot be written, or not be read again."""
    try:
        store.deserialize(store.serialize(tensors))
    except (KeyError, FileRefused) as error:  # a dtype that safetensors does not know is a KeyError
        raise BlessRefused(f"{name}: the file format cannot keep it, {error!r}") from error


def _rewrite(
    folder: Path, name: str, tensors: Mapping[str, Tensor], entry: store.Entry, device: torch.device
) -> Rewritten | None:
    """The file first and the manifest last: stopped in between, the next check fails instead of passing."""
    home, holds = folder / name, stored(tensors, entry.digests)
    try:
        known = _manifest(folder, name)[1]
    except store.CapturesError:
        known = None
    rewritten = Rewritten(_what(home, name, holds, known, entry), _against(home, known, tensors))
    if known is not None and rewritten.what == name and not rewritten.differences:
        return None
    atomic.write(home / entry.file, store.serialize(holds))
    manifest = store.Manifest(platform.of_device(str(device)), "", str(torch.__version__), {name: entry})
    store.write_manifest(home, manifest)
    return rewritten


def _what(home: Path, name: str, holds: Mapping[str, Tensor], known: store.Entry | None, entry: store.Entry) -> str:
    """The change of a capture in words; its name alone where nothing changed but what differences show."""
    if known is not None and known.keep != entry.keep:
        changes = [f"keep {known.keep} -> {entry.keep}"]
        change = None
    else:
        changes, change = [], drift(home, name, holds, (), known)
    if known is not None and (entry.digests or known.digests) and not changes:
        # The distance of samples is not that of the tensors, and equal samples do not mean equal tensors.
        moved = Change(name, "moved") if known.digests != entry.digests else None
        change = replace(change, max_abs=None) if change is not None else moved
    if known is not None and known.k != entry.k:
        changes.insert(0, f"k {known.k:g} -> {entry.k:g}")
    return ", ".join([str(change or name), *changes])


def _against(home: Path, known: store.Entry | None, tensors: Mapping[str, Tensor]) -> tuple[Difference, ...]:
    """The new tensors against the old ones, where those can be read."""
    try:
        return tuple(_differences(tensors, _read(home, known), known)) if known else ()
    except store.CapturesError:
        return ()
