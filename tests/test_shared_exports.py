"""Processes of one run share what they export, and no run has another one's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import registry
from tests.shared_exports import within

Asked = tuple[str, int, str, int | None]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What was exported, by an exporter that writes down what it was asked for."""
    asked: list[Asked] = []

    def export(*words: int | str | None) -> Path:
        asked.append(words)  # type: ignore[arg-type]
        file = tmp_path / f"{len(asked)}.onnx"
        file.write_text(str(words))
        return file

    monkeypatch.setattr(registry, "_exported", export)
    return asked


def process(folder: Path, ask: Callable[[], Path]) -> Path:
    """What a process of a run whose folder this is gets."""
    with within(folder):
        assert ask() == ask()
        return ask()


def test_a_process_gets_what_another_one_of_its_run_has_exported(tmp_path: Path, exported: list[Asked]) -> None:
    files = [process(tmp_path / "run", lambda: registry.onnx_file("tiny")) for _ in range(3)]
    assert exported == [("tiny", 0, "float32", None)]
    assert len(set(files)) == 1 and files[0].read_text() == str(exported[0])


def test_another_run_exports_anew(tmp_path: Path, exported: list[Asked]) -> None:
    files = [process(tmp_path / run, lambda: registry.onnx_file("tiny")) for run in ("one", "two")]
    assert (len(exported), len(set(files))) == (2, 2)


def test_whatever_determines_a_file_makes_it_another_one(tmp_path: Path, exported: list[Asked]) -> None:
    asks: list[Callable[[], Path]] = [
        lambda: registry.onnx_file("tiny"),
        lambda: registry.onnx_file("tiny", dtype="float16"),
        lambda: registry.onnx_file("mid"),
        lambda: registry.onnx_file("affine"),
        lambda: registry.onnx_file("affine", encoder_dim=8),
        lambda: registry.onnx_file("affine", tokens=3),
    ]
    files = [process(tmp_path / "run", ask) for ask in asks]
    assert len(set(files)) == len(exported) == len(asks)
    assert [file.read_text() for file in files] == [str(asked) for asked in exported]


def test_a_checkpoint_whose_folder_may_change_is_not_shared(tmp_path: Path, exported: list[Asked]) -> None:
    for _ in range(2):
        with within(tmp_path / "run"):
            registry.onnx_file(str(tmp_path))
    assert len(exported) == 2


def test_an_export_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_asked: object) -> Path:
        raise RuntimeError("no")

    monkeypatch.setattr(registry, "_exported", fail)
    for _ in range(2):
        with within(tmp_path / "run"), pytest.raises(RuntimeError, match="no"):
            registry.onnx_file("tiny")


def test_the_tests_share_theirs() -> None:
    assert registry.onnx_file("affine").parent.name == "shared-exports"
