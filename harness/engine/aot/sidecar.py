"""The sidecar of a plan: the metadata file `<plan>.json`, which records the plan's source, target and builder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from harness.engine import atomic
from harness.engine.aot.layers import Layer
from harness.engine.errors import PlanCorrupt, SidecarMissing
from harness.files import FileRefused, documents, reading
from harness.files.refused import FileMissing, described
from harness.files.schema import Within, fit

FORMAT = 1
"""The format version of the sidecar; files of another version are refused."""

LARGEST = 2**36
"""The largest plan in bytes."""

Shape = tuple[Annotated[int, Within(0, 2**31)], ...]


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
    frames_multiple: Annotated[int, Within(1, 2**31)]
    verbosity: str
    layers: tuple[Layer, ...] = ()


BUILT_FOR = tuple(f.name for f in fields(Sidecar) if f.name not in ("plan_sha256", "layers"))
"""The fields that must match for a plan to be used again."""


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
    try:
        raw = documents.load(file)
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            found = described(raw.get("format"))
            raise SidecarMissing(f"{file}: format {found}, this version reads {FORMAT}; build the plan again")
        return _parsed(raw, file)
    except FileMissing as error:
        raise SidecarMissing(f"{file} is missing, so {plan.name} has no metadata; build the plan again") from error
    except FileRefused as error:
        raise SidecarMissing(f"{file}: not a plan's metadata ({error.why}); build the plan again") from error


def read_plan(plan: Path) -> tuple[bytes, Sidecar]:
    """Read a plan and its metadata, and check the plan's hash.

    Raises:
        SidecarMissing: see `read`.
        PlanCorrupt: the plan is missing, truncated or altered, or no regular file.
    """
    try:
        reading.check(plan, LARGEST)
        sidecar = read(plan)
        data = reading.whole(plan, LARGEST)
    except FileMissing as error:
        raise PlanCorrupt(f"{plan} is missing") from error
    except FileRefused as error:
        raise PlanCorrupt(str(error)) from error
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanCorrupt(f"{plan}: the SHA-256 of its {len(data)} bytes is not the one in {path(plan).name}")
    return data, sidecar


@dataclass(frozen=True)
class _Document(Sidecar):
    """A sidecar as it is in the file."""

    format: int = FORMAT


def _parsed(raw: Any, file: Path) -> Sidecar:
    found: _Document = fit(_Document, raw, file)
    if "layers" not in raw:
        raise FileRefused(file, "layers", "no such field", "one")
    return Sidecar(**{each.name: getattr(found, each.name) for each in fields(Sidecar)})
