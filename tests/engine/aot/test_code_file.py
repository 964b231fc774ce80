"""Files of code that do not fit, and what a process does with one that fits."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engine.aot import code_build, code_file, code_record
from harness.engine.aot.code_build import build_code
from harness.engine.aot.code_file import FOLDER, CodeFile, OtherKernels, difference, recorded_run
from harness.engine.aot.code_record import HERE, Record
from harness.engine.decoders import AffineDecoder
from harness.engine.errors import BuildFailed, CodeCorrupt, CodeMismatch, InvalidInput, KernelsDiffer, SidecarMissing
from harness.engine.executors import CudaGraphExecutor
from harness.engine.executors import code as module
from harness.engine.executors.code import CompiledHere, OtherKernel
from harness.files import archive
from tests.engine.aot.code_files import CPU, OTHER_CHOICE, ROWS, SHAPE, alone

FILES = {"ab/c.so": b"library", "triton/x/__grp__k.json": b'{"k": "' + FOLDER + b'/triton/x/k"}'}
KERNELS = ("first", "second", "third")


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    path = tmp_path / "affine.code"
    data = archive.packed(FILES)
    path.write_bytes(data)
    made = {"code_sha256": hashlib.sha256(data).hexdigest(), "graphs": 1, "rows": ROWS, "shapes": (str(SHAPE),)}
    runs = tuple(recorded_run(SHAPE, rows, KERNELS) for rows in ROWS)
    code_record.write(path, Record(**code_record.here(AffineDecoder(32), CPU), **made, runs=runs))
    return path


def executor(file: Path, decoder: Any = None, **options: Any) -> CudaGraphExecutor:
    code = CodeFile(file, options.pop("other_kernels", OtherKernels.IGNORE))
    return CudaGraphExecutor(decoder or AffineDecoder(32), compiled=code, device="cpu", row_buckets=ROWS, **options)


# Files that do not fit: refused before anything is unpacked.


@pytest.mark.parametrize("name", HERE)
def test_code_of_something_else_is_refused_by_the_field_that_differs(
    file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    another: Any = {"options": {}, "switches": {"band": "flex"}, "threads": 1000}
    code_record.write(file, replace(code_record.read(file), **{name: another.get(name, "another")}))
    monkeypatch.setattr(code_file, "unpack", None)
    with pytest.raises(CodeMismatch, match=f"^{name}: "):
        executor(file)


def test_code_of_another_decoder_is_refused(file: Path) -> None:
    with pytest.raises(CodeMismatch, match="structure: "):
        executor(file, AffineDecoder(33))


def test_code_without_metadata_and_code_that_was_altered_are_refused(file: Path) -> None:
    data = file.read_bytes()
    for changed in (data[:-1], data + b"x", b""):
        file.write_bytes(changed)
        with pytest.raises(CodeCorrupt, match="is not the one in"):
            executor(file)
    code_record.path(file).unlink()
    with pytest.raises(SidecarMissing, match="is missing"):
        executor(file)


def test_code_that_is_no_archive_is_refused_although_its_hash_is_right(file: Path) -> None:
    file.write_bytes(b"no archive")
    right = hashlib.sha256(b"no archive").hexdigest()
    code_record.write(file, replace(code_record.read(file), code_sha256=right))
    with pytest.raises(CodeCorrupt, match="a ZIP archive"):
        executor(file)


def test_shapes_and_rows_that_the_file_has_not_are_refused_before_anything_is_compiled(file: Path) -> None:
    made = executor(file)
    with pytest.raises(InvalidInput, match=r"shapes: got T=11, .* one that affine.code has: T=10"):
        made.prepare([SHAPE, replace(SHAPE, frames=11)])
    more = CudaGraphExecutor(AffineDecoder(32), compiled=CodeFile(file), device="cpu", row_buckets=(1, 4))
    with pytest.raises(InvalidInput, match=r"row_buckets: got \(1, 4\), .*affine.code has: \(1, 2\)"):
        more.prepare([SHAPE])
    assert (made.stats().compiled, more.stats().compiled, made.stats().graphs) == (0, 0, 0)


def test_a_code_file_is_of_one_executor(file: Path) -> None:
    code = CodeFile(file)
    CudaGraphExecutor(AffineDecoder(32), compiled=code, device="cpu")
    with pytest.raises(InvalidInput, match="a CodeFile for each executor"):
        CudaGraphExecutor(AffineDecoder(32), compiled=code, device="cpu")


def test_an_unknown_answer_to_other_kernels_is_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match="other_kernels: "):
        CodeFile(file, "warn")


# Where the code is.


def test_the_code_is_unpacked_where_nobody_else_can_write_and_is_gone_after_close(file: Path) -> None:
    made = executor(file)
    folder = made._code._folder
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "ab" / "c.so").read_bytes() == b"library"
    assert (folder / "triton/x/__grp__k.json").read_bytes() == b'{"k": "' + bytes(folder) + b'/triton/x/k"}'
    made.close()
    assert not folder.exists()


def test_a_folder_is_packed_without_locks_links_and_its_own_path(tmp_path: Path) -> None:
    code_file.unpack(FILES, tmp_path)
    for name in ("locks/a", "ab/c.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "ab" / "c.so")
    assert bytes(tmp_path) in (tmp_path / "triton/x/__grp__k.json").read_bytes()
    assert code_file.pack(tmp_path) == FILES


def test_code_that_is_compiled_here_is_code_too() -> None:
    assert isinstance(CompiledHere(), module.Code) and isinstance(CodeFile("a"), module.Code)
    assert not isinstance(True, module.Code)


# Kernels.


@pytest.mark.parametrize(("found", "expected"), [
    (("first", "other", "third"), (1, "second", "other")),
    (("second", "first", "third"), (0, "first", "second")),
    (("first", "second"), (2, "third", None)),
    ((*KERNELS, "fourth"), (3, None, "fourth")),
    ((), (0, "first", None)),
])  # fmt: skip
def test_the_first_kernel_that_differs_is_named(file: Path, found: Any, expected: Any) -> None:
    record = code_record.read(file)
    assert difference(record, SHAPE, 2, found) == OtherKernel(str(SHAPE), 2, *expected)
    assert difference(record, SHAPE, 2, KERNELS) is None


def test_a_run_that_is_not_recorded_differs_from_its_first_kernel_on(file: Path) -> None:
    assert difference(code_record.read(file), SHAPE, 3, KERNELS) == OtherKernel(str(SHAPE), 3, 0, None, "first")


def test_a_difference_is_said_in_words() -> None:
    assert str(OtherKernel("T=10", 2, 1, "a", None)) == "2 rows of T=10: kernel 1 is no kernel, expected a"


def test_prepare_refuses_other_kernels_or_reports_them_or_does_not_look(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(code_file, "launched", lambda run, device: looked.append(run()) or ("first", "other"))
    monkeypatch.setattr("harness.engine.executors.cuda_graph.compile_decoder", lambda decoder, graphs: decoder)
    with pytest.raises(
        KernelsDiffer, match="^2 rows of T=10.*: kernel 1 is other, expected second in affine.code.json"
    ):
        executor(file, other_kernels="refuse").prepare([SHAPE])
    reporting, ignoring = executor(file, other_kernels="report"), executor(file, other_kernels="ignore")
    reporting.prepare([SHAPE])
    assert [(each.rows, each.found) for each in reporting.stats().other_kernels] == [(2, "other"), (1, "other")]
    before = len(looked)
    ignoring.prepare([SHAPE])
    assert (ignoring.stats().other_kernels, len(looked)) == ((), before)


def test_kernels_are_compared_in_prepare_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_file, "launched", lambda run, device: ("other",))
    monkeypatch.setattr("harness.engine.executors.cuda_graph.compile_decoder", lambda decoder, graphs: decoder)
    made = executor(file, other_kernels="refuse", on_demand=True)
    made.run(replace(SHAPE, frames=12).example(1, CPU))
    made.update(lambda: None)
    assert made.stats().graphs == 1
    reporting = executor(file, other_kernels="report", on_demand=True)
    reporting.prepare([SHAPE])
    found = reporting.stats().other_kernels
    reporting.run(replace(SHAPE, frames=12).example(1, CPU))
    assert len(found) == 2 and reporting.stats().other_kernels == found


# Files that are there.


def test_a_file_that_matches_is_used_again_and_nothing_is_compiled(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_build, "_prepared", None)
    before = file.read_bytes(), code_record.path(file).read_bytes()
    found = build_code(AffineDecoder(32), file, [SHAPE, SHAPE], ROWS[::-1], "cpu")
    assert (found.reused, found.differs, found.record) == (True, (), code_record.read(file))
    assert (file.read_bytes(), code_record.path(file).read_bytes()) == before


@pytest.mark.parametrize("change", ["torch", "rows", "shapes", "cut", "bare"])
def test_a_file_that_differs_is_built_anew_and_the_reason_is_named(
    file: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(decoder: Any, code: Any, *_asked: Any) -> int:
        (code.folder / "a.so").write_bytes(b"new")
        code.runs.append(recorded_run(SHAPE, 2, KERNELS))
        return 3

    monkeypatch.setattr(code_build, "_prepared", prepared)
    another: Any = {"torch": "2.11.0", "rows": (1,), "shapes": ("T=5",)}
    if change in another:
        code_record.write(file, replace(code_record.read(file), **{change: another[change]}))
    elif change == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        code_record.path(file).unlink()
    found = build_code(AffineDecoder(32), file, [SHAPE], ROWS, "cpu")
    assert found.reused is False
    assert change in found.differs or "affine.code" in found.differs[0]
    data, record = code_record.read_code(file)
    assert archive.unpacked(data, file) == {"a.so": b"new"}
    assert (record.graphs, record.runs, found.record) == (3, (recorded_run(SHAPE, 2, KERNELS),), record)


@pytest.mark.parametrize(("shapes", "rows", "words"), [([], (1,), "shapes"), ([SHAPE], (0,), "row_buckets")])
def test_a_build_of_nothing_is_refused(shapes: Any, rows: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=words):
        build_code(AffineDecoder(32), tmp_path / "a.code", shapes, rows, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_compiles_nothing_is_an_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.executors.cuda_graph.compile_decoder", lambda decoder, graphs: decoder)
    with pytest.raises(BuildFailed, match="compiled no graph"):
        build_code(AffineDecoder(32), tmp_path / "a.code", [SHAPE], (1,), "cpu")
    assert list(tmp_path.iterdir()) == []


# In processes of their own.


@pytest.fixture(name="built", scope="module")
def _built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of code, and the bits of the process that built it."""
    folder = tmp_path_factory.mktemp("code")
    made = alone(folder / "first", "build", folder / "chosen.code", "chosen")
    assert (made["reused"], made["graphs"]) == (False, 2)
    return folder / "chosen.code", made["bits"]


def test_the_next_process_compiles_nothing_and_makes_the_same_bits(built: tuple[Path, str], tmp_path: Path) -> None:
    file, bits = built
    loaded = alone(tmp_path, "load", file, "chosen")
    assert (loaded["compiled"], loaded["loaded"], loaded["others"], loaded["bits"]) == (0, 2, [], bits)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [], "nor is anything kept for its user"


def test_another_choice_of_a_library_is_refused_by_name(built: tuple[Path, str], tmp_path: Path) -> None:
    refused = alone(tmp_path, "load", built[0], "chosen", **{OTHER_CHOICE: "1"})
    assert refused["error"] == "KernelsDiffer"
    assert refused["says"].startswith(f"2 rows of {SHAPE}: kernel 1 is aten::zeros, expected aten::mm in ")
