"""The sidecar of a file of code: the metadata file `<file>.json`, and this machine's and this decoder's part of it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.engine import atomic
from harness.engine.aot.here import driver
from harness.engine.errors import CodeCorrupt, CodeMismatch, SidecarMissing
from harness.engine.executors.compiled import OPTIONS
from harness.files import FileRefused, documents, reading
from harness.files.refused import FileMissing, described
from harness.files.schema import Natural, Sha256, fit

FORMAT = 1
"""The format version of the sidecar; files of another version are refused."""

AGAIN = "build it again"
"""What to do with a file of code that cannot be used."""


@dataclass(frozen=True)
class Run:
    """The kernels of one prepared run.

    Attributes:
        shape: the shape of the run, in words.
        rows: its number of rows.
        kernels: the kernels that it launches, in order; see `launched`.
        sha256: digest of `kernels`; see `digest`.
    """

    shape: str
    rows: Natural
    kernels: tuple[str, ...]
    sha256: Sha256


@dataclass(frozen=True)
class Record:
    """The metadata of a file of code.

    Attributes:
        code_sha256: SHA-256 of the file's bytes, in hexadecimal.
        torch: the version of torch.
        triton: the version of Triton; None where it is not installed.
        python: the implementation and version of Python, such as `cpython-311`.
        device: the type of the device, `cpu` or `cuda`.
        processor: the name of the GPU, or of the CPU's model.
        capability: the compute capability of the GPU, such as `9.0`, or the capability of the CPU, such as `AVX2`.
        driver: the version of the GPU's driver; None on a CPU.
        threads: the number of threads of torch's operators on a CPU; None on a GPU.
        options: the options of torch's compiler.
        decoder: the class of the decoder.
        switches: the decoder's accelerations and their forms; empty for a decoder that has none.
        structure: digest of the decoder's modules and of its weights' names, shapes and dtypes; see `structure`.
        rows: the numbers of rows that are prepared, in ascending order.
        shapes: the shapes that are prepared, in words.
        graphs: the number of the compiler's graphs whose code is in the file.
        runs: the kernels of every prepared run.
    """

    code_sha256: Sha256
    torch: str
    triton: str | None
    python: str
    device: str
    processor: str
    capability: str
    driver: str | None
    threads: Natural | None
    options: Mapping[str, bool]
    decoder: str
    switches: Mapping[str, str]
    structure: str
    rows: tuple[Natural, ...]
    shapes: tuple[str, ...]
    graphs: Natural
    runs: tuple[Run, ...]


_MADE = ("code_sha256", "graphs", "runs")
ASKED = ("rows", "shapes")
"""The fields that say what is prepared."""

HERE = tuple(each.name for each in fields(Record) if each.name not in (*_MADE, *ASKED))
"""The fields that must match for the code to be loaded."""


def path(file: Path) -> Path:
    """The path of the metadata of a file of code."""
    return file.with_name(file.name + ".json")


def digest(kernels: tuple[str, ...]) -> str:
    """SHA-256 of the names of kernels, in hexadecimal."""
    return hashlib.sha256("\n".join(kernels).encode()).hexdigest()


def here(decoder: Any, device: torch.device) -> dict[str, Any]:
    """The fields of `HERE` for a decoder on a device of this machine, by name."""
    on_gpu = device.type == "cuda"
    switches = getattr(decoder, "switches", None)
    words = {True: "on", False: "off"}
    return {
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": sys.implementation.cache_tag,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else _cpu(),
        "capability": _compute(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "driver": driver() if on_gpu else None,
        "threads": None if on_gpu else torch.get_num_threads(),
        "options": dict(OPTIONS),
        "decoder": type(decoder).__qualname__,
        "switches": {} if switches is None else {n: words.get(v, str(v)) for n, v in asdict(switches).items()},
        "structure": structure(decoder),
    }


def structure(decoder: Any) -> str:
    """Digest of what a decoder's code depends on: its modules, and names, shapes and dtypes of its weights.

    The values of the weights are no part of it: code that was made for one checkpoint serves another one of the same
    model.
    """
    found = hashlib.sha256()
    for line in _parts(decoder):
        found.update(f"{line}\n".encode())
    return found.hexdigest()


def _parts(decoder: Any) -> Iterator[str]:
    yield f"{type(decoder).__module__}.{type(decoder).__qualname__}"
    if not isinstance(decoder, nn.Module):
        plain = {name: value for name, value in vars(decoder).items() if isinstance(value, bool | int | float | str)}
        yield from (f"{name}={plain[name]!r}" for name in sorted(plain))
        return
    for name, module in decoder.named_modules():
        yield f"{name} {type(module).__module__}.{type(module).__qualname__} {module.extra_repr()}"
        config = dict(getattr(module, "config", None) or {})
        # Names with an underscore say where a configuration is from.
        yield from (f"{name}.config.{each}={config[each]!r}" for each in sorted(config) if not each.startswith("_"))
    for name, tensor in chain(decoder.named_parameters(), decoder.named_buffers()):
        yield f"{name} {tensor.dtype} {list(tensor.shape)}"


def check(recorded: Record, found: Mapping[str, Any]) -> None:
    """Refuse code that was made for something else.

    Args:
        recorded: the metadata.
        found: the fields of `HERE`, by name.

    Raises:
        CodeMismatch: the message names the first field that differs.
    """
    for name in differing(recorded, found):
        raise CodeMismatch(name, getattr(recorded, name), found[name])


def differing(recorded: Record, found: Mapping[str, Any]) -> Iterator[str]:
    """The names of the fields of `found` in which a record differs, in their order."""
    return (name for name in found if getattr(recorded, name) != found[name])


def write(file: Path, record: Record) -> None:
    """Write the metadata of a file of code beside it, atomically."""
    atomic.write(path(file), (json.dumps({"format": FORMAT, **asdict(record)}, indent=1) + "\n").encode())


def read(file: Path) -> Record:
    """Read the metadata of a file of code.

    Raises:
        SidecarMissing: the metadata is missing, malformed, of another format version than `FORMAT`, or the digest of
            a run's kernels is not that of its kernels.
    """
    beside = path(file)
    try:
        raw = documents.load(beside)
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            found = described(raw.get("format"))
            raise SidecarMissing(f"{beside}: format {found}, this version reads {FORMAT}; {AGAIN}")
        document: _Document = fit(_Document, raw, beside)
    except FileMissing as error:
        raise SidecarMissing(f"{beside} is missing, so {file.name} has no metadata; {AGAIN}") from error
    except FileRefused as error:
        raise SidecarMissing(f"{beside}: not the metadata of code ({error.why}); {AGAIN}") from error
    for run in document.runs:
        if digest(run.kernels) != run.sha256:
            raise SidecarMissing(f"{beside}: the kernels of {run.rows} rows of {run.shape} were altered; {AGAIN}")
    return Record(**{each.name: getattr(document, each.name) for each in fields(Record)})


def read_code(file: Path) -> tuple[bytes, Record]:
    """Read a file of code and its metadata, and check the file's hash.

    Raises:
        SidecarMissing: see `read`.
        CodeCorrupt: the file is missing, truncated or altered, or no regular file.
    """
    try:
        reading.check(file)
        record = read(file)
        data = reading.whole(file, reading.LARGE)
    except FileMissing as error:
        raise CodeCorrupt(f"{file} is missing") from error
    except FileRefused as error:
        raise CodeCorrupt(str(error)) from error
    if hashlib.sha256(data).hexdigest() != record.code_sha256:
        raise CodeCorrupt(f"{file}: the SHA-256 of its {len(data)} bytes is not the one in {path(file).name}")
    return data, record


@dataclass(frozen=True)
class _Document(Record):
    """A record as it is in the file."""

    format: int = FORMAT


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compute(device: torch.device) -> str:
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


def _cpu() -> str:
    """The name of the CPU's model, because code is compiled for the model; else the machine's name for its kind."""
    try:
        known = re.search(r"^model name\s*:\s*(.+)$", reading.text(Path("/proc/cpuinfo")), re.MULTILINE)
    except FileRefused:
        known = None
    return known[1] if known else platform.machine()
