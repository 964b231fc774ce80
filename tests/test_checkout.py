"""The checkout that commands work on is the package's own, else the one around the working folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import harness
from harness.checkout import PACKAGE, around, is_checkout, root

SETTINGS = '[tool.harness]\nreference-platform = "a"\n'


def checkout(folder: Path, *, with_package: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(SETTINGS)
    if with_package:
        (folder / "harness").mkdir()
        (folder / "harness" / "__init__.py").touch()
    return folder


def test_of_this_package_it_is_the_project() -> None:
    assert Path(harness.__file__).resolve().parent == PACKAGE
    assert root() == PACKAGE.parent
    assert (root() / "captures").is_dir()


def test_a_package_in_a_checkout_works_on_that_one_wherever_the_process_stands(tmp_path: Path) -> None:
    own, other = checkout(tmp_path / "own", with_package=True), checkout(tmp_path / "other")
    assert root(own / "harness", other) == own


@pytest.mark.parametrize(("with_package", "found"), [(False, "project"), (True, "site")])
def test_an_installed_package_works_on_a_checkout_that_has_no_engine_of_its_own(
    tmp_path: Path, with_package: bool, found: str
) -> None:
    project = checkout(tmp_path / "project", with_package=with_package)
    (project / "a").mkdir()
    assert root(tmp_path / "site" / "harness", project / "a") == tmp_path / found


def test_the_nearest_checkout_counts_and_other_projects_do_not(tmp_path: Path) -> None:
    outer = checkout(tmp_path / "outer")
    inner = checkout(outer / "inner")
    (inner / "other").mkdir()
    (inner / "other" / "pyproject.toml").write_text("[tool.others]\n")
    assert around(inner / "other") == inner
    assert around(outer) == outer
    assert around(tmp_path) is None


@pytest.mark.parametrize(("text", "found"), [
    (SETTINGS, True),
    ("tool = {harness = {}}\n", True),
    (SETTINGS + "half a li", True),
    ("[tool.others]\n", False),
    ("# [tool.harness]\n", False),
    ("half a li", False),
    ("", False),
])  # fmt: skip
def test_a_checkout_is_known_by_its_settings_also_while_they_are_edited(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert is_checkout(tmp_path) is found


def test_a_folder_of_that_name_is_no_settings(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").mkdir()
    assert not is_checkout(tmp_path)


def test_in_a_folder_that_was_deleted_there_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert around() is None
