"""Files of code on a GPU: the next process compiles nothing, launches the same kernels and makes the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.engine.aot import code_record
from harness.engine.aot.code_file import recorded_run
from tests.engine.aot.code_files import SHAPE, alone

CUDA = {"HARNESS_TESTS_DEVICE": "cuda"}


@pytest.fixture(name="built", scope="module", params=["tiny", "fast"])
def _built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A decoder, its file of code, and the bits of the process that built it."""
    folder, name = tmp_path_factory.mktemp("code"), request.param
    made = alone(folder / "first", "build", folder / "a.code", name, **CUDA)
    assert not made["reused"] and made["graphs"]
    return name, folder / "a.code", made["bits"]


def test_the_next_process_compiles_nothing_and_makes_the_same_bits(
    built: tuple[str, Path, str], tmp_path: Path
) -> None:
    name, file, bits = built
    loaded = alone(tmp_path, "load", file, name, **CUDA)
    assert (loaded["compiled"], loaded["others"], loaded["bits"]) == (0, [], bits)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_every_run_has_kernels_and_another_choice_is_refused(built: tuple[str, Path, str], tmp_path: Path) -> None:
    name, file, _bits = built
    record = code_record.read(file)
    assert all(run.kernels for run in record.runs)
    planted = [recorded_run(SHAPE, run.rows, ("another", *run.kernels[1:])) for run in record.runs]
    other = tmp_path / "other.code"
    other.write_bytes(file.read_bytes())
    code_record.write(other, replace(record, runs=tuple(planted)))
    refused = alone(tmp_path / "empty", "load", other, name, **CUDA)
    assert refused["error"] == "KernelsDiffer"
    assert "kernel 0 is" in refused["says"] and "expected another" in refused["says"]
