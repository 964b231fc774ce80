"""Profiles from files: what `trtexec --exportProfile` and `--exportLayerInfo` wrote, and the layers of a built plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.engine import checks
from harness.engine.aot import layers as aot
from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.rails.profile.report import NoLayers, NotAProfile, Profile, Timed, joined
from harness.rails.profile.rules import Facts

_TENSORS = ("I/O Tensors", "Bindings")
"""What an inspector's JSON calls an engine's inputs and outputs, now and until TensorRT 10."""

_MOST = 1e15
"""Beyond it a number counts neither runs nor milliseconds."""


def trtexec(path: Path, inspector: Path | None = None) -> Profile:
    """A profile that `trtexec --exportProfile` wrote.

    Args:
        path: of it.
        inspector: what `--exportLayerInfo` wrote of the same engine; without it names are all there is.

    Raises:
        NotAProfile: one of them is not such a file.
        NoLayers: the profile, or the inspector's list, is empty.
        NamelessLayers: the layers are called by their indices.
        OtherEngine: the two are of different engines.
    """
    document = _json(path)
    if not isinstance(document, list) or not all(isinstance(entry, Mapping) for entry in document):
        raise NotAProfile(f"{path}: expected the list of layers that trtexec --exportProfile writes")
    runs = sum(_number(path, entry, "count") for entry in document if "name" not in entry)
    ms: dict[str, float] = {}
    for entry in document:
        if "name" in entry:
            name = str(entry["name"])
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
    """The layers of a built plan, from the metadata beside it, without times.

    Raises:
        SidecarMissing: see `sidecar.read_plan`.
        PlanCorrupt: likewise.
        NoLayers: the plan was built without a list of them.
        NamelessLayers: their names are indices.
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
    """An engine's layers and the names of its inputs and outputs."""
    if path is None:
        return (), ()
    document = _json(path)
    try:
        layers = aot.from_inspector(document)
        tensors: Sequence[Any] = next((document[key] for key in _TENSORS if key in document), ())
        names = [str(each["Name"] if isinstance(each, Mapping) else each) for each in tensors]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise NotAProfile(f"{path}: not what trtexec --exportLayerInfo writes ({error!r})") from error
    if not layers:
        raise NoLayers(f"{path}: the engine's list has no layer")
    return layers, names


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise NotAProfile(f"{path}: no JSON file ({error})") from error


def _number(path: Path, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        shown, where = checks.describe(value), checks.describe(dict(entry))
        raise NotAProfile(f"{path}: {key} is {shown} in {where}, expected a number from 0 to {_MOST:g}")
    return float(value)
