"""The sidecar of a plan: the metadata file `<plan>.json`, which records the plan's source, target and builder."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.engine import atomic, checks
from harness.engine.aot.layers import Layer
from harness.engine.errors import PlanCorrupt, SidecarMissing

FORMAT = 1
"""The format version of the sidecar; files of another version are refused."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sidecar:
    """A plan's metadata.

    Attributes:
        plan_sha256: SHA-256 of the plan's bytes, in hexadecimal.
        onnx_sha256: SHA-256 of the exported file that the plan was built from, external data included.
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: the version of TensorRT.
        compute_capability: the compute capability that the plan was built for, such as `8.9`.
        gpu: the name of the GPU that the plan was built on; None where the plan was built for another GPU or without
            one.
        driver: the version of that GPU's driver; None where `gpu` is None.
        profile: minimum, optimum and maximum shape of every input, by name.
        dtypes: the dtype of every input and output, by name, such as `float16`.
        frames_multiple: T must be a multiple of this number, the model's patch size.
        verbosity: the detail of the layer names that a profiler gets: `detailed`, `layer_names_only` or `none`.
        layers: the layers of the plan.
    """

    plan_sha256: str
    onnx_sha256: str
    flavour: str
    version: str
    compute_capability: str
    gpu: str | None
    driver: str | None
    profile: Mapping[str, tuple[Shape, Shape, Shape]]
    dtypes: Mapping[str, str]
    frames_multiple: int
    verbosity: str
    layers: tuple[Layer, ...] = ()


BUILT_FOR = tuple(f.name for f in fields(Sidecar) if f.name not in ("plan_sha256", "layers"))
"""The fields that must match for a plan to be used again."""

_TEXTS = ("plan_sha256", "onnx_sha256", "flavour", "version", "compute_capability", "verbosity")


def path(plan: Path) -> Path:
    """The path of a plan's metadata."""
    return plan.with_name(plan.name + ".json")


def differing(recorded: Sidecar, here: Sidecar, names: tuple[str, ...] = BUILT_FOR) -> Iterator[str]:
    """The names, out of `names`, of the fields in which two sidecars differ."""
    return (name for name in names if getattr(recorded, name) != getattr(here, name))


def write(plan: Path, sidecar: Sidecar) -> None:
    """Write a plan's metadata beside the plan, atomically."""
    atomic.write(path(plan), (json.dumps({"format": FORMAT, **asdict(sidecar)}, indent=1) + "\n").encode())


def read(plan: Path) -> Sidecar:
    """Read a plan's metadata.

    Raises:
        SidecarMissing: the sidecar is missing, malformed or of another format version than `FORMAT`.
    """
    file = path(plan)
    if not file.is_file():
        raise SidecarMissing(f"{file} is missing, so {plan.name} has no metadata; build the plan again")
    try:
        raw = json.loads(file.read_text())
        found = raw.pop("format")
        if found != FORMAT:
            raise SidecarMissing(f"{file}: format {found}, this version reads {FORMAT}; build the plan again")
        return _parsed(raw)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise SidecarMissing(f"{file}: not a plan's metadata ({error!r}); build the plan again") from error


def read_plan(plan: Path) -> tuple[bytes, Sidecar]:
    """Read a plan and its metadata, and check the plan's hash.

    Raises:
        SidecarMissing: see `read`.
        PlanCorrupt: the plan is missing, truncated or altered.
    """
    if not plan.is_file():
        raise PlanCorrupt(f"{plan} is missing")
    sidecar = read(plan)
    data = plan.read_bytes()
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanCorrupt(f"{plan}: the SHA-256 of its {len(data)} bytes is not the one in {path(plan).name}")
    return data, sidecar


def _parsed(raw: Mapping[str, Any]) -> Sidecar:
    profile = {name: tuple(tuple(map(int, shape)) for shape in shapes) for name, shapes in raw["profile"].items()}
    if any(len(shapes) != 3 for shapes in profile.values()):
        raise ValueError("profile: expected minimum, optimum and maximum of every input")
    layers = tuple(Layer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in raw["layers"])
    found = Sidecar(**{**raw, "profile": profile, "layers": layers})
    checks.integer("frames_multiple", found.frames_multiple, 1)
    texts = [getattr(found, name) for name in _TEXTS]
    texts += [text for text in (found.gpu, found.driver) if text is not None]
    texts += found.dtypes.values()
    for layer in layers:
        texts += (layer.name, layer.kind, layer.tactic, *layer.nodes)
        checks.integer("stream", layer.stream, -sys.maxsize)
    if strange := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"got {strange[0]!r}, expected a string")
    return found
