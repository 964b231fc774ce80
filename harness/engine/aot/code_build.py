"""The builder of files of code: an executor prepares its shapes in an empty folder, which becomes the file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.engine import atomic, checks
from harness.engine.aot import code_record
from harness.engine.aot.code_file import pack, recorded_run
from harness.engine.aot.code_record import Record, Run
from harness.engine.errors import BuildFailed, EngineError, InvalidInput
from harness.engine.executors import CudaGraphExecutor
from harness.engine.executors.code import OtherKernel
from harness.engine.executors.compiler import forget, kept_in
from harness.engine.executors.launched import launched
from harness.engine.executors.prepared import Progress, silent
from harness.engine.executors.recorded import device_of
from harness.engine.executors.shapes import Shape
from harness.files import archive


@dataclass(frozen=True)
class BuiltCode:
    """A file of code on disk.

    Attributes:
        file: the path of the file.
        record: the file's metadata.
        reused: True if the file that was there is used again.
        differs: the reasons why a file that was there was replaced: fields that differ, or an error.
    """

    file: Path
    record: Record
    reused: bool
    differs: tuple[str, ...] = ()


def build_code(
    decoder: Any,
    file: Path,
    shapes: Sequence[Shape],
    row_buckets: Sequence[int],
    device: torch.device | str | None = None,
    progress: Progress = silent,
) -> BuiltCode:
    """Compile a decoder for some shapes and write its code, unless a file is there that matches in every field.

    All that torch compiled in this process before is forgotten, and other executors compile anew at their next
    recording: so the file holds all code. Every run is recorded and compared, as an executor's `prepare` does.

    Args:
        decoder: the decoder, with the accelerations that it will run with.
        file: the path of the file; `<file>.json` is its metadata.
        shapes: the shapes to prepare, at least one.
        row_buckets: the numbers of rows to prepare; see `CudaGraphExecutor`.
        device: the device; see `CudaGraphExecutor`.
        progress: called with a few words before each recording.

    Raises:
        InvalidInput: no shape, or no number of rows.
        BuildFailed: the compiler made no code, or the profiler saw no kernel on a GPU.
        ExecutorError: a run cannot be recorded.
        OSError: the file cannot be written.
    """
    asked = tuple(dict.fromkeys(map(str, shapes)))
    if not asked:
        raise InvalidInput("shapes", "no shape", "at least one")
    rows = tuple(sorted({checks.integer("row_buckets", each, 1) for each in row_buckets}))
    where = device_of(decoder, device)
    wanted = {**code_record.here(decoder, where), "rows": rows, "shapes": asked}
    there, differs = _there(file, wanted)
    if there is not None and not differs:
        return BuiltCode(file, there, reused=True)
    with TemporaryDirectory(prefix="harness-code-") as folder:
        code = _Building(Path(folder))
        graphs = _prepared(decoder, code, shapes, rows, where, progress)
        data = archive.packed(pack(code.folder))
    made = Record(code_sha256=hashlib.sha256(data).hexdigest(), graphs=graphs, runs=tuple(code.runs), **wanted)
    atomic.write(file, data)
    code_record.write(file, made)
    return BuiltCode(file, made, reused=False, differs=differs)


class _Building:
    """The code of the executor that a build prepares; see `Code`."""

    other_kernels: tuple[OtherKernel, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Run] = []
        self._device = torch.device("cpu")

    def begin(self, _decoder: Any, device: torch.device) -> None:
        self._device = device

    def kept(self) -> AbstractContextManager[None]:
        return kept_in(self.folder)

    @contextmanager
    def preparing(self, _shapes: Sequence[Shape], _rows: Sequence[int]) -> Iterator[None]:
        with self.kept():
            yield

    def watch(self, shape: Shape, rows: int, run: Callable[[], object]) -> None:
        kernels = launched(run, self._device)
        if not kernels and self._device.type == "cuda":
            raise BuildFailed(f"torch's profiler saw no kernel of {rows} rows of {shape}")
        self.runs.append(recorded_run(shape, rows, kernels))

    def close(self) -> None:
        """Keep the folder: it is not packed yet."""


def _prepared(
    decoder: Any,
    code: _Building,
    shapes: Sequence[Shape],
    rows: tuple[int, ...],
    device: torch.device,
    progress: Progress,
) -> int:
    """Prepare all runs; return the number of the compiler's graphs."""
    forget()
    executor = CudaGraphExecutor(decoder, row_buckets=rows, compiled=code, device=device)
    try:
        executor.prepare(shapes, progress)
        made = executor.stats()
    finally:
        executor.close()
    if not made.compiled:
        raise BuildFailed("torch's compiler compiled no graph")
    return made.compiled


def _there(file: Path, wanted: dict[str, Any]) -> tuple[Record | None, tuple[str, ...]]:
    """The metadata of a file that is there, and the reasons why it cannot be used again: fields, or an error."""
    if not file.exists():
        return None, ()
    try:
        _data, recorded = code_record.read_code(file)
    except EngineError as error:
        return None, (str(error),)
    return recorded, tuple(code_record.differing(recorded, wanted))
