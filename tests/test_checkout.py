"""The checkout that commands work on is the package's own, else the one around the working folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import harness
from harness.checkout import PACKAGE, around, has_package, is_checkout, root

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


def test_without_arguments_it_is_the_one_around_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, site = checkout(tmp_path / "project"), tmp_path / "site" / "harness"
    (project / "a").mkdir()
    monkeypatch.chdir(project / "a")
    assert (around(), root(site)) == (project, project)
    monkeypatch.chdir(tmp_path)
    assert (around(), root(site)) == (None, tmp_path / "site")


def test_a_link_into_a_checkout_is_in_it_and_the_checkout_is_named_by_its_own_path(tmp_path: Path) -> None:
    project = checkout(tmp_path / "project")
    (project / "a").mkdir()
    (tmp_path / "link").symlink_to(project / "a")
    (tmp_path / "other").symlink_to(project)
    assert [around(tmp_path / name) for name in ("link", "other", "other/a")] == [project] * 3


def test_a_folder_is_a_package_of_this_name_by_its_init_file_alone(tmp_path: Path) -> None:
    found = []
    for name in ("others", "harness", "harness/__init__.py"):
        (tmp_path / name).mkdir()
        found.append(has_package(tmp_path))
    (tmp_path / "others" / "__init__.py").touch()
    (tmp_path / "__init__.py").touch()
    assert [*found, has_package(tmp_path)] == [False] * 4
    (tmp_path / "harness" / "__init__.py").rmdir()
    (tmp_path / "harness" / "__init__.py").touch()
    assert has_package(tmp_path)


def test_settings_in_any_encoding_are_read(tmp_path: Path) -> None:
    for text, found in ((SETTINGS + "# caf\u00e9\n", True), ("[tool.others]\n# caf\u00e9\n", False)):
        for encoding in ("utf-8", "utf-8-sig", "latin-1"):
            (tmp_path / "pyproject.toml").write_text(text, encoding=encoding)
            assert is_checkout(tmp_path) is found


@pytest.mark.parametrize("kind", [FileNotFoundError, IsADirectoryError, PermissionError])
def test_settings_that_this_user_may_not_read_are_nobody_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[OSError]
) -> None:
    def refused(*_asked: object, **_options: object) -> int:
        raise kind

    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    monkeypatch.setattr(os, "open", refused)
    assert not is_checkout(tmp_path)


@pytest.mark.parametrize("text", ["tool = 1", "tool = [1]", "tool = 'harness'", "[" * 100_000, "a = " + "1" * 9999])
def test_settings_of_another_form_are_nobody_s(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert not is_checkout(tmp_path)


def test_a_fifo_of_that_name_is_no_settings_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    assert not is_checkout(tmp_path)
