"""Profiles from files: the JSON of `trtexec --exportProfile` and `--exportLayerInfo`, and the metadata of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.engine import checks
from harness.engine.aot import layers as aot
from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.files import FileRefused, documents
from harness.files.refused import Place
from harness.files.schema import fit
from harness.rails.profile.report import NoLayers, NotAProfile, Profile, Timed, joined
from harness.rails.profile.rules import Facts

_TENSORS = ("I/O Tensors", "Bindings")
"""Keys of a plan's inputs and outputs in an inspector's JSON: the current one, and the one until TensorRT 10."""

_MOST = 1e15
"""The largest plausible number of runs or milliseconds; a file with a larger number is refused."""


def trtexec(path: Path, inspector: Path | None = None) -> Profile:
    """Read a profile that `trtexec --exportProfile` wrote.

    Args:
        path: the file of the profile.
        inspector: the file that `--exportLayerInfo` wrote for the same plan; None: only the names of layers are known.

    Raises:
        NotAProfile: a file is not of the expected format.
        NoLayers: the profile, or the inspector's list, is empty.
        NamelessLayers: the names of the layers are indices.
        OtherEngine: the two files are from different plans.
    """
    document = _json(path)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise NotAProfile(f"{path}: expected the list of layers that trtexec --exportProfile writes")
    runs = sum(_number(path, entry, "count") for entry in document if "name" not in entry)
    ms: dict[str, float] = {}
    for index, entry in enumerate(document):
        if "name" in entry:
            name = _text(path, entry["name"], (index, "name"))
            ms[name] = ms.get(name, 0.0) + _number(path, entry, "averageMs")
    if not ms:
        raise NoLayers(f"{path}: the profile has no layer")
    listed, tensors = _inspected(inspector)
    layers = joined(list(ms), listed)
    provenance = {
        "profile": path.name,
        "inspector": None if inspector is None else inspector.name,
        "tensors": list(tensors),
    }
    timed = [Timed(Facts(layers[name]), each) for name, each in ms.items()]
    return Profile("trtexec", timed, runs=max(1, int(runs)), resolved=inspector is not None, provenance=provenance)


def plan(path: Path) -> Profile:
    """Read the layers of a plan from its metadata, without times.

    Args:
        path: the plan.

    Raises:
        SidecarMissing: see `sidecar.read_plan`.
        PlanCorrupt: see `sidecar.read_plan`.
        NoLayers: the metadata lists no layers.
        NamelessLayers: the names of the layers are indices.
    """
    _, found = sidecar.read_plan(path)
    provenance = {
        "plan": path.name,
        "flavour": found.flavour,
        "version": found.version,
        "compute_capability": found.compute_capability,
        "dtypes": dict(found.dtypes),
        "verbosity": found.verbosity,
    }
    return Profile("plan", [Timed(Facts(layer)) for layer in found.layers], resolved=True, provenance=provenance)


def _inspected(path: Path | None) -> tuple[Sequence[Layer], Sequence[str]]:
    """The layers of a plan and the names of its inputs and outputs; both empty without a file."""
    if path is None:
        return (), ()
    document = _json(path)
    try:
        layers = aot.from_inspector(document)
        key = next((key for key in _TENSORS if key in document), "")
        tensors = fit(list[Any], document.get(key, []), path, (key,))
    except ValueError as error:  # FileRefused is one
        raise NotAProfile(f"{path}: not in the format of trtexec --exportLayerInfo ({error})") from error
    names = [
        _text(path, each.get("Name") if isinstance(each, dict) else each, (key, index))
        for index, each in enumerate(tensors)
    ]
    if not layers:
        raise NoLayers(f"{path}: the list of layers is empty")
    return layers, names


def _json(path: Path) -> Any:
    try:
        return documents.load(path)
    except FileRefused as error:
        raise NotAProfile(f"{path}: not a JSON file ({error.why})") from error


def _text(path: Path, value: Any, place: Place) -> str:
    try:
        text: str = fit(str, value, path, place)
    except FileRefused as error:
        raise NotAProfile(str(error)) from error
    return text


def _number(path: Path, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        shown, where = checks.describe(value), checks.describe(dict(entry))
        raise NotAProfile(f"{path}: {key} is {shown} in {where}, expected a number from 0 to {_MOST:g}")
    return float(value)
