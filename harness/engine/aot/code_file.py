"""A file of compiled code: what torch's compiler and Triton made for a decoder, for the next process to load.

The file is an archive of the two folders in which the compiler and Triton keep their code. torch's own
`save_cache_artifacts` is not used: it leaves out the libraries that a C++ compiler made on a CPU, and the kernels of
Triton that are not the compiler's own, so that a process which loads it still compiles those.

The sidecar also says which kernels each prepared run launched. That is the place for them, because a kernel is chosen
for one code on one machine, and the sidecar records both. A contract in `captures/` is about bits, of any executor.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from harness.engine import checks
from harness.engine.aot import code_record
from harness.engine.aot.code_record import Record, Run
from harness.engine.errors import CodeCorrupt, InvalidInput, KernelsDiffer
from harness.engine.executors.code import OtherKernel
from harness.engine.executors.compiler import kept_in
from harness.engine.executors.launched import launched
from harness.engine.executors.shapes import Shape
from harness.files import FileRefused, archive, reading

FOLDER = b"[[the folder of the code]]"
"""Stands in an archive for the folder: Triton's lists of files name them by absolute paths."""

_LISTS = "__grp__"
_LOCKS = ("locks", ".lock")


class OtherKernels(StrEnum):
    """What happens where a prepared run launches other kernels than those that were recorded."""

    REFUSE = "refuse"
    """`prepare` raises `KernelsDiffer`."""
    REPORT = "report"
    """`prepare` goes on, and `stats().other_kernels` names the first one of each run."""
    IGNORE = "ignore"
    """Nothing is compared, and no profiler runs."""


class CodeFile:
    """The code of a compiled decoder, from a file that `build_code` made, for one executor.

    **A file of code is code: load only files that you trust.** It is loaded only where its hash is the one in its
    sidecar, and where every field of the sidecar is that of this machine and this decoder. The values of the decoder's
    weights are free.

    The executor prepares only shapes and numbers of rows that the file was built for. Shapes that are recorded on
    demand, and whatever `update` changes, are compiled where the file has no code; `stats()` counts both.

    While `prepare` runs, the kernels of each run are compared with those of the sidecar, which takes one profiled call
    a run. Other kernels mean another choice of a library, and probably other bits.

    Args:
        file: the path of the file.
        other_kernels: what happens where a run launches other kernels.

    Raises:
        InvalidInput: `other_kernels` is no member of `OtherKernels`.
    """

    def __init__(self, file: Path | str, other_kernels: OtherKernels | str = OtherKernels.REFUSE) -> None:
        self.file = Path(file)
        self._mode = checks.member("other_kernels", other_kernels, OtherKernels)
        self._found: list[OtherKernel] = []
        self._device = torch.device("cpu")
        self._record: Record | None = None
        self._folder: Path | None = None
        self._watching = False

    @property
    def other_kernels(self) -> tuple[OtherKernel, ...]:
        """See `Code.other_kernels`."""
        return tuple(self._found)

    def begin(self, decoder: Any, device: torch.device) -> None:
        """Check the file and unpack it into a folder that only this user can read.

        Raises:
            SidecarMissing: see `code_record.read`.
            CodeCorrupt: the file is missing, truncated or altered, or no archive.
            CodeMismatch: the code was made in another environment, with other options, or for another decoder.
            InvalidInput: another executor has this object.
        """
        if self._folder is not None:
            raise InvalidInput("compiled", "the code of another executor", "a CodeFile for each executor")
        data, record = code_record.read_code(self.file)
        code_record.check(record, code_record.here(decoder, device))
        try:
            files = archive.unpacked(data, self.file)
        except FileRefused as error:
            raise CodeCorrupt(str(error)) from error
        self._folder = Path(mkdtemp(prefix="harness-code-"))
        # Also where nobody closes the executor: at the end of the process at the latest.
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        unpack(files, self._folder)
        self._record, self._device = record, device

    @contextmanager
    def kept(self) -> Iterator[None]:
        """See `Code.kept`."""
        with kept_in(self._opened()[1]):
            yield

    @contextmanager
    def preparing(self, shapes: Sequence[Shape], rows: Sequence[int]) -> Iterator[None]:
        """See `Code.preparing`."""
        record, _folder = self._opened()
        for shape in map(str, shapes):
            if shape not in record.shapes:
                raise InvalidInput("shapes", shape, f"one that {self.file.name} has: {'; '.join(record.shapes)}")
        if not set(rows) <= set(record.rows):
            raise InvalidInput("row_buckets", tuple(rows), f"numbers of rows that {self.file.name} has: {record.rows}")
        self._watching = self._mode is not OtherKernels.IGNORE
        try:
            with self.kept():
                yield
        finally:
            self._watching = False

    def watch(self, shape: Shape, rows: int, run: Callable[[], object]) -> None:
        """See `Code.watch`."""
        if not self._watching:
            return
        other = difference(self._opened()[0], shape, rows, launched(run, self._device))
        if other is None:
            return
        if self._mode is OtherKernels.REFUSE:
            raise KernelsDiffer(f"{other} in {code_record.path(self.file).name}; build the code again, or report it")
        self._found.append(other)

    def close(self) -> None:
        """See `Code.close`."""
        if self._folder is not None:
            self._remove()

    def _opened(self) -> tuple[Record, Path]:
        if self._record is None or self._folder is None:
            raise InvalidInput("compiled", "code that was not begun", "a CodeFile of an executor")
        return self._record, self._folder


def difference(record: Record, shape: Shape, rows: int, kernels: tuple[str, ...]) -> OtherKernel | None:
    """The first kernel of a run that is not the recorded one; None where all are.

    Args:
        record: the metadata of the code.
        shape: the shape of the run.
        rows: its number of rows.
        kernels: the kernels that the run launched.
    """
    recorded = run_of(record, shape, rows)
    pairs = enumerate(zip_longest(recorded, kernels))
    other = next(((at, expected, found) for at, (expected, found) in pairs if expected != found), None)
    return None if other is None else OtherKernel(str(shape), rows, *other)


def run_of(record: Record, shape: Shape, rows: int) -> tuple[str, ...]:
    """The recorded kernels of a run; none where the run is not in the record."""
    return next((run.kernels for run in record.runs if (run.shape, run.rows) == (str(shape), rows)), ())


def recorded_run(shape: Shape, rows: int, kernels: tuple[str, ...]) -> Run:
    """The record of a run's kernels."""
    return Run(str(shape), rows, kernels, code_record.digest(kernels))


def pack(folder: Path) -> dict[str, bytes]:
    """The files of a folder of code, for an archive, without locks; the folder's own path is not in them."""
    names = {each: each.relative_to(folder) for each in folder.rglob("*") if each.is_file() and not each.is_symlink()}
    kept = {each: name for each, name in names.items() if name.parts[0] != _LOCKS[0] and each.suffix != _LOCKS[1]}
    return {name.as_posix(): _moved(each, _contents(each), bytes(folder), FOLDER) for each, name in kept.items()}


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write files of an archive into a folder, and name the folder where Triton's lists need it."""
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_moved(target, data, FOLDER, bytes(folder)))


def _moved(file: Path, data: bytes, old: bytes, new: bytes) -> bytes:
    return data.replace(old, new) if file.name.startswith(_LISTS) else data


def _contents(file: Path) -> bytes:
    try:
        return reading.whole(file, reading.LARGE)
    except FileRefused as error:
        raise CodeCorrupt(str(error)) from error
