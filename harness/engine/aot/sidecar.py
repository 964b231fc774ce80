"""What lies beside a plan and says what it was built from, for what and by what: `<plan>.json`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.engine import checks
from harness.engine.aot.layers import Layer
from harness.engine.errors import PlanCorrupt, SidecarMissing

FORMAT = 1
"""Of the sidecar; another one is refused, never guessed at."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sidecar:
    """A plan's metadata.

    Attributes:
        plan_sha256: of the plan's bytes.
        onnx_sha256: of the ONNX file it was built from, its external data included.
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: of TensorRT.
        compute_capability: that it was built for, such as `8.9`.
        gpu: that it was built on, by name; None where it was built without one.
        driver: of that GPU; None likewise.
        profile: minimal, optimal and maximal shape of every input, by name.
        dtypes: of every input and output, by name, such as `float16`.
        frames_multiple: of the latent frames T, the model's patch size.
        verbosity: of the layers it tells a profiler: `detailed`, `layer_names_only` or `none`.
        layers: of the engine.
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
"""The fields that decide whether a plan can be used again."""

_TEXTS = ("plan_sha256", "onnx_sha256", "flavour", "version", "compute_capability", "verbosity")


def path(plan: Path) -> Path:
    """Where a plan's metadata is."""
    return plan.with_name(plan.name + ".json")


def differing(recorded: Sidecar, here: Sidecar, names: tuple[str, ...] = BUILT_FOR) -> Iterator[str]:
    """The fields of `names` in which two differ."""
    return (name for name in names if getattr(recorded, name) != getattr(here, name))


def write(plan: Path, sidecar: Sidecar) -> None:
    """Write a plan's metadata beside it, whole or not at all."""
    replaced(path(plan), (json.dumps({"format": FORMAT, **asdict(sidecar)}, indent=1) + "\n").encode())


def replaced(target: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def read(plan: Path) -> Sidecar:
    """A plan's metadata.

    Raises:
        SidecarMissing: there is none, or it is not one of `FORMAT`.
    """
    file = path(plan)
    if not file.is_file():
        raise SidecarMissing(f"{file} is missing: nothing says what {plan.name} was built from; build it again")
    try:
        raw = json.loads(file.read_text())
        found = raw.pop("format")
        if found != FORMAT:
            raise SidecarMissing(f"{file}: format {found}, this version reads {FORMAT}; build the plan again")
        return _parsed(raw)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise SidecarMissing(f"{file}: not a plan's metadata ({error!r}); build the plan again") from error


def read_plan(plan: Path) -> tuple[bytes, Sidecar]:
    """A plan's bytes and its metadata, which is of these very bytes.

    Raises:
        SidecarMissing: see `read`.
        PlanCorrupt: there is no plan, or it is truncated or altered.
    """
    if not plan.is_file():
        raise PlanCorrupt(f"{plan} is missing")
    sidecar = read(plan)
    data = plan.read_bytes()
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanCorrupt(f"{plan}: {len(data)} bytes that are not the ones which {path(plan).name} describes")
    return data, sidecar


def _parsed(raw: Mapping[str, Any]) -> Sidecar:
    profile = {name: tuple(tuple(map(int, shape)) for shape in shapes) for name, shapes in raw["profile"].items()}
    if any(len(shapes) != 3 for shapes in profile.values()):
        raise ValueError("a profile without minimum, optimum and maximum")
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
        raise TypeError(f"{strange[0]!r} where a text is expected")
    return found
