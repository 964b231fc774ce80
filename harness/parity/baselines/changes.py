"""Changes that blessing makes, for the report: of scenarios, of their tolerances, and of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from harness.files import FileRefused, reading
from harness.files.refused import FileMissing
from harness.parity.baselines import platform, store
from harness.parity.baselines.verdicts import distance
from harness.parity.compare import digest_tree


@dataclass(frozen=True)
class Change:
    """A change that blessing made to one scenario or to the manifest.

    Attributes:
        name: the scenario's, or `store.MANIFEST`.
        what: the change in words.
        max_abs: largest |Δ| from the capture that was there; None where there is none.
        k: the scenario's tolerance before and now, 0 and above; None where it stayed, or where there was none.
    """

    name: str
    what: str
    max_abs: float | None = None
    k: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Such as `cfg_full moved, max |Δ| 4.1e-3, k 54 -> 481`."""
        distance = "" if self.max_abs is None else f", max |Δ| {short(self.max_abs)}"
        return f"{self.name} {self.what}{distance}" + ("" if self.k is None else f", k {_from_to(*self.k)}")


def drift(
    folder: Path, name: str, tensors: Mapping[str, Tensor], ticks: Sequence[str], entry: store.Entry | None
) -> Change | None:
    """How what is computed now differs from a capture in `folder`; None where both are the same."""
    if entry is None:
        return _without_entry(folder, name, tensors)
    try:
        blessed = store.read_capture(folder, entry)
    except store.CaptureMissing:
        return Change(name, "restored, its file was missing")
    except store.CaptureCorrupt:
        return Change(name, "restored, its file was corrupt")
    if digest_tree(blessed) != digest_tree(tensors):
        moved = distance(tensors, blessed)
        return Change(
            name, "moved" if moved is not None else "changed in names, dtype, shape or to no finite value", moved
        )
    if tuple(ticks) != entry.ticks:
        return Change(name, "moved in its states only")
    return None


def _without_entry(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> Change:
    """How what is computed now differs from a file that no usable manifest knows, or that is not there."""
    path = folder / store.file_name(name)
    try:
        there = store.deserialize(reading.whole(path, reading.LARGE), path)
    except FileMissing:
        return Change(name, "new")
    except FileRefused:
        return Change(name, "restored, its file was corrupt and in no manifest")
    if digest_tree(there) == digest_tree(tensors):
        return Change(name, "restored, its file was in no manifest and is the same")
    return Change(name, "moved from a file that was in no manifest", distance(tensors, there))


def with_k(
    name: str, drifted: Change | None, entries: Mapping[str, store.Entry], ks: Mapping[str, float]
) -> Change | None:
    """What changed of a scenario, its tolerance included; None where nothing did."""
    if name not in ks or name not in entries or ks[name] == entries[name].k:
        return drifted
    return replace(drifted or Change(name, "tolerance"), k=(entries[name].k, ks[name]))


def of_manifest(known: store.Manifest | store.CapturesError | None, now: store.Manifest) -> list[Change]:
    """What changed in a manifest beside its scenarios."""
    if known is None:
        return []
    if isinstance(known, store.CapturesError):
        state = "missing" if isinstance(known, store.CaptureMissing) else "corrupt"
        return [Change(store.MANIFEST, f"restored, it was {state}")]
    fields = [
        f"{field} {_from_to(known.fingerprint.get(field, 'none'), now.fingerprint.get(field, 'none'))}"
        for field in platform.differing(now.fingerprint, known.fingerprint)
    ]
    changed = {
        "fingerprint": ", ".join(fields),
        "engine": _from_to(known.engine[:12], now.engine[:12]) if known.engine != now.engine else "",
        "torch": _from_to(known.torch, now.torch) if known.torch != now.torch else "",
    }
    return [Change(store.MANIFEST, f"{name} changed: {words}") for name, words in changed.items() if words]


def short(value: float) -> str:
    """A distance with two digits, its exponent without padding: `4.1e-3`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _from_to(before: float | str, now: float | str) -> str:
    """Such as `54 -> 481`; numbers with as many digits as they need to be told apart."""
    words = [f"{each:g}" if isinstance(each, float) else str(each) for each in (before, now)]
    return " -> ".join(words if words[0] != words[1] else [repr(before), repr(now)])
